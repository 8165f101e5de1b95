"""Fit of the three local factors to measured load points, shrunk towards one, with held-out errors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from autotuner.errors import UsageError
from autotuner.predict.local_factors import Factors

MIN_POINTS = 3
"""As many load points as there are factors."""
NOISE_SD, PRIOR_SD = 0.1, 0.4
"""Standard deviations of log time around the prediction, and of a log factor around 0; chosen by hand."""
MAX_ITERATIONS = 20
"""Bound on Gauss-Newton steps, of which a fit takes a few; it ends at steps below 1e-9."""


@dataclass(frozen=True, slots=True)
class CalibrationPoint:
    """Measured mean TTFT and TPOT in seconds of a load point of one launch, and the `time_parts` of its prediction.

    `key` is the `factors_key` of its engine and GPU type.
    """

    key: str
    launch: str
    parts: tuple[float, float, float, float]
    ttft: float
    tpot: float


def fit_factors(
    points: Sequence[CalibrationPoint], source: Literal["measured", "simulated"], runs: tuple[str, ...]
) -> Factors:
    """Fit the factors of prefill, decode and overhead of one engine on one GPU type.

    Errors after the fit are cross-validated: each launch is held out in turn, or each load point
    where there is one launch. Raises UsageError for fewer than MIN_POINTS.
    """
    if len(points) < MIN_POINTS:
        raise UsageError(
            f"{len(points)} load points of {points[0].key if points else 'these runs'} are too few to fit.",
            why=f"Three factors need at least {MIN_POINTS}.",
            remedy="Measure at more loads, for example with --concurrency 1,8,32.",
        )
    launches = sorted({point.launch for point in points})
    folds = [[point for point in points if point.launch == launch] for launch in launches]
    if len(folds) == 1:
        folds = [[point] for point in points]
    errors: list[tuple[float, float]] = []
    for fold in folds:
        factors = least_squares_factors([point for point in points if point not in fold])
        errors += [_relative_errors(point, factors) for point in fold]
    prefill, decode, overhead = least_squares_factors(points)
    return Factors(
        prefill=prefill,
        decode=decode,
        overhead=overhead,
        points=len(points),
        launches=len(launches),
        before=_median_errors([_relative_errors(point, (1.0, 1.0, 1.0)) for point in points]),
        after=_median_errors(errors),
        source=source,
        fitted=f"{datetime.now(UTC):%Y-%m-%d}",
        runs=runs,
    )


def predicted_times(point: CalibrationPoint, factors: tuple[float, float, float]) -> tuple[float, float]:
    """Predicted TTFT and TPOT in seconds with `factors` of prefill, decode and overhead."""
    overhead, prefill, decode, stalls = point.parts
    return overhead * factors[2] + prefill * factors[0], decode * factors[1] + stalls * factors[0]


def least_squares_factors(points: Sequence[CalibrationPoint]) -> tuple[float, float, float]:
    """Factors of prefill, decode and overhead by penalised least squares of log times, with Gauss-Newton steps."""
    import numpy as np

    logs = np.zeros(3)
    penalty = np.eye(3) * (NOISE_SD / PRIOR_SD)
    for _ in range(MAX_ITERATIONS):
        factors = tuple(float(value) for value in np.exp(logs))
        residuals, jacobian = list[float](), list[list[float]]()
        for point in points:
            overhead, prefill, decode, stalls = point.parts
            ttft, tpot = predicted_times(point, factors)  # type: ignore[arg-type]
            residuals += [math.log(point.ttft / ttft), math.log(point.tpot / tpot)]
            jacobian.append([prefill * factors[0] / ttft, 0.0, overhead * factors[2] / ttft])
            jacobian.append([stalls * factors[0] / tpot, decode * factors[1] / tpot, 0.0])
        matrix = np.vstack([np.array(jacobian), penalty])
        right_side = np.concatenate([np.array(residuals), -penalty @ logs])
        step = np.linalg.lstsq(matrix, right_side, rcond=None)[0]
        logs = logs + np.clip(step, -1.0, 1.0)
        if float(np.abs(step).max()) < 1e-9:
            break
    prefill, decode, overhead = (float(value) for value in np.exp(logs))
    return prefill, decode, overhead


def _relative_errors(point: CalibrationPoint, factors: tuple[float, float, float]) -> tuple[float, float]:
    ttft, tpot = predicted_times(point, factors)
    return abs(ttft / point.ttft - 1), abs(tpot / point.tpot - 1)


def _median_errors(errors: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(error[0] for error in errors), statistics.median(error[1] for error in errors)
