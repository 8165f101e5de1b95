"""95% confidence intervals: order statistics for percentiles, Student's t for means, Wilson for shares."""

from __future__ import annotations

import math
from functools import lru_cache

from autotuner.core import Share

Z_95 = 1.959963984540054
TAIL_PROBABILITY = 0.025


def percentile_rank(n: int, percent: int) -> int:
    """The 1-based nearest rank of a percentile: at least `percent` % of the `n` samples do not exceed it."""
    return max(1, -(-n * percent // 100))


@lru_cache(maxsize=4096)
def percentile_interval_ranks(n: int, percent: int) -> tuple[int, int | None]:
    """Ranks of the order statistics that enclose a percentile with probability 95% or more, distribution-free.

    The number of samples below a percentile is binomial. Rank 0 stands for no lower limit, None
    for no upper limit: 20 samples give none for a p99.
    """
    import numpy as np
    from scipy import special

    counts, quantile = np.arange(n), percent / 100
    lower = int((special.bdtr(counts, n, quantile) <= TAIL_PROBABILITY).sum())
    upper = n - int((special.bdtrc(counts, n, quantile) <= TAIL_PROBABILITY).sum())
    return lower, None if upper >= n else upper + 1


def dependent_interval_ranks(n: int, percent: int, effective_sample_size: float) -> tuple[int, int | None]:
    """Interval ranks among `n` correlated samples: those of the effective sample size, scaled to `n`."""
    if effective_sample_size >= n:
        return percentile_interval_ranks(n, percent)
    size = max(1, int(effective_sample_size))
    lower, upper = percentile_interval_ranks(size, percent)
    return lower * n // size, None if upper is None else min(n, -(-upper * n // size))


@lru_cache(maxsize=4096)
def t_quantile(degrees_of_freedom: int) -> float:
    """The 0.975 quantile of Student's t, for at least 1 degree of freedom."""
    from scipy import special

    return float(special.stdtrit(degrees_of_freedom, 1 - TAIL_PROBABILITY))


def wilson_share(good_count: int, n: int, effective_sample_size: float | None = None) -> Share | None:
    """`good_count` of `n` with its Wilson score interval for the effective sample size, `n` by default; None of 0."""
    if n == 0:
        return None
    value, count = good_count / n, n if effective_sample_size is None else max(1.0, effective_sample_size)
    centre = value + Z_95 * Z_95 / (2 * count)
    margin = Z_95 * math.sqrt(value * (1 - value) / count + Z_95 * Z_95 / (4 * count * count))
    scale = 1 + Z_95 * Z_95 / count
    lower = 0.0 if good_count == 0 else (centre - margin) / scale
    upper = 1.0 if good_count == n else (centre + margin) / scale
    return Share(value, lower, upper, n, None if count == n else count)
