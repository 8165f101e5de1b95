"""Three factors fitted to measured load points, pulled towards one, and what they are worth on unseen points."""

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
"""Load points below which nothing is fitted."""
NOISE_SD, PRIOR_SD = 0.1, 0.4
"""Standard deviations, as shares, of a measured time around the closed form and of a factor around one."""
MAX_ITERATIONS = 20


@dataclass(frozen=True, slots=True)
class CalibrationPoint:
    """A measured load point of one launch: mean TTFT and TPOT in seconds, and the `parts` of its prediction.

    `key` is the engine and the GPU type; `parts` are as `own.parts` gives them.
    """

    key: str
    launch: str
    parts: tuple[float, float, float, float]
    ttft: float
    tpot: float


def fit_factors(
    points: Sequence[CalibrationPoint], source: Literal["measured", "simulated"], runs: tuple[str, ...]
) -> Factors:
    """Fit prefill, decode and overhead of one engine on one GPU type.

    Errors after the fit are of points it has not seen: each launch is left out in turn, where
    there is one launch each of its load points. Raises UsageError for too few points.
    """
    if len(points) < MIN_POINTS:
        raise UsageError(
            f"{len(points)} load points of {points[0].key if points else 'these runs'} are too few to fit.",
            why=f"Three factors need at least {MIN_POINTS}.",
            remedy="Measure at more loads, for example with --concurrency 1,8,32.",
        )
    launches = sorted({point.launch for point in points})
    groups = [[point for point in points if point.launch == launch] for launch in launches]
    if len(groups) == 1:
        groups = [[point] for point in points]
    errors: list[tuple[float, float]] = []
    for group in groups:
        by = least_squares_factors([point for point in points if point not in group])
        errors += [_relative_errors(point, by) for point in group]
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
    """TTFT and TPOT in seconds as predicted with factors of prefill, decode and overhead."""
    overhead, prefill, decode, stalls = point.parts
    return overhead * factors[2] + prefill * factors[0], decode * factors[1] + stalls * factors[0]


def least_squares_factors(points: Sequence[CalibrationPoint]) -> tuple[float, float, float]:
    """Factors of prefill, decode and overhead: least squares of log times, by Gauss and Newton."""
    import numpy as np

    logs = np.zeros(3)
    pull = np.eye(3) * (NOISE_SD / PRIOR_SD)
    for _ in range(MAX_ITERATIONS):
        by = tuple(float(value) for value in np.exp(logs))
        residuals, slopes = list[float](), list[list[float]]()
        for point in points:
            overhead, prefill, decode, stalls = point.parts
            ttft, tpot = predicted_times(point, by)  # type: ignore[arg-type]
            residuals += [math.log(point.ttft / ttft), math.log(point.tpot / tpot)]
            slopes.append([prefill * by[0] / ttft, 0.0, overhead * by[2] / ttft])
            slopes.append([stalls * by[0] / tpot, decode * by[1] / tpot, 0.0])
        matrix = np.vstack([np.array(slopes), pull])
        wanted = np.concatenate([np.array(residuals), -pull @ logs])
        step = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
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
