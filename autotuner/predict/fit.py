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

LEAST = 3
"""Load points below which nothing is fitted."""
NOISE, PRIOR = 0.1, 0.4
"""Standard deviations, as shares, of a measured time around the closed form and of a factor around one."""
STEPS = 20


@dataclass(frozen=True, slots=True)
class Point:
    """A measured load point of one launch: mean TTFT and TPOT in seconds, and the `parts` of its prediction.

    `key` is the engine and the GPU type; `parts` are as `own.parts` gives them.
    """

    key: str
    launch: str
    parts: tuple[float, float, float, float]
    ttft: float
    tpot: float


def fitted(points: Sequence[Point], source: Literal["measured", "simulated"], runs: tuple[str, ...]) -> Factors:
    """Fit prefill, decode and overhead of one engine on one GPU type.

    Errors after the fit are of points it has not seen: each launch is left out in turn, where
    there is one launch each of its load points. Raises UsageError for too few points.
    """
    if len(points) < LEAST:
        raise UsageError(
            f"{len(points)} load points of {points[0].key if points else 'these runs'} are too few to fit.",
            why=f"Three factors need at least {LEAST}.",
            remedy="Measure at more loads, for example with --concurrency 1,8,32.",
        )
    launches = sorted({point.launch for point in points})
    groups = [[point for point in points if point.launch == launch] for launch in launches]
    if len(groups) == 1:
        groups = [[point] for point in points]
    errors: list[tuple[float, float]] = []
    for group in groups:
        by = solve([point for point in points if point not in group])
        errors += [_error(point, by) for point in group]
    prefill, decode, overhead = solve(points)
    return Factors(
        prefill=prefill,
        decode=decode,
        overhead=overhead,
        points=len(points),
        launches=len(launches),
        before=_medians([_error(point, (1.0, 1.0, 1.0)) for point in points]),
        after=_medians(errors),
        source=source,
        fitted=f"{datetime.now(UTC):%Y-%m-%d}",
        runs=runs,
    )


def times(point: Point, by: tuple[float, float, float]) -> tuple[float, float]:
    """TTFT and TPOT in seconds as predicted with factors of prefill, decode and overhead."""
    overhead, prefill, decode, stalls = point.parts
    return overhead * by[2] + prefill * by[0], decode * by[1] + stalls * by[0]


def solve(points: Sequence[Point]) -> tuple[float, float, float]:
    """Factors of prefill, decode and overhead: least squares of log times, by Gauss and Newton."""
    import numpy as np

    logs = np.zeros(3)
    pull = np.eye(3) * (NOISE / PRIOR)
    for _ in range(STEPS):
        by = tuple(float(value) for value in np.exp(logs))
        residuals, slopes = list[float](), list[list[float]]()
        for point in points:
            overhead, prefill, decode, stalls = point.parts
            ttft, tpot = times(point, by)  # type: ignore[arg-type]
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


def _error(point: Point, by: tuple[float, float, float]) -> tuple[float, float]:
    ttft, tpot = times(point, by)
    return abs(ttft / point.ttft - 1), abs(tpot / point.tpot - 1)


def _medians(errors: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(error[0] for error in errors), statistics.median(error[1] for error in errors)
