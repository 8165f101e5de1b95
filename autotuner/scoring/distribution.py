"""Pooled samples to a `Distribution`: percentiles by rank, and intervals that respect requests."""

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
    """One sample per request, in the order in which they were sent; `in_flight` of them at once.

    `errors` more requests count as infinitely slow in what is `adjusted`.
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
        at = ordered[percentile_rank(n, percent) - 1]
        share = batches.effective_sample_size((sent <= at).astype(np.float64)) / n
        low, high = dependent_interval_ranks(n, percent, n * share)
        intervals[f"p{percent}"] = (float(ordered[low - 1]) if low else 0.0, _order_statistic(ordered, high))
        adjusted[f"p{percent}"] = _order_statistic(ordered, percentile_rank(total, percent))
        if errors:
            low, high = dependent_interval_ranks(total, percent, total * share)
            adjusted_intervals[f"p{percent}"] = (
                _order_statistic(ordered, low) if low else 0.0,
                _order_statistic(ordered, high),
            )
    return _summarize(ordered, intervals, adjusted, adjusted_intervals)


def _order_statistic(ordered: Samples, rank: int | None) -> float | None:
    """The sample at a rank from 1; None beyond the last, where there is none or an error."""
    return None if rank is None or rank > len(ordered) else float(ordered[rank - 1])


def token_distribution(groups: Sequence[Samples]) -> Distribution | None:
    """Many samples per request, one array each.

    Samples of one request resemble each other, so the intervals treat the request as the unit:
    a cluster estimate for the mean, Woodruff's method for the percentiles.
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
        low, high = _t_interval(percent / 100, error, degrees)
        intervals[f"p{percent}"] = (
            float(ordered[math.floor(low * n + 1e-9) - 1]) if low * n >= 1 else 0.0,
            float(ordered[max(1, math.ceil(high * n - 1e-9)) - 1]) if high is not None and high <= 1 else None,
        )
    return _summarize(ordered, intervals, {})


def _summarize(
    ordered: Samples,
    intervals: dict[str, tuple[float, float | None]],
    adjusted: dict[str, float | None],
    adjusted_intervals: dict[str, tuple[float | None, float | None]] | None = None,
) -> Distribution:
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


def _t_interval(centre: float, error: float, degrees_of_freedom: int) -> tuple[float, float | None]:
    """centre +- t x error, cut at 0; one request alone bounds nothing."""
    if degrees_of_freedom < 1:
        return 0.0, None
    reach = t_quantile(degrees_of_freedom) * error
    return max(0.0, centre - reach), centre + reach


def _standard_deviation(samples: Samples) -> float:
    return float(samples.std(ddof=1)) if len(samples) > 1 else 0.0


def _cluster_standard_error(samples: Samples, starts: NDArray[np.intp], sizes: Samples) -> float:
    """Standard error of the pooled mean when each request is one draw."""
    requests = len(sizes)
    if requests < 2:
        return 0.0
    residuals = np.add.reduceat(samples, starts) - samples.mean() * sizes
    variance = requests / (requests - 1) * float(residuals @ residuals)
    return math.sqrt(variance) / len(samples)
