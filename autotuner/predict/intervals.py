"""80% intervals of predictions, from quantiles of their held-out log residuals."""

from __future__ import annotations

import math
from typing import NamedTuple

from autotuner.predict.calibration import Calibration

ROUGH_FACTOR = 1.5
"""Chosen by hand: what layers of an unknown architecture may take more or less than the usual ones."""


class Interval(NamedTuple):
    """An 80% interval, in the unit of the prediction."""

    lower: float
    upper: float


def prediction_interval(
    calibration: Calibration, metric: str, value: float, *, known_levels: int, queued: bool, is_rough: bool = False
) -> Interval:
    """The 80% interval of a prediction.

    `known_levels` says whether the model (1) and its series (2) were measured, `queued` that requests wait for KV
    cache, where predictions of TTFT are worse; of a model whose layers were guessed (`is_rough`) the interval is
    ROUGH_FACTOR wider on either side.
    """
    quantiles = calibration.intervals[metric]
    key = "queued" if queued and metric == "ttft" else ("unknown", "unknown", "known")[known_levels]
    lower, upper = quantiles[key]
    widening = math.log(ROUGH_FACTOR) if is_rough else 0.0
    return Interval(value * math.exp(lower - widening), value * math.exp(upper + widening))
