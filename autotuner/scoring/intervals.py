"""95% intervals: order statistics for percentiles, Student's t for means, Wilson for shares."""

from __future__ import annotations

import math
from functools import lru_cache

from autotuner.core import Share

Z_95 = 1.959963984540054
TAIL_PROBABILITY = 0.025
# t at 0.975 for 1 to 10 degrees of freedom; above, the expansion below is right to 4 digits.
_T_QUANTILES = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


def percentile_rank(n: int, percent: int) -> int:
    """The 1-based rank of the smallest of `n` samples that at least `percent` % of them do not exceed."""
    return max(1, -(-n * percent // 100))


@lru_cache(maxsize=4096)
def percentile_interval_ranks(n: int, percent: int) -> tuple[int, int | None]:
    """Ranks of the order statistics that hold a percentile with at least 95%, whatever the distribution.

    The number of samples below a percentile is binomial. Rank 0 stands for no lower bound, None
    for no upper bound: 20 samples cannot bound a p99.
    """
    share = percent / 100
    low, below = 0, 0.0
    while low < n and (below := below + _binomial_pmf(low, n, share)) <= TAIL_PROBABILITY:
        low += 1
    high, above = n, 0.0
    while high > 0 and (above := above + _binomial_pmf(high, n, share)) <= TAIL_PROBABILITY:
        high -= 1
    return low, None if high >= n else high + 1


def dependent_interval_ranks(n: int, percent: int, effective_sample_size: float) -> tuple[int, int | None]:
    """The same for `n` dependent samples that say as much as `effective` independent ones."""
    if effective_sample_size >= n:
        return percentile_interval_ranks(n, percent)
    fewer = max(1, int(effective_sample_size))
    low, high = percentile_interval_ranks(fewer, percent)
    return low * n // fewer, None if high is None else min(n, -(-high * n // fewer))


def _binomial_pmf(k: int, n: int, p: float) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))


def t_quantile(degrees_of_freedom: int) -> float:
    """The 0.975 quantile of Student's t; `degrees` is at least 1."""
    if degrees_of_freedom <= len(_T_QUANTILES):
        return _T_QUANTILES[degrees_of_freedom - 1]
    v = float(degrees_of_freedom)
    return (
        Z_95
        + (Z_95**3 + Z_95) / (4 * v)
        + (5 * Z_95**5 + 16 * Z_95**3 + 3 * Z_95) / (96 * v**2)
        + (3 * Z_95**7 + 19 * Z_95**5 + 17 * Z_95**3 - 15 * Z_95) / (384 * v**3)
    )


def wilson_share(good_count: int, n: int, effective_sample_size: float | None = None) -> Share | None:
    """`good` of `n` with the Wilson interval of `effective` independent requests, `n` by default; None of nothing."""
    if n == 0:
        return None
    value, count = good_count / n, n if effective_sample_size is None else max(1.0, effective_sample_size)
    centre = value + Z_95 * Z_95 / (2 * count)
    spread = Z_95 * math.sqrt(value * (1 - value) / count + Z_95 * Z_95 / (4 * count * count))
    scale = 1 + Z_95 * Z_95 / count
    low = 0.0 if good_count == 0 else (centre - spread) / scale
    high = 1.0 if good_count == n else (centre + spread) / scale
    return Share(value, low, high, n, None if count == n else count)
