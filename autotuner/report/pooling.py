"""Each candidate once: the figures of its load points over all of its launches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from autotuner.core import Distribution, GpuUse, LoadPoint, LoadPointResult, Metrics, Trial
from autotuner.experiment import Experiment
from autotuner.scoring.judge import judge
from autotuner.scoring.pool import CandidateLaunches, PooledLoadPoint, group_by_candidate, pool_results

_RATES = ("output_throughput", "throughput", "request_throughput", "goodput", "token_goodput")
_DISTRIBUTIONS = ("ttft", "ttfo", "tpot", "itl", "chunk_gap", "e2e", "ttft_from_schedule", "e2e_from_schedule")

_STATISTICS = ("mean", "sd", "p25", "p50", "p75", "p90", "p95", "p99")


@dataclass(frozen=True)
class PooledCandidate:
    """A candidate's first trial with pooled load points, and how many launches each of them rests on."""

    trial: Trial
    launch_counts: Mapping[LoadPoint, int] = field(default_factory=dict)


def pool_candidates(trials: Iterable[Trial], experiment: Experiment) -> list[PooledCandidate]:
    """All candidates in the order of their first launch.

    A figure is the mean over the launches whose figures are steady, each counting alike, `requests`
    the sum of theirs. A candidate of which every launch failed keeps what its first one measured.
    """
    return [
        _pooled_candidate(group, experiment)
        for group in group_by_candidate(judge(trial, experiment) for trial in trials)
    ]


def _pooled_candidate(group: CandidateLaunches, experiment: Experiment) -> PooledCandidate:
    first = replace(group.primary_trial, purpose="baseline" if group.primary_trial.purpose == "baseline" else "search")
    if all(trial.failed for trial in group.trials):
        return PooledCandidate(first)
    points = [pool_results(group.results_at(point), experiment.slo) for point in group.load_points]
    results = tuple(map(pooled_result, points))
    measurement = replace(first.measurement, load_points=results, failure=None)
    return PooledCandidate(replace(first, measurement=measurement), {p.load_point: p.launch_count for p in points})


def pooled_result(point: PooledLoadPoint) -> LoadPointResult:
    """A load point of one launch with the figures and the verdict of all launches."""
    if point.launch_count == 1:
        return replace(point.result, verdict=point.verdict)
    metrics = replace(_mean_metrics([result.metrics for result in point.results]), attainment=point.attainment)
    use = _mean_gpu_use([result.gpu_use for result in point.results])
    return replace(point.result, metrics=metrics, verdict=point.verdict, gpu_use=use)


def _mean_metrics(metrics: Sequence[Metrics]) -> Metrics:
    means: dict[str, Any] = {name: fmean(getattr(one, name) for one in metrics) for name in _RATES}
    means |= {name: _mean_distribution([getattr(one, name) for one in metrics]) for name in _DISTRIBUTIONS}
    tpot: Distribution | None = means["tpot"]
    return replace(
        metrics[-1],
        **means,
        requests=sum(one.requests for one in metrics),
        interactivity=1 / tpot.mean if tpot and tpot.mean > 0 else None,
        errors=dict(sum((Counter(one.errors) for one in metrics), Counter())),
        intervals=_mean_intervals([one.intervals for one in metrics]),
        without_tpot=sum(one.without_tpot for one in metrics),
    )


def _mean_distribution(distributions: Sequence[Distribution | None]) -> Distribution | None:
    """Launch means of every statistic and of the ends of its interval: launches differ, so it gets no narrower."""
    known = [one for one in distributions if one is not None]
    if len(known) < 2:
        return known[0] if known else None
    statistics: dict[str, Any] = {name: fmean(getattr(one, name) for one in known) for name in _STATISTICS}
    return replace(
        known[0],
        **statistics,
        adjusted_intervals={},
        n=sum(one.n for one in known),
        min=min(one.min for one in known),
        max=max(one.max for one in known),
        intervals=_mean_intervals([one.intervals for one in known]),
        adjusted={name: _mean_or_none([one.adjusted.get(name) for one in known]) for name in known[0].adjusted},
    )


def _mean_intervals(intervals: Sequence[Mapping[str, tuple[float, Any]]]) -> dict[str, tuple[float, Any]]:
    """The launch means of both ends of each interval that all launches have."""
    names = [name for name in intervals[0] if all(name in one for one in intervals)]
    return {
        name: (fmean(one[name][0] for one in intervals), _mean_or_none([one[name][1] for one in intervals]))
        for name in names
    }


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    """The mean; None, which is unbounded, where one of them is."""
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _mean_gpu_use(gpu_uses: Sequence[GpuUse | None]) -> GpuUse | None:
    """What the GPUs drew on average over launches; None where one of them was not metered."""
    known = [one for one in gpu_uses if one is not None]
    if len(known) < len(gpu_uses):
        return None
    shares = [one.utilisation for one in known]
    return replace(
        known[-1],
        samples=sum(one.samples for one in known),
        energy=fmean(one.energy for one in known),
        mean_watts=fmean(one.mean_watts for one in known),
        max_watts=max(one.max_watts for one in known),
        utilisation=_mean_or_none(shares),
        memory_used=max(one.memory_used for one in known),
    )
