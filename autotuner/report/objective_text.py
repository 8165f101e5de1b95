"""Describes the objective of a run in one line."""

from __future__ import annotations

from autotuner.experiment import Experiment
from autotuner.report.formatting import format_number
from autotuner.scoring.objective import OBJECTIVES

_METRIC_TEXTS = {
    "minimize_latency": "the mean end-to-end latency",
    "minimize_ttft": "the mean time to first token",
    "minimize_tpot": "the mean time per output token",
    "maximize_throughput": "total (prompt + output) tokens/s per GPU",
    "maximize_goodput": "requests/s of one server that meet the targets",
}
_PER_GPU_OBJECTIVES = ("maximize_throughput", "minimize_cost")


def objective_meaning(experiment: Experiment) -> str:
    """The metric an objective optimizes, at which loads it is compared, and whether it is per GPU."""
    name = experiment.optimization.objective
    gpus = "" if name in _PER_GPU_OBJECTIVES else "; not normalized by the number of GPUs of a candidate"
    return f"{_metric_text(experiment)}{_comparison_scope(experiment)}{gpus}"


def objective_line(experiment: Experiment) -> str:
    return f"Objective: {experiment.optimization.objective}, {objective_meaning(experiment)}."


def objective_value_text(
    objective: str, value: float | None, unit: str, interval: tuple[float, float] | None = None
) -> str:
    """An objective's value with unit and interval, preceded by the metric's name where the unit does not tell it."""
    interval_text = f" ({format_number(interval[0])}-{format_number(interval[1])})" if interval else ""
    value_text = f"{format_number(value)} {unit}{interval_text}"
    return value_text if objective in _PER_GPU_OBJECTIVES else f"{OBJECTIVES[objective].label} {value_text}"


def _metric_text(experiment: Experiment) -> str:
    name = experiment.optimization.objective
    if name == "minimize_cost":
        has_price = experiment.hardware.price_per_gpu_hour is not None
        return f"the {'price' if has_price else 'GPU-seconds'} of a million output tokens"
    return _METRIC_TEXTS[name]


def _comparison_scope(experiment: Experiment) -> str:
    points = experiment.workload().load_points
    if experiment.benchmark.find_capacity:
        return ", each candidate at its own capacity"
    if len(points) == 1:
        return f" at {points[0]}"
    if OBJECTIVES[experiment.optimization.objective].at_equal_load:
        return " over all load points"
    has_several_scenarios = len(experiment.benchmark.traffic_scenarios) > 1
    return f", each candidate at its best load point{' of each scenario' if has_several_scenarios else ''}"
