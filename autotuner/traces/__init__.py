"""Recorded traces: the requests of a trace file, and when they came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autotuner.traces.recorded import RecordedTrace, TraceDescription, Turn
from autotuner.traces.time_units import TIME_UNITS, TimeUnit

if TYPE_CHECKING:
    from autotuner.traces.reader import read_trace

__all__ = ["TIME_UNITS", "RecordedTrace", "TimeUnit", "TraceDescription", "Turn", "read_trace"]


def __getattr__(name: str) -> Any:
    """Import the reader on first use: most load points replay no trace."""
    if name != "read_trace":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from autotuner.traces.reader import read_trace

    return read_trace
