"""The frontier of a run as a table, and which load points it holds."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.core import LoadPoint, Trial
from autotuner.experiment import Experiment
from autotuner.report.candidate_names import Names
from autotuner.report.formatting import load, number
from autotuner.report.near_misses import near
from autotuner.report.pooling import candidates
from autotuner.report.table import OUTPUT_PER_GPU, Column, Row, Table, cost_column, shows_cost, verdict
from autotuner.scoring.objective import cost
from autotuner.scoring.pareto import AXES, Point, points

AXES_SHOWN = ("throughput", "interactivity", "ttft")


Member = tuple[str, LoadPoint]
"""A candidate's key and one of its load points."""


def on_frontier(trials: Sequence[Trial], experiment: Experiment) -> set[Member]:
    """What the frontier holds, by the figures of all launches of a candidate."""
    return {(point.trial.candidate.key, point.result.load_point) for point in _members(trials, experiment)}


def _members(trials: Sequence[Trial], experiment: Experiment) -> list[Point]:
    pooled = [candidate.trial for candidate in candidates(trials, experiment)]
    every = points(pooled, experiment, [AXES[name] for name in AXES_SHOWN])
    return [point for point in every if point.on_frontier]


def frontier_title(experiment: Experiment) -> str:
    """What the frontier is of."""
    return f"Pareto frontier{' of what meets the targets' if experiment.slo.terms else ''}"


def frontier(trials: Sequence[Trial], experiment: Experiment) -> Table:
    """The load points no other beats in output tokens/s per GPU, interactivity and TTFT, most interactive first."""
    names = Names.of(trials)
    members: list[Row] = [
        {
            "trial": point.trial.number,
            "candidate": names.short(point.trial.candidate),
            "scenario": point.result.load_point.scenario,
            "load": load(point.result.load_point),
            **dict(zip(AXES_SHOWN, point.at, strict=True)),
            "verdict": point.result.verdict.value,
            "near": near(point.result, experiment.slo),
            "failure": None,
            "gpus": point.trial.candidate.gpus,
            "cost": cost(point.result.metrics, point.trial.candidate.gpus, experiment.hardware.price_per_gpu_hour),
            "source": point.result.source,
        }
        for point in _members(trials, experiment)
    ]
    members.sort(key=lambda row: (-row["interactivity"], -row["throughput"]))
    return Table(_columns(experiment, members), tuple(members))


def _columns(experiment: Experiment, members: Sequence[Row]) -> tuple[Column, ...]:
    columns = [
        Column("trial", lambda row: str(row["trial"])),
        Column("candidate", lambda row: str(row["candidate"]), right=False, priority=4, below=True),
        Column("scenario", lambda row: str(row["scenario"]), right=False, priority=2),
        Column("load", lambda row: str(row["load"])),
        Column(OUTPUT_PER_GPU, lambda row: number(row["throughput"])),
        Column("tokens/s/user", lambda row: number(row["interactivity"])),
        Column("TTFT ms", lambda row: number(row["ttft"] * 1e3)),
    ]
    if len(experiment.benchmark.traffic_scenarios) == 1:
        columns = [column for column in columns if column.title != "scenario"]
    if shows_cost(experiment, (row["gpus"] for row in members)):
        columns.append(cost_column(experiment, priority=1))
    return (
        *columns,
        Column("verdict", verdict, right=False),
        Column("source", lambda row: str(row["source"]), right=False, priority=5),
    )
