"""80% intervals of predictions, from quantiles of their held-out log residuals."""

from __future__ import annotations

import math
from typing import NamedTuple

from autotuner.predict.calibration import Calibration


class Interval(NamedTuple):
    """An 80% interval, in the unit of the prediction."""

    lower: float
    upper: float


def prediction_interval(
    calibration: Calibration, metric: str, value: float, *, known_levels: int, queued: bool
) -> Interval:
    """The 80% interval of a prediction.

    `known_levels` says whether the model (1), its series (2) and its layout (3) were measured,
    `queued` that requests wait for KV cache, where predictions of TTFT are worse.
    """
    quantiles = calibration.intervals[metric]
    key = "queued" if queued and metric == "ttft" else ("unknown", "unknown", "model", "known")[known_levels]
    lower, upper = quantiles[key]
    return Interval(value * math.exp(lower), value * math.exp(upper))
