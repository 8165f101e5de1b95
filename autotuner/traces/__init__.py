"""Recorded traces: the requests of a trace file, and when they came."""

from __future__ import annotations

from autotuner.traces.reader import read_trace
from autotuner.traces.recorded import RecordedTrace, TraceDescription, Turn
from autotuner.traces.time_units import TIME_UNITS, TimeUnit

__all__ = ["TIME_UNITS", "RecordedTrace", "TimeUnit", "TraceDescription", "Turn", "read_trace"]
