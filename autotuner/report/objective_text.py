"""What the objective of a run means, in one line."""

from __future__ import annotations

from autotuner.experiment import Experiment
from autotuner.report.formatting import format_number
from autotuner.scoring.objective import OBJECTIVES

_FIGURE_TEXTS = {
    "minimize_latency": "the mean end-to-end latency",
    "minimize_ttft": "the mean time to first token",
    "minimize_tpot": "the mean time per output token",
    "maximize_throughput": "total (prompt + output) tokens/s per GPU",
    "maximize_goodput": "requests/s of one server that meet the targets",
}
_PER_GPU_OBJECTIVES = ("maximize_throughput", "minimize_cost")


def objective_meaning(experiment: Experiment) -> str:
    """The figure an objective stands for, where it is compared, and whether the GPUs count."""
    name = experiment.optimization.objective
    gpus = "" if name in _PER_GPU_OBJECTIVES else "; it does not weigh the GPUs a candidate takes"
    return f"{_objective_figure(experiment)}{_comparison_scope(experiment)}{gpus}"


def objective_line(experiment: Experiment) -> str:
    """The objective by its name, and what it means."""
    return f"Objective: {experiment.optimization.objective}, {objective_meaning(experiment)}."


def figure_text(objective: str, value: float | None, unit: str, interval: tuple[float, float] | None = None) -> str:
    """A figure of an objective with its unit, and what it is of where the unit does not tell."""
    ends = f" ({format_number(interval[0])}-{format_number(interval[1])})" if interval else ""
    figure = f"{format_number(value)} {unit}{ends}"
    return figure if objective in _PER_GPU_OBJECTIVES else f"{OBJECTIVES[objective].label} {figure}"


def _objective_figure(experiment: Experiment) -> str:
    name = experiment.optimization.objective
    if name == "minimize_cost":
        priced = experiment.hardware.price_per_gpu_hour is not None
        return f"the {'price' if priced else 'GPU-seconds'} of a million output tokens"
    return _FIGURE_TEXTS[name]


def _comparison_scope(experiment: Experiment) -> str:
    points = experiment.workload().load_points
    if experiment.benchmark.find_capacity:
        return ", each candidate at its own capacity"
    if len(points) == 1:
        return f" at {points[0]}"
    if OBJECTIVES[experiment.optimization.objective].at_equal_load:
        return " over all load points"
    several = len(experiment.benchmark.traffic_scenarios) > 1
    return f", each candidate at its best load point{' of each scenario' if several else ''}"
