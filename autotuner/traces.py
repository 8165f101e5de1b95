"""Recorded traces: the lengths and arrival times of a file of requests."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from autotuner.errors import ConfigError


@dataclass(frozen=True)
class RecordedTrace:
    """The (prompt tokens, output tokens) of each request of a trace file.

    `timestamps` are seconds since the first request, empty unless every row has one.
    """

    path: str
    request_lengths: tuple[tuple[int, int], ...]
    timestamps: tuple[float, ...] = ()

    @property
    def seconds(self) -> float:
        """Seconds from the first request to the last; ConfigError where the timestamps cannot be replayed."""
        times = self.timestamps
        if not times or times[-1] <= 0 or any(after < before for before, after in pairwise(times)):
            raise ConfigError(
                f"The trace '{self.path}' has no times that can be replayed.",
                why="Every row needs a timestamp, none may be before the one above it, and they must not all be equal.",
                remedy="Correct them, or drive its requests at a concurrency or with another arrival.",
            )
        return times[-1]

    @property
    def rate(self) -> float:
        """Mean arrival rate in 1/s; ConfigError where the timestamps cannot be replayed."""
        return (len(self.request_lengths) - 1) / self.seconds


def read_trace(path: str) -> RecordedTrace:
    """Read JSON lines with `input_length`, `output_length` and optionally `timestamp`; ConfigError names a bad line."""
    rows: list[tuple[int, int]] = []
    times: list[float] = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The trace '{path}' cannot be read.", why=f"{error}.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            lengths = int(row["input_length"]), int(row["output_length"])
            if min(lengths) < 1:
                raise ValueError("lengths must be at least 1")
            if "timestamp" in row:
                times.append(_parse_timestamp(row["timestamp"]))
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ConfigError(
                f"Line {number} of the trace '{path}' is not a request.",
                why=f"{type(error).__name__}: {error}.",
                remedy='Each line is JSON: {"timestamp": 0.5, "input_length": 100, "output_length": 20}.',
            ) from error
        rows.append(lengths)
    if not rows:
        raise ConfigError(f"The trace '{path}' has no requests.")
    return RecordedTrace(path, tuple(rows), tuple(time - times[0] for time in times) if len(times) == len(rows) else ())


def _parse_timestamp(value: object) -> float:
    time = float(value)  # type: ignore[arg-type]
    if not math.isfinite(time):
        raise ValueError("a timestamp must be a finite number")
    return time
