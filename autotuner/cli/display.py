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

from autotuner.cli.table_layout import DEFAULT_WIDTH, ColumnSpec, LayoutColumn, TableLayout

if TYPE_CHECKING:
    from rich.console import Console

    from autotuner.errors import AutotuneError
    from autotuner.report.table import Table

MAX_TEXT_WIDTH = 100
"""Columns that running text takes at most."""

OMITTED_COLUMNS = "Left out at {width} columns: {titles}."


@cache
def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def stdout_console() -> Console:
    """Where results go."""
    return _with_width(_console(stderr=False))


def stderr_console() -> Console:
    """Where progress, notes and errors go."""
    return _with_width(_console(stderr=True))


def _with_width(console: Console) -> Console:
    if not console.is_terminal:
        console.width = _columns_variable() or DEFAULT_WIDTH
    return console


def _columns_variable() -> int | None:
    """The width that the environment asks for."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdigit() and int(columns) > 0 else None


def _width_limit(console: Console) -> int | None:
    """The width that output has to fit; None in a pipe, which has none."""
    return console.width if console.is_terminal or _columns_variable() else None


def error(exception: AutotuneError) -> None:
    """One paragraph: what happened, why, what to do."""
    _print_paragraph("Error", str(exception))


def warning(text: str) -> None:
    """A warning on stderr."""
    _print_paragraph("Warning", text)


def unexpected_error(exception: Exception) -> None:
    """A defect of autotune itself, in one paragraph."""
    where = traceback.extract_tb(exception.__traceback__)[-1]
    _print_paragraph(
        "Error",
        f"autotune failed on something it did not expect: {type(exception).__name__}: {exception} "
        f"({Path(where.filename).name}:{where.lineno}). What was measured before is kept in the run folder. "
        "Please report this with the output of the same command with `autotune --debug`.",
    )


def _print_paragraph(label: str, text: str) -> None:
    width = min(MAX_TEXT_WIDTH, stderr_console().width)
    sys.stderr.write(textwrap.fill(f"{label}: {text}", width, break_long_words=False, break_on_hyphens=False) + "\n")


def note(text: str) -> None:
    """A line on stderr."""
    stderr_console().print(text, markup=False, soft_wrap=True)


class _NoteHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def relay_log() -> None:
    """Show what the package logs, such as the progress of a pull, as notes."""
    log = logging.getLogger("autotuner")
    log.setLevel(logging.INFO)
    log.handlers = [_NoteHandler()]
    log.propagate = False


def line(text: str = "") -> None:
    """A line on stdout."""
    sys.stdout.write(text + "\n")


def sentence(text: str, indent: str = "") -> None:
    """Running text on stdout: one line in a pipe, wrapped at words elsewhere, its later lines behind `indent`."""
    sys.stdout.write(_wrap(text, stdout_console(), indent) + "\n")


def progress(text: str) -> None:
    """Running text on stderr, wrapped as a `sentence` is."""
    stderr_console().print(_wrap(text, stderr_console(), "    "), markup=False, soft_wrap=True)


def _wrap(text: str, console: Console, indent: str) -> str:
    width = _width_limit(console)
    if width is None:
        return text
    return textwrap.fill(
        text,
        min(MAX_TEXT_WIDTH, width),
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
    numeric: Sequence[str] = (),
    bold_row: int | None = None,
    priorities: Mapping[str, int] | None = None,
) -> None:
    """A table of rows; `right` columns are right-aligned, row `emphasise` is bold.

    Where there is no room for all columns, those of the highest of `priorities` are left out first,
    those of 0 or of none never.
    """
    shown = [ColumnSpec(name, name in numeric, (priorities or {}).get(name, 0)) for name in columns]
    grid = TableLayout(shown, list(rows), _width_limit(stdout_console()))
    _print_table(grid, title, bold_row)
    _print_omitted_columns(grid)


def report_table(contents: Table, title: str = "", already_printed: Sequence[str] = ()) -> list[str]:
    """A table of a report: at the width there is, with its legends, what was left out, and its notes.

    Gives the lines that name what had no room in it; those that are `known` are not repeated.
    """
    grid = TableLayout(list(contents.columns), contents.cell_texts(), _width_limit(stdout_console()))
    _print_table(grid, title, contents.winner_row)
    below = grid.lines_below()
    for text in below:
        if text not in already_printed:
            sentence(text, indent="    ")
    for text in contents.shared_settings:
        sentence(text, indent="    ")
    shown = [column.title for column in grid.columns]
    for text in contents.legends(shown):
        sentence(text)
    _print_omitted_columns(grid)
    for text in contents.notes:
        sentence(text)
    return below


def _print_omitted_columns(layout: TableLayout) -> None:
    titles = [column.title for column in layout.all_columns if column not in layout.columns and not column.listed_below]
    if titles:
        sentence(OMITTED_COLUMNS.format(width=stdout_console().width, titles=", ".join(titles)))


def _print_table(layout: TableLayout, title: str, bold_row: int | None) -> None:
    """Print a table; one that cannot be made to fit is not cut either."""
    from rich.text import Text

    console = stdout_console()
    if title:
        console.print(Text(_wrap(title, console, ""), style="bold"), soft_wrap=True)
    made = layout.rich_table(bold_row)
    if console.is_terminal:
        console.print(made, crop=False, no_wrap=True, overflow="ignore")
        return
    with console.capture() as captured:
        console.print(made, crop=False, no_wrap=True, overflow="ignore")
    text("\n".join(line.rstrip() for line in captured.get().splitlines()))


def make_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[LayoutColumn],
    *,
    width: int,
    bold_row: int | None = None,
) -> Any:
    """A rich table of `width` characters at most, for a view that draws it itself."""
    return TableLayout(columns, rows, width).rich_table(bold_row)


def discard_output() -> None:
    """Let the interpreter exit quietly after the reader of stdout has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
