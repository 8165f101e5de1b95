"""The Pareto frontier of load points over two or more metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from autotuner.core import Distribution, LoadPoint, LoadPointResult, Metrics, Trial, Verdict
from autotuner.errors import UsageError, unknown_name_message
from autotuner.experiment import Experiment
from autotuner.scoring.objective import COST, Direction, output_throughput_per_gpu

UNSTEADY_VERDICTS = (Verdict.INVALID, Verdict.CLIENT_LIMITED, Verdict.SATURATED)
"""Verdicts without a valid steady state, which are left out of the frontier."""


@dataclass(frozen=True)
class ParetoAxis:
    """One axis of a frontier: a metric of a load point, its unit, and which direction is better."""

    name: str
    label: str
    unit: str
    direction: Direction
    value: Callable[[Metrics, int, float | None], float | None]


def _mean(distribution: Distribution | None) -> float | None:
    return distribution.mean if distribution else None


def interactivity(metrics: Metrics, gpus: int = 1, price: float | None = None) -> float | None:
    """Per-user speed in tokens per second."""
    return metrics.interactivity


AXES: Mapping[str, ParetoAxis] = {
    axis.name: axis
    for axis in (
        ParetoAxis("throughput", "Output throughput per GPU", "output tokens/s/GPU", "max", output_throughput_per_gpu),
        ParetoAxis("interactivity", "Interactivity", "tokens/s/user", "max", interactivity),
        ParetoAxis("ttft", "Mean time to first token", "s", "min", lambda m, gpus, price: _mean(m.ttft)),
        ParetoAxis("latency", "Mean E2E latency", "s", "min", lambda m, gpus, price: _mean(m.e2e)),
        ParetoAxis("cost", "Cost of output tokens", COST.unit(), "min", COST.value),
    )
}


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """One load point of one trial, with its coordinates on the selected axes.

    `is_trusted` where its metrics are of a valid steady state, `on_frontier` where it meets the targets
    and no other such point of the same scenario and source dominates it.
    """

    trial: Trial
    result: LoadPointResult
    coordinates: tuple[float, ...]
    is_trusted: bool
    on_frontier: bool = False


def select_axes(names: Sequence[str]) -> tuple[ParetoAxis, ...]:
    """The axes of these names; UsageError for an unknown one or fewer than two."""
    for name in names:
        if name not in AXES:
            raise UsageError(unknown_name_message("axis", name, AXES))
    if len(names) < 2:
        raise UsageError("A Pareto frontier needs two axes or more.", remedy=f"Choose from {', '.join(AXES)}.")
    return tuple(AXES[name] for name in names)


def pareto_points(
    trials: Sequence[Trial], experiment: Experiment, selected_axes: Sequence[ParetoAxis]
) -> list[ParetoPoint]:
    """Every load point that has a value on each axis, once for each candidate.

    The frontier has no failed trials and no invalid or saturated load points, and where there are
    targets only load points that are proven to meet them.
    """
    price = experiment.hardware.price_per_gpu_hour
    points = []
    value_functions = [axis.value for axis in selected_axes]
    gpus_by_key = {trial.candidate.key: trial.candidate.gpus for trial in trials}
    for trial, result in _latest_results(trials):
        metrics, gpus = result.metrics, gpus_by_key[trial.candidate.key]
        coordinates = tuple(
            [value for value_of in value_functions if (value := value_of(metrics, gpus, price)) is not None]
        )
        if len(coordinates) == len(value_functions):
            points.append(ParetoPoint(trial, result, coordinates, is_trusted(trial, result)))
    groups = _comparable_groups(points, targets=bool(experiment.slo.terms))
    frontier_indices = {index for group in groups for index in _frontier_indices(points, group, selected_axes)}
    for index in frontier_indices:
        points[index] = replace(points[index], on_frontier=True)
    return points


def is_trusted(trial: Trial, result: LoadPointResult) -> bool:
    """Whether a load point was measured in a valid steady state of a launch that did not fail."""
    return not trial.failed and result.verdict not in UNSTEADY_VERDICTS


def _latest_results(trials: Sequence[Trial]) -> list[tuple[Trial, LoadPointResult]]:
    """Each load point of each candidate once: its last result, a trusted one before others.

    Confirmation launches are left out: they only repeat measurements of the same candidate.
    """
    latest: dict[tuple[str, LoadPoint, str], tuple[Trial, LoadPointResult]] = {}
    for trial in trials:
        for result in trial.measurement.load_points if trial.purpose != "confirmation" else ():
            key = (trial.candidate.key, result.load_point, result.source)
            if key not in latest or is_trusted(trial, result) or not is_trusted(*latest[key]):
                latest[key] = (trial, result)
    return list(latest.values())


def _comparable_groups(points: Sequence[ParetoPoint], *, targets: bool) -> list[list[int]]:
    """Indices of the points to compare, by scenario and source: tokens/s depend on the lengths of requests."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, point in enumerate(points):
        if point.is_trusted and (point.result.verdict is Verdict.FEASIBLE or not targets):
            groups.setdefault((point.result.load_point.scenario, point.result.source), []).append(index)
    return list(groups.values())


def _frontier_indices(
    points: Sequence[ParetoPoint], group: Sequence[int], selected_axes: Sequence[ParetoAxis]
) -> list[int]:
    """Indices into `points` of those in `group`, indices too, that no other of the group dominates."""
    frontier_members = frontier(
        [points[index].coordinates for index in group], [axis.direction for axis in selected_axes]
    )
    return [group[member] for member in frontier_members]


def frontier(points: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[int]:
    """Ascending indices of the points that no other point dominates; equal points are all included."""
    import numpy as np

    if not points:
        return []
    maximized = np.array(points) * [1.0 if direction == "max" else -1.0 for direction in directions]
    # From the best on the first axis down, only an earlier point can dominate a later one.
    remaining = np.lexsort(maximized.T[::-1])[::-1]
    members: list[int] = []
    while remaining.size:
        best, others = maximized[remaining[0]], maximized[remaining]
        is_dominated = (others <= best).all(axis=1) & (others < best).any(axis=1)
        members.append(int(remaining[0]))
        remaining = remaining[1:][~is_dominated[1:]]
    return sorted(members)
