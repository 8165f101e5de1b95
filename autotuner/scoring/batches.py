"""Batch means: 95% intervals for requests that were served together.

Requests of one load point share batches and queues, so that neighbours are fast or slow together and
n of them say less than n independent ones. The unit is therefore a batch of consecutive requests, at
least as many as are in flight at once, and few enough batches that each outlasts what requests
remember of each other (Law and Carson 1979; Schmeiser 1982 finds 10 to 30 to be enough).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotuner.scoring.intervals import t_quantile

MAX_BATCHES = 20

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval; a `high` of None is unbounded, because one batch bounds nothing."""

    value: float
    lower: float
    upper: float | None

    def scaled(self, factor: float) -> Estimate:
        """The same in another unit."""
        return Estimate(self.value * factor, self.lower * factor, None if self.upper is None else self.upper * factor)

    @property
    def interval(self) -> tuple[float, float | None]:
        """(low, high)."""
        return self.lower, self.upper


class BatchMeans:
    """`requests` in the order in which they were sent, in batches of at least `in_flight` each."""

    def __init__(self, request_count: int, in_flight: float = 1.0) -> None:
        self.request_count = request_count
        self.batch_count = max(1, min(MAX_BATCHES, int(request_count / max(1.0, in_flight))))
        self.batch_starts = np.arange(self.batch_count) * request_count // self.batch_count

    def ratio(self, numerators: Sequence[float] | Samples, denominators: Sequence[float] | Samples) -> Estimate:
        """Sum over sum, each batch one draw of both; ValueError where the denominators sum to 0.

        The interval is Student's for a ratio estimator, with a degree of freedom for each batch but one.
        """
        above = np.asarray(numerators, dtype=np.float64)
        below = np.asarray(denominators, dtype=np.float64)
        total = float(below.sum())
        if not total:
            raise ValueError("a ratio to nothing")
        value = float(above.sum()) / total
        if self.batch_count < 2:
            return Estimate(value, 0.0, None)
        residuals = np.add.reduceat(above - value * below, self.batch_starts)
        variance = self.batch_count / (self.batch_count - 1) * float(residuals @ residuals) / total**2
        reach = t_quantile(self.batch_count - 1) * math.sqrt(variance)
        return Estimate(value, max(0.0, value - reach), value + reach)

    def mean(self, samples: Sequence[float] | Samples) -> Estimate:
        """The mean of one sample for each request."""
        return self.ratio(samples, np.ones(self.request_count))

    def effective_sample_size(self, samples: Samples) -> float:
        """How many independent requests these say as much as; at most all of them.

        It is their number over the variance ratio: that of batch means against that of means of
        independent samples.
        """
        spread = float(samples.var(ddof=1)) if self.request_count > 1 else 0.0
        if self.batch_count < 2 or spread <= 0:
            return float(self.request_count)
        sizes = np.diff(np.append(self.batch_starts, self.request_count))
        residuals = np.add.reduceat(samples - samples.mean(), self.batch_starts)
        between = self.batch_count / (self.batch_count - 1) * float(residuals @ residuals) / float(sizes.sum()) ** 2
        return self.request_count / max(1.0, between / (spread / self.request_count))
