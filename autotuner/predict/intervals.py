"""How far predictions were from measurements they had not seen, as 80% intervals."""

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
    """The interval of a prediction.

    `known` says whether the model (1), its series (2) and its layout (3) were measured, `queued`
    whether requests wait for KV cache, where predictions are worse.
    """
    rows = calibration.intervals[metric]
    row = rows["queued" if queued and metric == "ttft" else ("unknown", "unknown", "model", "known")[known_levels]]
    return Interval(value * math.exp(row[0]), value * math.exp(row[1]))
