"""What a candidate that was measured in part can still come to, against one that was measured whole."""

from __future__ import annotations

import math
from collections.abc import Sequence

LOG_RATIO_SD = 0.25
"""How much the log ratio of two candidates varies between load points, as its standard deviation."""

OPTIMISM_Z = 2.0
"""Standard deviations to which hope reaches."""


def upper_mean_log_ratio(log_ratios: Sequence[float], open_count: int, sd: float = LOG_RATIO_SD) -> float:
    """The most that the mean of log ratios may come to, with `ratios` known and `left` still open."""
    if not log_ratios:
        return math.inf if open_count else 0.0
    mean = math.fsum(log_ratios) / len(log_ratios)
    if not open_count or not math.isfinite(mean):
        return mean
    open_ones = mean + OPTIMISM_Z * sd * math.sqrt(1 + 1 / len(log_ratios))
    return (math.fsum(log_ratios) + open_count * open_ones) / (len(log_ratios) + open_count)
