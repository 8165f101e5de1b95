"""Pools the metrics of each candidate's load points over all of its launches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from autotuner.core import Distribution, GpuUse, LoadPoint, LoadPointResult, Metrics, Purpose, Trial
from autotuner.experiment import Slo
from autotuner.scoring.pool import CandidateLaunches, PooledLoadPoint, pool_results

_RATES = ("output_throughput", "throughput", "request_throughput", "goodput", "token_goodput")
_DISTRIBUTIONS = ("ttft", "ttfo", "tpot", "itl", "chunk_gap", "e2e", "ttft_from_schedule", "e2e_from_schedule")

_STATISTICS = ("mean", "sd", "p25", "p50", "p75", "p90", "p95", "p99")


@dataclass(frozen=True)
class PooledCandidate:
    """A candidate's first trial with pooled load points, and the numbers of launches behind those of more than one."""

    trial: Trial
    launch_counts: Mapping[LoadPoint, int] = field(default_factory=dict)


def pool_launches(launches: CandidateLaunches, slo: Slo) -> PooledCandidate:
    """The candidate's launches as one trial, with one pooled result per load point.

    A metric is the unweighted mean over the launches in steady state, `requests` their sum. A candidate
    whose launches all failed keeps the metrics of its first one.
    """
    purpose: Purpose = "baseline" if launches.primary_trial.purpose == "baseline" else "search"
    first = launches.primary_trial
    first = first if first.purpose == purpose else replace(first, purpose=purpose)
    has_one_result_each = len(launches.trials) == 1 and len(first.measurement.latest_results) == len(first.results)
    if has_one_result_each or all(trial.failed for trial in launches.trials):
        return PooledCandidate(first)
    points = [pool_results(launches.results_at(point), slo) for point in launches.load_points]
    results = tuple(map(pooled_result, points))
    measurement = replace(first.measurement, load_points=results, failure=None)
    return PooledCandidate(replace(first, measurement=measurement), {p.load_point: p.launch_count for p in points})


def pooled_result(point: PooledLoadPoint) -> LoadPointResult:
    """One result for a load point, with metrics and verdict pooled over all launches."""
    if point.launch_count == 1:
        return replace(point.result, verdict=point.verdict)
    metrics = replace(_mean_metrics([result.metrics for result in point.results]), attainment=point.attainment)
    use = _mean_gpu_use([result.gpu_use for result in point.results])
    return replace(point.result, metrics=metrics, verdict=point.verdict, gpu_use=use)


def _mean_metrics(metrics: Sequence[Metrics]) -> Metrics:
    """The metrics of one load point averaged over launches, one element each; counts are summed."""
    means: dict[str, Any] = {name: fmean(getattr(launch, name) for launch in metrics) for name in _RATES}
    means |= {name: _mean_distribution([getattr(launch, name) for launch in metrics]) for name in _DISTRIBUTIONS}
    tpot: Distribution | None = means["tpot"]
    return replace(
        metrics[-1],
        **means,
        requests=sum(launch.requests for launch in metrics),
        interactivity=1 / tpot.mean if tpot and tpot.mean > 0 else None,
        errors=dict(sum((Counter(launch.errors) for launch in metrics), Counter())),
        intervals=_mean_intervals([launch.intervals for launch in metrics]),
        without_tpot=sum(launch.without_tpot for launch in metrics),
        token_counts=dict(sum((Counter(launch.token_counts) for launch in metrics), Counter())),
    )


def _mean_distribution(distributions: Sequence[Distribution | None]) -> Distribution | None:
    """Means over launches of every statistic and of both interval ends: pooling does not narrow the interval."""
    present = [launch for launch in distributions if launch is not None]
    if len(present) < 2:
        return present[0] if present else None
    statistics: dict[str, Any] = {name: fmean(getattr(launch, name) for launch in present) for name in _STATISTICS}
    return replace(
        present[0],
        **statistics,
        adjusted_intervals={},
        n=sum(launch.n for launch in present),
        min=min(launch.min for launch in present),
        max=max(launch.max for launch in present),
        intervals=_mean_intervals([launch.intervals for launch in present]),
        adjusted={
            name: _mean_or_none([launch.adjusted.get(name) for launch in present]) for name in present[0].adjusted
        },
    )


def _mean_intervals(intervals: Sequence[Mapping[str, tuple[float, Any]]]) -> dict[str, tuple[float, Any]]:
    """Means over launches of both ends of each interval that all launches have."""
    names = [name for name in intervals[0] if all(name in launch for launch in intervals)]
    return {
        name: (fmean(launch[name][0] for launch in intervals), _mean_or_none([launch[name][1] for launch in intervals]))
        for name in names
    }


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    """The mean, or None (unbounded) if any value is None."""
    present = [value for value in values if value is not None]
    return fmean(present) if len(present) == len(values) else None


def _mean_gpu_use(gpu_uses: Sequence[GpuUse | None]) -> GpuUse | None:
    """GPU use averaged over launches; None if any launch was not metered."""
    present = [launch for launch in gpu_uses if launch is not None]
    if len(present) < len(gpu_uses):
        return None
    shares = [launch.utilisation for launch in present]
    return replace(
        present[-1],
        samples=sum(launch.samples for launch in present),
        energy=fmean(launch.energy for launch in present),
        mean_watts=fmean(launch.mean_watts for launch in present),
        max_watts=max(launch.max_watts for launch in present),
        utilisation=_mean_or_none(shares),
        memory_used=max(launch.memory_used for launch in present),
    )
