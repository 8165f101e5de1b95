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

if TYPE_CHECKING:
    from rich.console import Console

    from autotuner.errors import AutotuneError

PLAIN_WIDTH = 200
"""Columns when output is not a terminal, so that tables in a pipe or a CI log are not cut."""


@cache
def out() -> Console:
    """Where results go."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


@cache
def err() -> Console:
    """Where progress, notes and errors go."""
    from rich.console import Console

    return Console(stderr=True, width=None if sys.stderr.isatty() else PLAIN_WIDTH, highlight=False)


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
    width = min(100, err().width)
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
) -> None:
    """A table of rows; `right` columns are right-aligned, row `emphasise` is bold."""
    made = make_table(rows, columns, title=title, right=right, emphasise=emphasise)
    if out().is_terminal:
        out().print(made)
        return
    with out().capture() as captured:
        out().print(made)
    text("\n".join(line.rstrip() for line in captured.get().splitlines()))


def make_table(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    title: str = "",
    right: Sequence[str] = (),
    emphasise: int | None = None,
) -> Any:
    """The rich table that `table` prints."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for position, row in enumerate(rows):
        cells = [Text("" if row.get(column) is None else str(row[column])) for column in columns]
        made.add_row(*cells, style="bold" if position == emphasise else None)
    return made


def discard_output() -> None:
    """Let the interpreter exit quietly after the reader of stdout has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
