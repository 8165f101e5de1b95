"""Table layout for a terminal: which columns fit, how wide they are, and where text wraps."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from autotuner.escaping import for_terminal
from autotuner.redaction import redact

DEFAULT_WIDTH = 200
"""Characters per line in a pipe without COLUMNS, wide enough that tables in a CI log are not cut."""

COLUMN_GAP = 2
MAX_WORD_WIDTH = 34
"""Characters of the longest word that a text column keeps whole; longer words are broken."""
LEGIBLE_WIDTH = 24
"""Characters of a text column to make room for which other columns are dropped."""
MIN_TEXT_WIDTH = 10
"""Characters to which a text column shrinks as the last resort, with its words broken."""

ROW_NAME_COLUMN = "trial"
"""Column that identifies the rows of a table, if it has one."""

VERDICT_STYLES = {
    "feasible": "green",
    "undecided": "yellow",
    "infeasible": "red",
    "saturated": "magenta",
    "client-limited": "magenta",
    "invalid": "magenta",
    "met": "green",
}
"""Style of a cell of VERDICT_COLUMNS by its first word; any other word is a failure."""

VERDICT_COLUMNS = ("verdict", "outcome", "target")
FAILURE_STYLE = "red"


class LayoutColumn(Protocol):
    """A column as the layout needs it."""

    @property
    def title(self) -> str:
        """Text of the header, and the key of its cells in a row."""

    @property
    def numeric(self) -> bool:
        """Whether cells are right-aligned and never broken over lines."""

    @property
    def drop_priority(self) -> int:
        """Columns with the highest number are dropped first, those with 0 never."""

    @property
    def listed_below(self) -> bool:
        """Whether cells are listed below the table if they do not fit on one line each."""


@dataclass(frozen=True)
class ColumnSpec:
    """A column without any data of its own."""

    title: str
    numeric: bool = False
    drop_priority: int = 0
    listed_below: bool = False


class TableLayout:
    """Columns and rows laid out for a width in characters, None for unlimited.

    Numeric columns are as wide as their widest cell, text wraps at words. If that is too wide, columns
    are dropped by priority; if that is not enough, words are broken, numbers never.
    """

    def __init__(self, columns: Sequence[LayoutColumn], rows: Sequence[Mapping[str, Any]], width: int | None) -> None:
        self.all_columns = list(columns)
        self.rows = [{c.title: _cell_text(row.get(c.title)) for c in columns} for row in rows]
        self.columns = self._readable_columns() if width is None else self._fitting_columns(width)
        self.widths = self._fitted_widths(DEFAULT_WIDTH if width is None else width, break_words=width is not None)

    @property
    def width(self) -> int:
        """Total width in characters."""
        return sum(self.widths) + COLUMN_GAP * (len(self.widths) - 1)

    def lines_below(self) -> list[str]:
        """Cells of dropped `listed_below` columns, each prefixed with its row's name."""
        if not self.columns:
            return []
        titles = [column.title for column in self.columns]
        name_column = ROW_NAME_COLUMN if ROW_NAME_COLUMN in titles else titles[0]
        prefix = name_column if name_column == "#" else f"{name_column} "
        hidden_titles = [
            column.title for column in self.all_columns if column.listed_below and column not in self.columns
        ]
        return list(
            dict.fromkeys(
                f"{prefix}{row[name_column]}: {row[title]}"
                for title in hidden_titles
                for row in self.rows
                if row[title]
            )
        )

    def _readable_columns(self) -> list[LayoutColumn]:
        """All columns; those that may be listed below only if the table then fits DEFAULT_WIDTH."""
        fits = self._required_width(self.all_columns) <= DEFAULT_WIDTH
        return [column for column in self.all_columns if fits or not column.listed_below]

    def _fitting_columns(self, width: int) -> list[LayoutColumn]:
        """Columns that fit: drop by priority, then add back those that fit the remaining room."""
        fitting = list(self.all_columns)
        while self._required_width(fitting) > width and any(column.drop_priority for column in fitting):
            fitting.remove(max(reversed(fitting), key=lambda column: column.drop_priority))
        for column in sorted(self.all_columns, key=lambda column: column.drop_priority):
            extended = [other for other in self.all_columns if other in fitting or other is column]
            if self._required_width(extended) <= width:
                fitting = extended
        return fitting

    def _required_width(self, columns: Sequence[LayoutColumn]) -> int:
        """Width at which numbers are whole and text is legible."""
        widths = (self._legible_width(column) for column in columns)
        return sum(widths) + COLUMN_GAP * max(0, len(columns) - 1)

    def _legible_width(self, column: LayoutColumn) -> int:
        min_width = self._min_width(column)
        if column.listed_below:
            return self._max_width(column)
        return (
            min_width
            if column.numeric
            else max(min_width, min(max(map(_display_width, ["", *self._cells(column)])), LEGIBLE_WIDTH))
        )

    def _cells(self, column: LayoutColumn) -> list[str]:
        return [row[column.title] for row in self.rows]

    def _min_width(self, column: LayoutColumn) -> int:
        """Width at which no number and no word up to MAX_WORD_WIDTH is broken."""
        words = _breakable_parts(column.title)
        if not column.numeric:
            words += [word[:MAX_WORD_WIDTH] for cell in self._cells(column) for word in cell.split()]
            return max(map(_display_width, ["-", *words]))
        return max(map(_display_width, ["-", *words, *self._cells(column)]))

    def _max_width(self, column: LayoutColumn) -> int:
        lines = [line for cell in self._cells(column) for line in cell.splitlines()]
        return max(map(_display_width, ["-", column.title, *lines]))

    def _fitted_widths(self, max_width: int, *, break_words: bool) -> list[int]:
        """Width of each column: shrink numeric titles first, then text at words, then with `break_words` anywhere."""
        widths = [self._max_width(column) for column in self.columns]
        numeric_columns = [index for index, column in enumerate(self.columns) if column.numeric]
        text_columns = [index for index, column in enumerate(self.columns) if not column.numeric]
        min_widths = [self._min_width(column) for column in self.columns]
        broken_widths = [min(width, MIN_TEXT_WIDTH) for width in min_widths]
        for indices, limits in (
            (numeric_columns, min_widths),
            (text_columns, min_widths),
            (text_columns if break_words else [], broken_widths),
        ):
            self._shrink(widths, indices, limits, max_width)
        return widths

    def _shrink(self, widths: list[int], indices: Sequence[int], limits: Sequence[int], max_width: int) -> None:
        """Narrow the widest columns first, until the table fits or all are at their limits."""
        for _ in range(max(0, sum(widths) + COLUMN_GAP * (len(widths) - 1) - max_width)):
            shrinkable = [index for index in indices if widths[index] > limits[index]]
            if not shrinkable:
                return
            widths[max(shrinkable, key=lambda index: widths[index])] -= 1

    def rich_table(self, bold_row: int | None) -> Any:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(
            width=self.width,
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, COLUMN_GAP - 1, 0, 0),
        )
        for column, width in zip(self.columns, self.widths, strict=True):
            table.add_column(
                Text("\n".join(textwrap.wrap(for_terminal(column.title), width))),
                justify="right" if column.numeric else "left",
                width=width,
                vertical="top",
                overflow="fold",
            )
        for index, row in enumerate(self.rows):
            cells = [_styled_cell(column.title, row[column.title]) for column in self.columns]
            table.add_row(*cells, style="bold" if index == bold_row else None)
        return table


def _cell_text(value: Any) -> str:
    return "" if value is None else for_terminal(redact(str(value)))


def _breakable_parts(title: str) -> list[str]:
    """Words of a title, split further after hyphens."""
    return [part for word in title.split() for part in re.split(r"(?<=\w-)(?=\w)", word)]


def _display_width(text: str) -> int:
    """Terminal cells of a text; wide characters take two."""
    from rich.cells import cell_len

    return cell_len(text)


def _styled_cell(title: str, text: str) -> Any:
    from rich.text import Text

    style = VERDICT_STYLES.get(text.split(" ")[0], FAILURE_STYLE) if title in VERDICT_COLUMNS and text else ""
    return Text(text, style=style)
