"""What a candidate that was measured in part can still come to, against one that was measured whole."""

from __future__ import annotations

import math
from collections.abc import Sequence

SPREAD = 0.25
"""How much the log ratio of two candidates varies between load points, as its standard deviation."""

SURE = 2.0
"""Standard deviations to which hope reaches."""


def at_best(ratios: Sequence[float], left: int, spread: float = SPREAD) -> float:
    """The most that the mean of log ratios may come to, with `ratios` known and `left` still open."""
    if not ratios:
        return math.inf if left else 0.0
    mean = math.fsum(ratios) / len(ratios)
    if not left or not math.isfinite(mean):
        return mean
    open_ones = mean + SURE * spread * math.sqrt(1 + 1 / len(ratios))
    return (math.fsum(ratios) + left * open_ones) / (len(ratios) + left)
