"""The only place that prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import json as json_module
import logging
import os
import sys
import textwrap
import traceback
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner.cli.table_layout import PLAIN_WIDTH, Grid, GridColumn, Shown

if TYPE_CHECKING:
    from rich.console import Console

    from autotuner.errors import AutotuneError
    from autotuner.report.table import Table

READABLE = 100
"""Columns that running text takes at most."""

LEFT_OUT = "Left out at {width} columns: {titles}."


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
    grid = Grid(shown, list(rows), _bounded(out()))
    _print(grid, title, emphasise)
    _say_what_is_missing(grid)


def report(made: Table, title: str = "", known: Sequence[str] = ()) -> list[str]:
    """A table of a report: at the width there is, with its legends, what was left out, and its notes.

    Gives the lines that name what had no room in it; those that are `known` are not repeated.
    """
    grid = Grid(list(made.columns), made.texts(), _bounded(out()))
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


def _say_what_is_missing(grid: Grid) -> None:
    titles = [column.title for column in grid.all if column not in grid.columns and not column.below]
    if titles:
        sentence(LEFT_OUT.format(width=out().width, titles=", ".join(titles)))


def _print(grid: Grid, title: str, emphasise: int | None) -> None:
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
    columns: Sequence[GridColumn],
    *,
    width: int,
    emphasise: int | None = None,
) -> Any:
    """A rich table of `width` characters at most, for a view that draws it itself."""
    return Grid(columns, rows, width).drawn(emphasise)


def discard_output() -> None:
    """Let the interpreter exit quietly after the reader of stdout has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
