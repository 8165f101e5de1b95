"""The points no other point beats, over any two or more axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autotuner.core import Distribution, LoadPoint, LoadPointResult, Metrics, Trial, Verdict
from autotuner.errors import UsageError, unknown_name_message
from autotuner.experiment import Experiment
from autotuner.scoring.objective import (
    Direction,
    MetricFunction,
    output_throughput_per_gpu,
    output_token_cost,
    output_token_cost_unit,
)

UNSTEADY_VERDICTS = (Verdict.INVALID, Verdict.CLIENT_LIMITED, Verdict.SATURATED)
"""Verdicts whose figures stand for no steady state, and so for no point to trade off."""


@dataclass(frozen=True)
class ParetoAxis:
    """One thing to trade off: a figure of a load point, its unit, and which way is better."""

    name: str
    label: str
    unit: str
    direction: Direction
    value: MetricFunction


def _mean(distribution: Distribution | None) -> float | None:
    return distribution.mean if distribution else None


def interactivity(metrics: Metrics, gpus: int = 1, price: float | None = None) -> float | None:
    """Tokens per second that one user sees."""
    return metrics.interactivity


AXES: Mapping[str, ParetoAxis] = {
    axis.name: axis
    for axis in (
        ParetoAxis("throughput", "Output throughput per GPU", "output tokens/s/GPU", "max", output_throughput_per_gpu),
        ParetoAxis("interactivity", "Interactivity", "tokens/s/user", "max", interactivity),
        ParetoAxis("ttft", "Mean time to first token", "s", "min", lambda m, gpus, price: _mean(m.ttft)),
        ParetoAxis("latency", "Mean E2E latency", "s", "min", lambda m, gpus, price: _mean(m.e2e)),
        ParetoAxis("cost", "Cost of output tokens", output_token_cost_unit(None), "min", output_token_cost),
    )
}


@dataclass(frozen=True)
class ParetoPoint:
    """One load point of one trial on the chosen axes.

    `trusted` where its figures stand for a steady state, `on_frontier` where it meets the targets
    and no other such point of the same scenario and source beats it.
    """

    trial: Trial
    result: LoadPointResult
    coordinates: tuple[float, ...]
    is_trusted: bool
    on_frontier: bool = False


def select_axes(names: Sequence[str]) -> tuple[ParetoAxis, ...]:
    """The named axes; UsageError for an unknown one or fewer than two."""
    for name in names:
        if name not in AXES:
            raise UsageError(unknown_name_message("axis", name, AXES))
    if len(names) < 2:
        raise UsageError("A Pareto frontier needs two axes or more.", remedy=f"Choose from {', '.join(AXES)}.")
    return tuple(AXES[name] for name in names)


def pareto_points(trials: Sequence[Trial], experiment: Experiment, chosen: Sequence[ParetoAxis]) -> list[ParetoPoint]:
    """Every load point that has a figure on each axis, once for each candidate.

    On the frontier are only those of trusted figures: no failed trial, no invalid or saturated load
    point; and where there are targets only those that are proven to meet them.
    """
    price = experiment.hardware.price_per_gpu_hour
    found = []
    for trial, result in _latest_results(trials):
        values = [axis.value(result.metrics, trial.candidate.gpus, price) for axis in chosen]
        at = tuple(value for value in values if value is not None)
        if len(at) == len(chosen):
            found.append(ParetoPoint(trial, result, at, _is_trusted(trial, result)))
    groups = _comparable_groups(found, targets=bool(experiment.slo.terms))
    members = {index for group in groups for index in _frontier_indices(found, group, chosen)}
    return [replace(point, on_frontier=index in members) for index, point in enumerate(found)]


def _is_trusted(trial: Trial, result: LoadPointResult) -> bool:
    return not trial.failed and result.verdict not in UNSTEADY_VERDICTS


def _latest_results(trials: Sequence[Trial]) -> list[tuple[Trial, LoadPointResult]]:
    """Every load point of every candidate, the last trusted one where it was driven again.

    Confirmations repeat what a candidate did before, and trade nothing off against it.
    """
    kept: dict[tuple[str, LoadPoint, str], tuple[Trial, LoadPointResult]] = {}
    for trial in trials:
        for result in trial.measurement.load_points if trial.purpose != "confirmation" else ():
            key = (trial.candidate.key, result.load_point, result.source)
            if key not in kept or _is_trusted(trial, result) or not _is_trusted(*kept[key]):
                kept[key] = (trial, result)
    return list(kept.values())


def _comparable_groups(found: Sequence[ParetoPoint], *, targets: bool) -> list[list[int]]:
    """Indices of the points to compare, apart by scenario and source: other prompts make other tokens/s."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, point in enumerate(found):
        if point.is_trusted and (point.result.verdict is Verdict.FEASIBLE or not targets):
            groups.setdefault((point.result.load_point.scenario, point.result.source), []).append(index)
    return list(groups.values())


def _frontier_indices(found: Sequence[ParetoPoint], group: Sequence[int], chosen: Sequence[ParetoAxis]) -> list[int]:
    members = frontier([found[index].coordinates for index in group], [axis.direction for axis in chosen])
    return [group[member] for member in members]


def frontier(points: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[int]:
    """Indices of the points that no other is at least as good as in all axes and better in one.

    Equal points are on the frontier together. The indices ascend.
    """
    signs = [1.0 if sense == "max" else -1.0 for sense in directions]
    better = [tuple(sign * value for sign, value in zip(signs, point, strict=True)) for point in points]
    members: list[int] = []
    # From the best on the first axis down, only an earlier point can dominate a later one.
    for index in sorted(range(len(better)), key=lambda i: better[i], reverse=True):
        if not any(_dominates(better[member], better[index]) for member in members):
            members.append(index)
    return sorted(members)


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
