"""Bayesian regression of measured over predicted times: how a model's own measurements correct its predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

PRIOR_SDS = {"ttft": (0.5, 0.2, 0.2, 0.15, 0.15), "tpot": (0.3, 0.1, 0.1, 0.1, 0.1)}
"""Deviations of the log ratio of one model on one engine and GPU type: of its level, and by load, prompt length,
output length and tp, each per `regressors` unit. From residuals of held-out families (benchmarks/predict/errors.py)."""
LAUNCH_SD = 0.08
"""Deviation that the points of one launch share."""
NOISE_SD = {"ttft": 0.15, "tpot": 0.1}
"""Deviation of a single load point."""


class MeasuredRatio(NamedTuple):
    """Logs of measured over predicted TTFT and TPOT at one load point of one launch.

    `position` are its `regressors`.
    """

    launch: str
    position: tuple[float, ...]
    ttft: float
    tpot: float


def regressors(concurrency: float, isl: float, osl: float, tp: int) -> tuple[float, ...]:
    """Constant, and logs to base 2 of load, lengths and tp, centred and divided by 3, 2, 2 and 2."""
    return (
        1.0,
        math.log2(max(1.0, concurrency) / 16) / 3,
        math.log2(isl / 2048) / 2,
        math.log2(osl / 1024) / 2,
        math.log2(tp / 4) / 2,
    )


@dataclass(frozen=True, slots=True)
class RatioPosterior:
    """Mean and covariance of the coefficients of one metric's log ratio after its measurements."""

    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    noise: float

    def at(self, position: Sequence[float]) -> tuple[float, float]:
        """Mean and standard deviation of the log ratio there, of a single measurement in a launch of its own."""
        mean = sum(a * b for a, b in zip(self.mean, position, strict=True))
        variance = sum(
            a * b * c
            for a, row in zip(position, self.covariance, strict=True)
            for b, c in zip(row, position, strict=True)
        )
        return mean, math.sqrt(max(0.0, variance) + LAUNCH_SD**2 + self.noise**2)


def posterior(ratios: Sequence[MeasuredRatio], metric: str) -> RatioPosterior:
    """The posterior of one metric; points of one launch are correlated, outliers count for less."""
    import numpy as np

    prior, noise_sd = np.diag(np.square(PRIOR_SDS[metric])), NOISE_SD[metric]
    if not ratios:
        return _as_posterior(np.zeros(len(prior)), prior, noise_sd)
    phi = np.array([ratio.position for ratio in ratios])
    values = np.array([getattr(ratio, metric) for ratio in ratios])
    launches = np.unique([ratio.launch for ratio in ratios], return_inverse=True)[1]
    weights = np.ones(len(ratios))
    for _ in range(3):
        precisions = 1 / (noise_sd**2 * weights)
        whitened = _inverse_covariance_product(np.column_stack((phi, values)), launches, precisions)
        covariance = np.linalg.inv(np.linalg.inv(prior) + phi.T @ whitened[:, :-1])
        mean = covariance @ phi.T @ whitened[:, -1]
        weights = np.maximum(1.0, np.abs(values - phi @ mean) / (2 * noise_sd))
    return _as_posterior(mean, covariance, noise_sd)


def _inverse_covariance_product(columns: np.ndarray, launches: np.ndarray, precisions: np.ndarray) -> np.ndarray:
    """The product of the inverse covariance of the points and `columns` (points x n).

    The covariance is 1 / `precisions` (points) on its diagonal, and LAUNCH_SD**2 more among the points of each launch,
    whose indexes are `launches` (points): one Sherman-Morrison step for each launch.
    """
    import numpy as np

    weighted = columns * precisions[:, None]
    sums = np.zeros((launches.max() + 1, columns.shape[1]))
    np.add.at(sums, launches, weighted)
    shrinkage = LAUNCH_SD**2 / (1 + LAUNCH_SD**2 * np.bincount(launches, precisions))
    product: np.ndarray = weighted - precisions[:, None] * (shrinkage[:, None] * sums)[launches]
    return product


def _as_posterior(mean: object, covariance: object, noise: float) -> RatioPosterior:
    import numpy as np

    means, rows = np.asarray(mean).tolist(), np.asarray(covariance).tolist()
    return RatioPosterior(tuple(means), tuple(tuple(row) for row in rows), noise)
