"""Batch means: 95% confidence intervals for autocorrelated requests.

Requests of one load point share batches and queues, so that their latencies are correlated and the effective
sample size is below n. The unit is therefore a batch of consecutive requests, at least as many as are in
flight at once, and few enough batches that each outlasts the autocorrelation (Law and Carson 1979;
Schmeiser 1982 finds 10 to 30 batches to be enough).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotuner.scoring.intervals import t_quantile

MAX_BATCHES = 20
"""In the middle of the 10 to 30 batches of Schmeiser (1982)."""

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its 95% interval; `upper` is None where a single batch gives no upper limit."""

    value: float
    lower: float
    upper: float | None

    def scaled(self, factor: float) -> Estimate:
        """The estimate and its interval times `factor`."""
        return Estimate(self.value * factor, self.lower * factor, None if self.upper is None else self.upper * factor)

    @property
    def interval(self) -> tuple[float, float | None]:
        return self.lower, self.upper


class BatchMeans:
    """Estimates from requests in the order in which they were sent, in batches of at least `in_flight` each."""

    def __init__(self, request_count: int, in_flight: float = 1.0) -> None:
        self.request_count = request_count
        self.batch_count = max(1, min(MAX_BATCHES, int(request_count / max(1.0, in_flight))))
        self.batch_starts = np.arange(self.batch_count) * request_count // self.batch_count

    def ratio(self, numerators: Sequence[float] | Samples, denominators: Sequence[float] | Samples) -> Estimate:
        """The ratio estimator sum / sum over one value of each per request; ValueError if the denominators sum to 0.

        The interval is Student's t over batches, with batch_count - 1 degrees of freedom.
        """
        x = np.asarray(numerators, dtype=np.float64)
        y = np.asarray(denominators, dtype=np.float64)
        total = float(y.sum())
        if not total:
            raise ValueError("the denominators sum to 0")
        value = float(x.sum()) / total
        if self.batch_count < 2:
            return Estimate(value, 0.0, None)
        residuals = np.add.reduceat(x - value * y, self.batch_starts)
        variance = self.batch_count / (self.batch_count - 1) * float(residuals @ residuals) / total**2
        half_width = t_quantile(self.batch_count - 1) * math.sqrt(variance)
        return Estimate(value, max(0.0, value - half_width), value + half_width)

    def mean(self, samples: Sequence[float] | Samples) -> Estimate:
        """The mean of one sample per request."""
        return self.ratio(samples, np.ones(self.request_count))

    def effective_sample_size(self, samples: Samples) -> float:
        """The number of independent requests with the same variance of the mean, at most all of them.

        It is n over the variance ratio: the batch-means variance of the mean over s^2 / n.
        """
        sample_variance = float(samples.var(ddof=1)) if self.request_count > 1 else 0.0
        if self.batch_count < 2 or sample_variance <= 0:
            return float(self.request_count)
        sizes = np.diff(np.append(self.batch_starts, self.request_count))
        residuals = np.add.reduceat(samples - samples.mean(), self.batch_starts)
        variance = self.batch_count / (self.batch_count - 1) * float(residuals @ residuals) / float(sizes.sum()) ** 2
        return self.request_count / max(1.0, variance / (sample_variance / self.request_count))
