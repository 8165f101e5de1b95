"""Summary statistics of latencies: percentiles by rank, with intervals that account for correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autotuner.core import Distribution
from autotuner.scoring.batches import BatchMeans, Samples
from autotuner.scoring.intervals import dependent_interval_ranks, percentile_rank, t_quantile

PERCENTS = (25, 50, 75, 90, 95, 99)


def request_distribution(samples: Sequence[float], errors: int = 0, in_flight: float = 1.0) -> Distribution | None:
    """The distribution of one sample per request, in the order in which they were sent; None of none.

    Intervals come from batches of at least `in_flight` requests. `errors` further requests count as
    infinitely slow in the adjusted percentiles.
    """
    if not samples:
        return None
    sent = np.asarray(samples, dtype=np.float64)
    ordered, batches = np.sort(sent), BatchMeans(len(sent), in_flight)
    n, total = len(ordered), len(ordered) + errors
    intervals: dict[str, tuple[float, float | None]] = {"mean": batches.mean(sent).interval}
    adjusted: dict[str, float | None] = {}
    adjusted_intervals: dict[str, tuple[float | None, float | None]] = {}
    for percent in PERCENTS:
        value = ordered[percentile_rank(n, percent) - 1]
        share = batches.effective_sample_size((sent <= value).astype(np.float64)) / n
        lower, upper = dependent_interval_ranks(n, percent, n * share)
        intervals[f"p{percent}"] = (float(ordered[lower - 1]) if lower else 0.0, _order_statistic(ordered, upper))
        adjusted[f"p{percent}"] = _order_statistic(ordered, percentile_rank(total, percent))
        if errors:
            lower, upper = dependent_interval_ranks(total, percent, total * share)
            adjusted_intervals[f"p{percent}"] = (
                _order_statistic(ordered, lower) if lower else 0.0,
                _order_statistic(ordered, upper),
            )
    return _summarize(ordered, intervals, adjusted, adjusted_intervals)


def _order_statistic(ordered: Samples, rank: int | None) -> float | None:
    """The sample of a 1-based rank; None beyond the last, for no limit or an error."""
    return None if rank is None or rank > len(ordered) else float(ordered[rank - 1])


def token_distribution(groups: Sequence[Samples]) -> Distribution | None:
    """The distribution of many samples per request, one array each; None of none.

    Samples of one request are correlated, so the request is the sampling unit: cluster-robust intervals
    for the mean, Woodruff's (1952) method for the percentiles.
    """
    groups = [group for group in groups if len(group)]
    if not groups:
        return None
    pooled = np.concatenate(groups)
    starts = np.cumsum([0] + [len(group) for group in groups[:-1]])
    sizes = np.array([len(group) for group in groups], dtype=np.float64)
    degrees = len(groups) - 1
    ordered = np.sort(pooled)
    n = len(ordered)
    mean = float(pooled.mean())
    intervals = {"mean": _t_interval(mean, _cluster_standard_error(pooled, starts, sizes), degrees)}
    for percent in PERCENTS:
        value = ordered[percentile_rank(n, percent) - 1]
        error = _cluster_standard_error((pooled <= value).astype(np.float64), starts, sizes)
        lower, upper = _t_interval(percent / 100, error, degrees)
        intervals[f"p{percent}"] = (
            float(ordered[math.floor(lower * n + 1e-9) - 1]) if lower * n >= 1 else 0.0,
            float(ordered[max(1, math.ceil(upper * n - 1e-9)) - 1]) if upper is not None and upper <= 1 else None,
        )
    return _summarize(ordered, intervals, {})


def _summarize(
    ordered: Samples,
    intervals: dict[str, tuple[float, float | None]],
    adjusted: dict[str, float | None],
    adjusted_intervals: dict[str, tuple[float | None, float | None]] | None = None,
) -> Distribution:
    """The distribution of samples in ascending order, with 95% intervals by name of the statistic.

    `adjusted` and `adjusted_intervals` are of the percentiles with every error counted as infinitely slow.
    """
    n = len(ordered)
    p25, p50, p75, p90, p95, p99 = (float(ordered[percentile_rank(n, percent) - 1]) for percent in PERCENTS)
    return Distribution(
        n=n,
        mean=float(ordered.mean()),
        sd=_standard_deviation(ordered),
        min=float(ordered[0]),
        p25=p25,
        p50=p50,
        p75=p75,
        p90=p90,
        p95=p95,
        p99=p99,
        max=float(ordered[-1]),
        intervals=intervals,
        adjusted=adjusted,
        adjusted_intervals=adjusted_intervals or {},
    )


def _t_interval(mean: float, standard_error: float, degrees_of_freedom: int) -> tuple[float, float | None]:
    """mean +- t x standard error, cut at 0; no upper limit without a degree of freedom."""
    if degrees_of_freedom < 1:
        return 0.0, None
    half_width = t_quantile(degrees_of_freedom) * standard_error
    return max(0.0, mean - half_width), mean + half_width


def _standard_deviation(samples: Samples) -> float:
    return float(samples.std(ddof=1)) if len(samples) > 1 else 0.0


def _cluster_standard_error(samples: Samples, starts: NDArray[np.intp], sizes: Samples) -> float:
    """Cluster-robust standard error of the pooled mean, each request a cluster."""
    requests = len(sizes)
    if requests < 2:
        return 0.0
    residuals = np.add.reduceat(samples, starts) - samples.mean() * sizes
    variance = requests / (requests - 1) * float(residuals @ residuals)
    return math.sqrt(variance) / len(samples)
