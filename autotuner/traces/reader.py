"""Reads trace files: JSON lines, a JSON list or CSV, in one of the known formats."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from autotuner.errors import ConfigError, file_error_reason
from autotuner.input_files import read_text
from autotuner.traces.formats import (
    FORMATS,
    ConversationFormat,
    FieldError,
    RequestFormat,
    find_format,
    prefix_block_ids,
    time_value,
)
from autotuner.traces.recorded import MOONCAKE_BLOCK_TOKENS, RecordedTrace, Turn, block_length
from autotuner.traces.time_units import UNITS_PER_SECOND, TimeUnit, detect_time_unit

Row = Mapping[str, Any]
PlacedRow = tuple[str, Row]
"""Where a row is, such as `line 3`, and its fields."""

_ROWS_FOR_COLUMNS = 100
"""Optional columns may be missing from the first rows."""


def read_trace(path: str) -> RecordedTrace:
    """Read a trace file, whose format its columns tell; ConfigError names a bad line and its field.

    Rows without prompt or output tokens are skipped and counted.
    """
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:  # a path with a NUL character is a ValueError
        raise ConfigError(f"The trace '{path}' cannot be read.", why=file_error_reason(error)) from error
    return _read_version(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _read_version(path: str, modified: int, size: int) -> RecordedTrace:
    """Read this version of a file once: scenarios are parsed at many places."""
    try:
        text = read_text(Path(path), max_bytes=None)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The trace '{path}' cannot be read.", why=file_error_reason(error)) from error
    rows = list(_rows(path, text))
    if not rows:
        raise ConfigError(f"The trace '{path}' has no requests.")
    columns = {column for _, row in rows[:_ROWS_FOR_COLUMNS] for column in row}
    match find_format(columns):
        case RequestFormat() as request_format:
            return _read_requests(path, rows, request_format)
        case ConversationFormat() as conversation_format:
            return _read_conversations(path, rows, conversation_format)
    raise ConfigError(
        f"The trace '{path}' has no known format.",
        why=f"Its columns are {', '.join(sorted(columns)) or 'missing'}.",
        remedy=f"Known are {', '.join(dict.fromkeys(f.name for f in FORMATS))}; the simplest is JSON lines such as "
        '{"timestamp": 0.5, "input_length": 100, "output_length": 20}.',
    )


def _rows(path: str, text: str) -> Iterator[PlacedRow]:
    match text.lstrip()[:1]:
        case "":
            return iter(())
        case "[":
            return _json_list(path, text)
        case "{":
            return _json_lines(path, text)
    return _csv_rows(path, text)


def _json_lines(path: str, text: str) -> Iterator[PlacedRow]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _row_error(path, f"line {number}", f"It is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise _row_error(path, f"line {number}", "It is not a JSON object.")
        yield f"line {number}", row


def _json_list(path: str, text: str) -> Iterator[PlacedRow]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "a line"
        raise _row_error(path, line, f"It is not JSON: {error}.") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise _row_error(path, f"entry {number}", "It is not a JSON object.")
        yield f"entry {number}", row


def _csv_rows(path: str, text: str) -> Iterator[PlacedRow]:
    header = text.lstrip().split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(text.lstrip().splitlines(), delimiter=delimiter)
    try:
        columns = [column.strip() for column in next(reader)]
        for values in reader:
            if any(value.strip() for value in values):
                yield f"line {reader.line_num}", dict(zip(columns, values, strict=False))
    except csv.Error as error:
        raise _row_error(path, f"line {reader.line_num}", f"It is not CSV: {error}.") from error


def _read_requests(path: str, rows: list[PlacedRow], trace_format: RequestFormat) -> RecordedTrace:
    lengths: list[tuple[int, int]] = []
    times: list[float | datetime] = []
    block_ids: list[tuple[int, ...]] = []
    untimed_place: str | None = None
    has_times = any(trace_format.time in row for _, row in rows)
    for place, row in rows:
        try:
            row_lengths, time = trace_format.lengths(row), time_value(row, trace_format.time)
            if row_lengths is None:
                continue
            if times and time is not None and not _are_comparable(times[0], time):
                raise FieldError(trace_format.time, f"is another kind of time than above: {row[trace_format.time]!r}")
            block_ids.append(prefix_block_ids(row))
        except FieldError as error:
            raise _row_error(path, place, str(error)) from error
        lengths.append(row_lengths)
        if time is not None:
            times.append(time)
        elif has_times and untimed_place is None:
            untimed_place = place
    if not lengths:
        raise ConfigError(f"The trace '{path}' has no requests.", why="No row has prompt and output tokens.")
    timestamps, unit = _seconds_from_first(times, trace_format.time_unit) if len(times) == len(lengths) else ((), None)
    with_blocks = [(prompt, len(ids)) for (prompt, _), ids in zip(lengths, block_ids, strict=True) if ids]
    return RecordedTrace(
        path,
        tuple(lengths),
        timestamps,
        format=trace_format.name,
        time_unit=unit,
        untimed_place=untimed_place,
        skipped_rows=len(rows) - len(lengths),
        block_ids=tuple(block_ids) if with_blocks else (),
        block_tokens=block_length(*zip(*with_blocks, strict=True)) if with_blocks else MOONCAKE_BLOCK_TOKENS,
        estimated_lengths=trace_format.has_texts,
    )


def _read_conversations(path: str, rows: list[PlacedRow], trace_format: ConversationFormat) -> RecordedTrace:
    conversations: list[tuple[Turn, ...]] = []
    for place, row in rows:
        try:
            turns = trace_format.turns(row)
        except FieldError as error:
            raise _row_error(path, place, str(error)) from error
        if turns:
            conversations.append(turns)
    if not conversations:
        raise ConfigError(f"The trace '{path}' has no requests.", why="No conversation has a question and its answer.")
    lengths = [length for turns in conversations for length in _cumulative_lengths(turns)]
    return RecordedTrace(
        path,
        tuple(lengths),
        format=trace_format.name,
        skipped_rows=len(rows) - len(conversations),
        conversations=tuple(conversations) if len(lengths) > len(conversations) else (),
        estimated_lengths=True,
    )


def _cumulative_lengths(turns: tuple[Turn, ...]) -> Iterator[tuple[int, int]]:
    """The lengths of the requests of a conversation, each with all earlier turns before it."""
    earlier = accumulate((prompt + output for prompt, output in turns), initial=0)
    return ((history + prompt, output) for history, (prompt, output) in zip(earlier, turns, strict=False))


def _are_comparable(first: float | datetime, other: float | datetime) -> bool:
    if isinstance(first, datetime) and isinstance(other, datetime):
        return (first.tzinfo is None) == (other.tzinfo is None)
    return not isinstance(first, datetime) and not isinstance(other, datetime)


def _seconds_from_first(
    times: list[float | datetime], unit: TimeUnit | None
) -> tuple[tuple[float, ...], TimeUnit | Literal["date"]]:
    """The times in seconds since the first one, and what they were in."""
    dates = [time for time in times if isinstance(time, datetime)]
    if dates:
        return tuple((date - dates[0]).total_seconds() for date in dates), "date"
    numbers = [time for time in times if not isinstance(time, datetime)]
    unit = unit or detect_time_unit(numbers)
    return tuple((number - numbers[0]) / UNITS_PER_SECOND[unit] for number in numbers), unit


def _row_error(path: str, place: str, why: str) -> ConfigError:
    return ConfigError(
        f"{place.capitalize()} of the trace '{path}' is not a request.",
        why=why,
        remedy="Correct it, or take it out.",
    )
