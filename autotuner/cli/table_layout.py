"""Tables laid out for a terminal: which columns there is room for, how wide they are, and where text wraps."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

PLAIN_WIDTH = 200
"""Columns when output is not a terminal and COLUMNS is not set, so that tables in a pipe or a CI log are not cut."""

GAP = 2
LONGEST_WORD = 34
"""Characters of a word that a column of text has room for; a longer one is broken."""
LEGIBLE = 24
"""Characters of text that columns of low priority give way for."""
FOLDED = 10
"""Characters to which a column of text shrinks where nothing else helps, its words broken."""

IDENTITY = "trial"
"""The column whose cells name the rows of a table, where it has one."""

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


class GridColumn(Protocol):
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


class Grid:
    """Columns and rows laid out for a width in characters, None for any.

    Columns of numbers are as wide as their widest one, text wraps at words. Where that is too wide,
    columns are left out by priority; words are broken where that is not enough, numbers never.
    """

    def __init__(self, columns: Sequence[GridColumn], rows: Sequence[Mapping[str, Any]], width: int | None) -> None:
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

    def _unbounded(self) -> list[GridColumn]:
        """All columns, but for those that would make lines too long to read and may be listed below."""
        fits = self._needs(self.all) <= PLAIN_WIDTH
        return [column for column in self.all if fits or not column.below]

    def _chosen(self, width: int) -> list[GridColumn]:
        """The columns there is room for: what is left out goes by priority, and what still fits then comes back."""
        chosen = list(self.all)
        while self._needs(chosen) > width and any(column.priority for column in chosen):
            chosen.remove(max(reversed(chosen), key=lambda column: column.priority))
        for column in sorted(self.all, key=lambda column: column.priority):
            more = [one for one in self.all if one in chosen or one is column]
            if self._needs(more) <= width:
                chosen = more
        return chosen

    def _needs(self, columns: Sequence[GridColumn]) -> int:
        """The width at which numbers are whole and text is legible."""
        widths = (self._legible(column) for column in columns)
        return sum(widths) + GAP * max(0, len(columns) - 1)

    def _legible(self, column: GridColumn) -> int:
        least = self._narrowest(column)
        if column.below:
            return self._widest(column)
        return least if column.right else max(least, min(max(map(_length, ["", *self._cells(column)])), LEGIBLE))

    def _cells(self, column: GridColumn) -> list[str]:
        return [row[column.title] for row in self.rows]

    def _narrowest(self, column: GridColumn) -> int:
        """The width at which no number and no word is broken, but for very long ones."""
        words = _pieces(column.title)
        if not column.right:
            words += [word[:LONGEST_WORD] for cell in self._cells(column) for word in cell.split()]
            return max(map(_length, ["-", *words]))
        return max(map(_length, ["-", *words, *self._cells(column)]))

    def _widest(self, column: GridColumn) -> int:
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
