"""The only module that prints: results on stdout, everything else on stderr."""

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
from autotuner.errors import mask_credentials
from autotuner.escaping import for_json, for_terminal
from autotuner.redaction import redact, redact_data

if TYPE_CHECKING:
    from rich.console import Console

    from autotuner.errors import AutotuneError
    from autotuner.report.table import Table

MAX_TEXT_WIDTH = 100
"""Maximum width of running text, in characters."""

OMITTED_COLUMNS = "Left out at {width} columns: {titles}."


@cache
def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class PipedConsole(Console):
        """Leaves a pipe whose reader is gone to the error boundary; by itself it would exit with 1, a verdict."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return PipedConsole(stderr=stderr, highlight=False)


def stdout_console() -> Console:
    """The console of results."""
    return _with_width(_console(stderr=False))


def stderr_console() -> Console:
    """The console of progress, notes and errors."""
    return _with_width(_console(stderr=True))


def _with_width(console: Console) -> Console:
    if not console.is_terminal:
        console.width = _columns_variable() or DEFAULT_WIDTH
    return console


def _columns_variable() -> int | None:
    """The width in the environment variable COLUMNS."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdigit() and int(columns) > 0 else None


def _width_limit(console: Console) -> int | None:
    """Maximum width of the output; None in a pipe without COLUMNS."""
    return console.width if console.is_terminal or _columns_variable() else None


def error(exception: AutotuneError) -> None:
    """Print an error on stderr: what happened, why, what to do."""
    _print_paragraph("Error", str(exception))


def warning(text: str) -> None:
    _print_paragraph("Warning", text)


def unexpected_error(exception: Exception) -> None:
    """Report a defect of autotune itself on stderr."""
    frame = traceback.extract_tb(exception.__traceback__)[-1]
    _print_paragraph(
        "Error",
        f"autotune failed on something it did not expect: {type(exception).__name__}: {exception} "
        f"({Path(frame.filename).name}:{frame.lineno}). What was measured before is kept in the run folder. "
        "Please report this with the output of the same command with `autotune --debug`.",
    )


def traceback_of(exception: Exception) -> None:
    """Print the traceback of an error on stderr, without the secrets that are known."""
    lines = "".join(traceback.format_exception(exception)).splitlines()
    sys.stderr.write("".join(f"{shown(line)}\n" for line in lines))


def shown(text: str) -> str:
    """Text as it may be printed: without the secrets that are known, and without control characters."""
    return for_terminal(redact(text))


def _print_paragraph(label: str, text: str) -> None:
    width = min(MAX_TEXT_WIDTH, stderr_console().width)
    paragraph = shown(f"{label}: {text}")
    sys.stderr.write(textwrap.fill(paragraph, width, break_long_words=False, break_on_hyphens=False) + "\n")


def note(text: str) -> None:
    """Print a line on stderr."""
    stderr_console().print(shown(text), markup=False, emoji=False, soft_wrap=True)


class _NoteHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.name.startswith("autotuner") and record.levelno >= logging.INFO else f"{record.name}: "
        progress(prefix + mask_credentials(record.getMessage()))


def relay_log() -> None:
    """Show the package's messages, such as the progress of an image pull, as notes; does not undo `show_log`."""
    _relay("autotuner", min(logging.getLogger("autotuner").level or logging.INFO, logging.INFO))


def show_log() -> None:
    """Show what is done: layers, commands, decisions of the search, requests to servers and to the Docker daemon."""
    _relay("autotuner", logging.DEBUG)
    _relay("httpx", logging.INFO)
    _relay("urllib3", logging.DEBUG)


def _relay(name: str, level: int) -> None:
    log = logging.getLogger(name)
    log.setLevel(level)
    log.handlers = [_NoteHandler()]
    log.propagate = False


def line(text: str = "") -> None:
    """Print a line on stdout."""
    sys.stdout.write(shown(text) + "\n")


def line_at_once(text: str) -> None:
    """Print a line on stdout that whoever reads it waits for, such as an address."""
    line(text)
    sys.stdout.flush()


def sentence(text: str, indent: str = "") -> None:
    """Print text on stdout: one line in a pipe, else wrapped at words, with continuation lines indented by `indent`."""
    sys.stdout.write(_wrap(shown(text), stdout_console(), indent) + "\n")


def progress(text: str) -> None:
    """Print a progress message on stderr, wrapped like `sentence`."""
    wrapped = _wrap(shown(text), stderr_console(), "    ")
    stderr_console().print(wrapped, markup=False, emoji=False, soft_wrap=True)


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
    """Print a block of text on stdout, unwrapped."""
    body = shown(body)
    _printed_results.append(True)
    sys.stdout.write(body if body.endswith("\n") else body + "\n")


def json_error(data: Mapping[str, Any]) -> None:
    """Print an error as JSON on stdout, unless a result is there already: one document is all that a reader expects."""
    if not _printed_results:
        json({"error": data})


def forget_results() -> None:
    """Begin a new command, of which no result has been printed."""
    _printed_results.clear()


_printed_results: list[bool] = []


def json(data: Any, *, compact: bool = False) -> None:
    """Print data as JSON on stdout."""
    _printed_results.append(True)
    sys.stdout.write(json_text(data, compact=compact))


def json_text(data: Any, *, compact: bool = False) -> str:
    """Data as JSON over several lines, or `compact` on one, without the secrets that are known."""
    layout: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 2}
    return for_json(json_module.dumps(redact_data(data), ensure_ascii=False, **layout)) + "\n"


def table(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    title: str = "",
    numeric: Sequence[str] = (),
    bold_row: int | None = None,
    priorities: Mapping[str, int] | None = None,
) -> None:
    """Print a table on stdout; `numeric` columns are right-aligned and never broken, row `bold_row` is bold.

    If the terminal is too narrow, columns with the highest of `priorities` are omitted first, those
    with 0 or without one never.
    """
    specs = [ColumnSpec(name, name in numeric, (priorities or {}).get(name, 0)) for name in columns]
    layout = TableLayout(specs, list(rows), _width_limit(stdout_console()))
    _print_table(layout, title, bold_row)
    _print_omitted_columns(layout)


def report_table(contents: Table, title: str = "", already_printed: Sequence[str] = ()) -> list[str]:
    """Print a report table with its legends, omitted columns and notes.

    Returns the lines that list cells below the table; those in `already_printed` are not printed again.
    """
    layout = TableLayout(list(contents.columns), contents.cell_texts(), _width_limit(stdout_console()))
    _print_table(layout, title, contents.winner_row)
    lines_below = layout.lines_below()
    for text in lines_below:
        if text not in already_printed:
            sentence(text, indent="    ")
    for text in contents.shared_settings:
        sentence(text, indent="    ")
    titles = [column.title for column in layout.columns]
    for text in contents.legends(titles):
        sentence(text)
    _print_omitted_columns(layout)
    for text in contents.notes:
        sentence(text)
    return lines_below


def _print_omitted_columns(layout: TableLayout) -> None:
    titles = [column.title for column in layout.all_columns if column not in layout.columns and not column.listed_below]
    if titles:
        sentence(OMITTED_COLUMNS.format(width=stdout_console().width, titles=", ".join(titles)))


def _print_table(layout: TableLayout, title: str, bold_row: int | None) -> None:
    """Print a table; one that is still too wide is not cut."""
    from rich.text import Text

    console = stdout_console()
    if title:
        console.print(Text(_wrap(shown(title), console, ""), style="bold"), soft_wrap=True)
    rich_table = layout.rich_table(bold_row)
    if console.is_terminal:
        console.print(rich_table, crop=False, no_wrap=True, overflow="ignore")
        return
    with console.capture() as captured:
        console.print(rich_table, crop=False, no_wrap=True, overflow="ignore")
    # the cells were escaped; what is here of control characters is rich's own
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().split("\n")[:-1]))


def make_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[LayoutColumn],
    *,
    width: int,
    bold_row: int | None = None,
) -> Any:
    """A rich table of at most `width` characters, for a live view."""
    return TableLayout(columns, rows, width).rich_table(bold_row)


def flush_output() -> None:
    """Write what is buffered of stdout; OSError if it cannot be written, as to a full disk."""
    sys.stdout.flush()


def is_output_error(error: OSError) -> bool:
    """Whether an error came from writing output: after it a stream may forget what it could not write."""
    return any(frame.filename == __file__ for frame in traceback.extract_tb(error.__traceback__))


def discard_output() -> None:
    """Let the interpreter exit quietly after the reader of stdout has closed the pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
