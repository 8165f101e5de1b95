"""The only place that prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import json as json_module
import logging
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

    from autotuner.errors import AutotuneError
    from autotuner.report.table import Table

PLAIN_WIDTH = 200
"""Columns when output is not a terminal and COLUMNS is not set, so that tables in a pipe or a CI log are not cut."""

READABLE = 100
"""Columns that running text takes at most."""

GAP = 2
LONGEST_WORD = 34
"""Characters of a word that a column of text has room for; a longer one is broken."""
LEGIBLE = 24
"""Characters of text that columns of low priority give way for."""
FOLDED = 10
"""Characters to which a column of text shrinks where nothing else helps, its words broken."""

IDENTITY = "trial"
"""The column whose cells name the rows of a table, where it has one."""

LEFT_OUT = "Left out at {width} columns: {titles}."

STYLES = {
    "feasible": "green",
    "undecided": "yellow",
    "infeasible": "red",
    "saturated": "magenta",
    "client-limited": "magenta",
    "invalid": "magenta",
    "met": "green",
}
"""How a cell in a column of VERDICTS looks, by its first word; every other word there is a failure."""

VERDICTS = ("verdict", "outcome", "target")
FAILED = "red"


@cache
def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def out() -> Console:
    """Where results go."""
    return _sized(_console(stderr=False))


def err() -> Console:
    """Where progress, notes and errors go."""
    return _sized(_console(stderr=True))


def _sized(console: Console) -> Console:
    if not console.is_terminal:
        console.width = _columns() or PLAIN_WIDTH
    return console


def _columns() -> int | None:
    """The width that the environment asks for."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdigit() and int(columns) > 0 else None


def _bounded(console: Console) -> int | None:
    """The width that output has to fit; None in a pipe, which has none."""
    return console.width if console.is_terminal or _columns() else None


def error(problem: AutotuneError) -> None:
    """One paragraph: what happened, why, what to do."""
    _paragraph("Error", str(problem))


def warning(text: str) -> None:
    """A warning on stderr."""
    _paragraph("Warning", text)


def unexpected(problem: Exception) -> None:
    """A defect of autotune itself, in one paragraph."""
    where = traceback.extract_tb(problem.__traceback__)[-1]
    _paragraph(
        "Error",
        f"autotune failed on something it did not expect: {type(problem).__name__}: {problem} "
        f"({Path(where.filename).name}:{where.lineno}). What was measured before is kept in the run folder. "
        "Please report this with the output of the same command with `autotune --debug`.",
    )


def _paragraph(label: str, text: str) -> None:
    width = min(READABLE, err().width)
    sys.stderr.write(textwrap.fill(f"{label}: {text}", width, break_long_words=False, break_on_hyphens=False) + "\n")


def note(text: str) -> None:
    """A line on stderr."""
    err().print(text, markup=False, soft_wrap=True)


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def relay_log() -> None:
    """Show what the package logs, such as the progress of a pull, as notes."""
    log = logging.getLogger("autotuner")
    log.setLevel(logging.INFO)
    log.handlers = [_Notes()]
    log.propagate = False


def line(text: str = "") -> None:
    """A line on stdout."""
    sys.stdout.write(text + "\n")


def sentence(text: str, indent: str = "") -> None:
    """Running text on stdout: one line in a pipe, wrapped at words elsewhere, its later lines behind `indent`."""
    sys.stdout.write(_wrapped(text, out(), indent) + "\n")


def happened(text: str) -> None:
    """Running text on stderr, wrapped as a `sentence` is."""
    err().print(_wrapped(text, err(), "    "), markup=False, soft_wrap=True)


def _wrapped(text: str, console: Console, indent: str) -> str:
    width = _bounded(console)
    if width is None:
        return text
    return textwrap.fill(
        text,
        min(READABLE, width),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def text(body: str) -> None:
    """A block on stdout, as it is."""
    sys.stdout.write(body if body.endswith("\n") else body + "\n")


def json(data: Any) -> None:
    """Machine-readable output on stdout."""
    sys.stdout.write(json_module.dumps(data, indent=2, ensure_ascii=False) + "\n")


def table(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    title: str = "",
    right: Sequence[str] = (),
    emphasise: int | None = None,
    priorities: Mapping[str, int] | None = None,
) -> None:
    """A table of rows; `right` columns are right-aligned, row `emphasise` is bold.

    Where there is no room for all columns, those of the highest of `priorities` are left out first,
    those of 0 or of none never.
    """
    shown = [Shown(name, name in right, (priorities or {}).get(name, 0)) for name in columns]
    grid = _Grid(shown, list(rows), _bounded(out()))
    _print(grid, title, emphasise)
    _say_what_is_missing(grid)


def report(made: Table, title: str = "", known: Sequence[str] = ()) -> list[str]:
    """A table of a report: at the width there is, with its legends, what was left out, and its notes.

    Gives the lines that name what had no room in it; those that are `known` are not repeated.
    """
    grid = _Grid(list(made.columns), made.texts(), _bounded(out()))
    _print(grid, title, made.winner)
    below = grid.below()
    for text in below:
        if text not in known:
            sentence(text, indent="    ")
    for text in made.shared:
        sentence(text, indent="    ")
    shown = [column.title for column in grid.columns]
    for text in made.legends(shown):
        sentence(text)
    _say_what_is_missing(grid)
    for text in made.notes:
        sentence(text)
    return below


def _say_what_is_missing(grid: _Grid) -> None:
    titles = [column.title for column in grid.all if column not in grid.columns and not column.below]
    if titles:
        sentence(LEFT_OUT.format(width=out().width, titles=", ".join(titles)))


class Column(Protocol):
    """What is known of a column when it is laid out."""

    @property
    def title(self) -> str:
        """What stands above it."""

    @property
    def right(self) -> bool:
        """Whether it is right-aligned and never broken, as numbers are."""

    @property
    def priority(self) -> int:
        """0 for one that is never left out; the highest goes first."""

    @property
    def below(self) -> bool:
        """Whether its cells are listed under the table where there is no room for each on one line."""


@dataclass(frozen=True)
class Shown:
    """A column by its title."""

    title: str
    right: bool = False
    priority: int = 0
    below: bool = False


class _Grid:
    """Columns and rows laid out for a width in characters, None for any.

    Columns of numbers are as wide as their widest one, text wraps at words. Where that is too wide,
    columns are left out by priority; words are broken where that is not enough, numbers never.
    """

    def __init__(self, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], width: int | None) -> None:
        self.all = list(columns)
        self.rows = [{c.title: "" if row.get(c.title) is None else str(row[c.title]) for c in columns} for row in rows]
        self.columns = self._unbounded() if width is None else self._chosen(width)
        self.widths = self._fitted(PLAIN_WIDTH if width is None else width, fold=width is not None)

    @property
    def width(self) -> int:
        """What the table takes."""
        return sum(self.widths) + GAP * (len(self.widths) - 1)

    def below(self) -> list[str]:
        """The cells that are listed under the table, each behind what its row begins with."""
        if not self.columns:
            return []
        titles = [column.title for column in self.columns]
        first = IDENTITY if IDENTITY in titles else titles[0]
        head = first if first == "#" else f"{first} "
        gone = [column.title for column in self.all if column.below and column not in self.columns]
        return list(
            dict.fromkeys(f"{head}{row[first]}: {row[title]}" for title in gone for row in self.rows if row[title])
        )

    def _unbounded(self) -> list[Column]:
        """All columns, but for those that would make lines too long to read and may be listed below."""
        fits = self._needs(self.all) <= PLAIN_WIDTH
        return [column for column in self.all if fits or not column.below]

    def _chosen(self, width: int) -> list[Column]:
        """The columns there is room for: what is left out goes by priority, and what still fits then comes back."""
        chosen = list(self.all)
        while self._needs(chosen) > width and any(column.priority for column in chosen):
            chosen.remove(max(reversed(chosen), key=lambda column: column.priority))
        for column in sorted(self.all, key=lambda column: column.priority):
            more = [one for one in self.all if one in chosen or one is column]
            if self._needs(more) <= width:
                chosen = more
        return chosen

    def _needs(self, columns: Sequence[Column]) -> int:
        """The width at which numbers are whole and text is legible."""
        widths = (self._legible(column) for column in columns)
        return sum(widths) + GAP * max(0, len(columns) - 1)

    def _legible(self, column: Column) -> int:
        least = self._narrowest(column)
        if column.below:
            return self._widest(column)
        return least if column.right else max(least, min(max(map(_length, ["", *self._cells(column)])), LEGIBLE))

    def _cells(self, column: Column) -> list[str]:
        return [row[column.title] for row in self.rows]

    def _narrowest(self, column: Column) -> int:
        """The width at which no number and no word is broken, but for very long ones."""
        words = _pieces(column.title)
        if not column.right:
            words += [word[:LONGEST_WORD] for cell in self._cells(column) for word in cell.split()]
            return max(map(_length, ["-", *words]))
        return max(map(_length, ["-", *words, *self._cells(column)]))

    def _widest(self, column: Column) -> int:
        lines = [line for cell in self._cells(column) for line in cell.splitlines()]
        return max(map(_length, ["-", column.title, *lines]))

    def _fitted(self, room: int, *, fold: bool) -> list[int]:
        """The width of each column: titles of numbers wrap first, then text at words, then with `fold` anywhere."""
        widths = [self._widest(column) for column in self.columns]
        numbers = [place for place, column in enumerate(self.columns) if column.right]
        texts = [place for place, column in enumerate(self.columns) if not column.right]
        least = [self._narrowest(column) for column in self.columns]
        folded = [min(width, FOLDED) for width in least]
        for places, limits in ((numbers, least), (texts, least), (texts if fold else [], folded)):
            self._shrink(widths, places, limits, room)
        return widths

    def _shrink(self, widths: list[int], places: Sequence[int], limits: Sequence[int], room: int) -> None:
        """Make columns narrower, the widest first, until the table fits or all are at their limits."""
        for _ in range(max(0, sum(widths) + GAP * (len(widths) - 1) - room)):
            left = [place for place in places if widths[place] > limits[place]]
            if not left:
                return
            widths[max(left, key=lambda place: widths[place])] -= 1

    def drawn(self, emphasise: int | None) -> Any:
        """The rich table."""
        from rich import box
        from rich.table import Table

        made = Table(
            width=self.width,
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, GAP - 1, 0, 0),
        )
        for column, width in zip(self.columns, self.widths, strict=True):
            made.add_column(
                "\n".join(textwrap.wrap(column.title, width)),
                justify="right" if column.right else "left",
                width=width,
                vertical="top",
                overflow="fold",
            )
        for position, row in enumerate(self.rows):
            cells = [_cell(column.title, row[column.title]) for column in self.columns]
            made.add_row(*cells, style="bold" if position == emphasise else None)
        return made


def _pieces(title: str) -> list[str]:
    """What a title may be broken into: words, and the parts of one with hyphens."""
    return [piece for word in title.split() for piece in re.split(r"(?<=\w-)(?=\w)", word)]


def _length(text: str) -> int:
    """Columns of a terminal that a text takes."""
    from rich.cells import cell_len

    return cell_len(text)


def _cell(title: str, text: str) -> Any:
    from rich.text import Text

    style = STYLES.get(text.split(" ")[0], FAILED) if title in VERDICTS and text else ""
    return Text(text, style=style)


def _print(grid: _Grid, title: str, emphasise: int | None) -> None:
    """Print a table; one that cannot be made to fit is not cut either."""
    from rich.text import Text

    console = out()
    if title:
        console.print(Text(_wrapped(title, console, ""), style="bold"), soft_wrap=True)
    made = grid.drawn(emphasise)
    if console.is_terminal:
        console.print(made, crop=False, no_wrap=True, overflow="ignore")
        return
    with console.capture() as captured:
        console.print(made, crop=False, no_wrap=True, overflow="ignore")
    text("\n".join(line.rstrip() for line in captured.get().splitlines()))


def make_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[Column],
    *,
    width: int,
    emphasise: int | None = None,
) -> Any:
    """A rich table of `width` characters at most, for a view that draws it itself."""
    return _Grid(columns, rows, width).drawn(emphasise)


def discard_output() -> None:
    """Let the interpreter exit quietly after the reader of stdout has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
