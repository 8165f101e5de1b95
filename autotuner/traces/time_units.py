"""The unit of a trace's timestamps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

TimeUnit = Literal["s", "ms", "us", "ns"]

TIME_UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)
UNITS_PER_SECOND: dict[TimeUnit, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

_UNIX_TIME_THRESHOLDS: tuple[tuple[TimeUnit, float], ...] = (("ns", 1e17), ("us", 1e14), ("ms", 1e11))
"""Unix times since 1973 are above these, those in the next larger unit below."""

_GAP_THRESHOLDS: tuple[tuple[TimeUnit, float], ...] = (("ns", 2e7), ("us", 2e4), ("ms", 20.0))
"""Median gaps between requests: at least 20 ms, and in seconds less than 20."""


def detect_time_unit(times: Sequence[float]) -> TimeUnit:
    """The unit of timestamps by their size: Unix times by their magnitude, whole numbers by their median gap.

    Other timestamps that are written with a fraction are seconds.
    """
    for unit, threshold in _UNIX_TIME_THRESHOLDS:
        if abs(times[0]) >= threshold:
            return unit
    gaps = sorted(after - before for before, after in pairwise(times) if after > before)
    if gaps and all(isinstance(time, int) for time in times):
        median = gaps[(len(gaps) - 1) // 2]
        for unit, threshold in _GAP_THRESHOLDS:
            if median >= threshold:
                return unit
    return "s"
