"""Tables laid out for a terminal: which columns there is room for, how wide they are, and where text wraps."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

DEFAULT_WIDTH = 200
"""Columns when output is not a terminal and COLUMNS is not set, so that tables in a pipe or a CI log are not cut."""

COLUMN_GAP = 2
MAX_WORD_WIDTH = 34
"""Characters of a word that a column of text has room for; a longer one is broken."""
LEGIBLE_WIDTH = 24
"""Characters of text that columns of low priority give way for."""
MIN_TEXT_WIDTH = 10
"""Characters to which a column of text shrinks where nothing else helps, its words broken."""

ROW_NAME_COLUMN = "trial"
"""The column whose cells name the rows of a table, where it has one."""

VERDICT_STYLES = {
    "feasible": "green",
    "undecided": "yellow",
    "infeasible": "red",
    "saturated": "magenta",
    "client-limited": "magenta",
    "invalid": "magenta",
    "met": "green",
}
"""How a cell in a column of VERDICTS looks, by its first word; every other word there is a failure."""

VERDICT_COLUMNS = ("verdict", "outcome", "target")
FAILURE_STYLE = "red"


class LayoutColumn(Protocol):
    """What is known of a column when it is laid out."""

    @property
    def title(self) -> str:
        """What stands above it."""

    @property
    def numeric(self) -> bool:
        """Whether it is right-aligned and never broken, as numbers are."""

    @property
    def drop_priority(self) -> int:
        """0 for one that is never left out; the highest goes first."""

    @property
    def listed_below(self) -> bool:
        """Whether its cells are listed under the table where there is no room for each on one line."""


@dataclass(frozen=True)
class ColumnSpec:
    """A column by its title."""

    title: str
    numeric: bool = False
    drop_priority: int = 0
    listed_below: bool = False


class TableLayout:
    """Columns and rows laid out for a width in characters, None for any.

    Columns of numbers are as wide as their widest one, text wraps at words. Where that is too wide,
    columns are left out by priority; words are broken where that is not enough, numbers never.
    """

    def __init__(self, columns: Sequence[LayoutColumn], rows: Sequence[Mapping[str, Any]], width: int | None) -> None:
        self.all_columns = list(columns)
        self.rows = [{c.title: "" if row.get(c.title) is None else str(row[c.title]) for c in columns} for row in rows]
        self.columns = self._readable_columns() if width is None else self._fitting_columns(width)
        self.widths = self._fitted_widths(DEFAULT_WIDTH if width is None else width, break_words=width is not None)

    @property
    def width(self) -> int:
        """What the table takes."""
        return sum(self.widths) + COLUMN_GAP * (len(self.widths) - 1)

    def lines_below(self) -> list[str]:
        """The cells that are listed under the table, each behind what its row begins with."""
        if not self.columns:
            return []
        titles = [column.title for column in self.columns]
        first = ROW_NAME_COLUMN if ROW_NAME_COLUMN in titles else titles[0]
        head = first if first == "#" else f"{first} "
        gone = [column.title for column in self.all_columns if column.listed_below and column not in self.columns]
        return list(
            dict.fromkeys(f"{head}{row[first]}: {row[title]}" for title in gone for row in self.rows if row[title])
        )

    def _readable_columns(self) -> list[LayoutColumn]:
        """All columns, but for those that would make lines too long to read and may be listed below."""
        fits = self._required_width(self.all_columns) <= DEFAULT_WIDTH
        return [column for column in self.all_columns if fits or not column.listed_below]

    def _fitting_columns(self, width: int) -> list[LayoutColumn]:
        """The columns there is room for: what is left out goes by priority, and what still fits then comes back."""
        chosen = list(self.all_columns)
        while self._required_width(chosen) > width and any(column.drop_priority for column in chosen):
            chosen.remove(max(reversed(chosen), key=lambda column: column.drop_priority))
        for column in sorted(self.all_columns, key=lambda column: column.drop_priority):
            more = [one for one in self.all_columns if one in chosen or one is column]
            if self._required_width(more) <= width:
                chosen = more
        return chosen

    def _required_width(self, columns: Sequence[LayoutColumn]) -> int:
        """The width at which numbers are whole and text is legible."""
        widths = (self._legible_width(column) for column in columns)
        return sum(widths) + COLUMN_GAP * max(0, len(columns) - 1)

    def _legible_width(self, column: LayoutColumn) -> int:
        least = self._min_width(column)
        if column.listed_below:
            return self._max_width(column)
        return (
            least
            if column.numeric
            else max(least, min(max(map(_display_width, ["", *self._cells(column)])), LEGIBLE_WIDTH))
        )

    def _cells(self, column: LayoutColumn) -> list[str]:
        return [row[column.title] for row in self.rows]

    def _min_width(self, column: LayoutColumn) -> int:
        """The width at which no number and no word is broken, but for very long ones."""
        words = _breakable_parts(column.title)
        if not column.numeric:
            words += [word[:MAX_WORD_WIDTH] for cell in self._cells(column) for word in cell.split()]
            return max(map(_display_width, ["-", *words]))
        return max(map(_display_width, ["-", *words, *self._cells(column)]))

    def _max_width(self, column: LayoutColumn) -> int:
        lines = [line for cell in self._cells(column) for line in cell.splitlines()]
        return max(map(_display_width, ["-", column.title, *lines]))

    def _fitted_widths(self, max_width: int, *, break_words: bool) -> list[int]:
        """The width of each column: titles of numbers wrap first, then text at words, then with `fold` anywhere."""
        widths = [self._max_width(column) for column in self.columns]
        numbers = [place for place, column in enumerate(self.columns) if column.numeric]
        texts = [place for place, column in enumerate(self.columns) if not column.numeric]
        least = [self._min_width(column) for column in self.columns]
        folded = [min(width, MIN_TEXT_WIDTH) for width in least]
        for places, limits in ((numbers, least), (texts, least), (texts if break_words else [], folded)):
            self._shrink(widths, places, limits, max_width)
        return widths

    def _shrink(self, widths: list[int], indices: Sequence[int], limits: Sequence[int], max_width: int) -> None:
        """Make columns narrower, the widest first, until the table fits or all are at their limits."""
        for _ in range(max(0, sum(widths) + COLUMN_GAP * (len(widths) - 1) - max_width)):
            left = [place for place in indices if widths[place] > limits[place]]
            if not left:
                return
            widths[max(left, key=lambda place: widths[place])] -= 1

    def rich_table(self, bold_row: int | None) -> Any:
        """The rich table."""
        from rich import box
        from rich.table import Table

        made = Table(
            width=self.width,
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, COLUMN_GAP - 1, 0, 0),
        )
        for column, width in zip(self.columns, self.widths, strict=True):
            made.add_column(
                "\n".join(textwrap.wrap(column.title, width)),
                justify="right" if column.numeric else "left",
                width=width,
                vertical="top",
                overflow="fold",
            )
        for position, row in enumerate(self.rows):
            cells = [_styled_cell(column.title, row[column.title]) for column in self.columns]
            made.add_row(*cells, style="bold" if position == bold_row else None)
        return made


def _breakable_parts(title: str) -> list[str]:
    """What a title may be broken into: words, and the parts of one with hyphens."""
    return [piece for word in title.split() for piece in re.split(r"(?<=\w-)(?=\w)", word)]


def _display_width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    from rich.cells import cell_len

    return cell_len(text)


def _styled_cell(title: str, text: str) -> Any:
    from rich.text import Text

    style = VERDICT_STYLES.get(text.split(" ")[0], FAILURE_STYLE) if title in VERDICT_COLUMNS and text else ""
    return Text(text, style=style)
