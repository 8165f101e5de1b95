"""Describes the objective of a run in one line."""

from __future__ import annotations

from autotuner.experiment import Experiment
from autotuner.report.formatting import format_number
from autotuner.scoring.objective import OBJECTIVES, Objective


def objective_meaning(experiment: Experiment) -> str:
    """The metric an objective optimizes, at which loads it is compared, and whether it is per GPU."""
    objective = OBJECTIVES[experiment.optimization.objective]
    metric = objective.describe(experiment.hardware.price_per_gpu_hour)
    gpus = "" if objective.is_per_gpu else "; not normalized by the number of GPUs of a candidate"
    return f"{metric}{_comparison_scope(experiment, objective)}{gpus}"


def objective_line(experiment: Experiment) -> str:
    return f"Objective: {experiment.optimization.objective}, {objective_meaning(experiment)}."


def objective_value_text(
    objective: str, value: float | None, unit: str, interval: tuple[float, float] | None = None
) -> str:
    """An objective's value with unit and interval, preceded by the metric's name where the unit does not tell it."""
    interval_text = f" ({format_number(interval[0])}-{format_number(interval[1])})" if interval else ""
    value_text = f"{format_number(value)} {unit}{interval_text}"
    return value_text if OBJECTIVES[objective].is_per_gpu else f"{OBJECTIVES[objective].label} {value_text}"


def _comparison_scope(experiment: Experiment, objective: Objective) -> str:
    points = experiment.workload().load_points
    if experiment.benchmark.find_capacity:
        return ", each candidate at its own capacity"
    if len(points) == 1:
        return f" at {points[0]}"
    if objective.at_equal_load:
        return " over all load points"
    has_several_scenarios = len(experiment.benchmark.traffic_scenarios) > 1
    return f", each candidate at its best load point{' of each scenario' if has_several_scenarios else ''}"
