"""The Pareto frontier of a run as a table."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.experiment import Experiment
from autotuner.report.formatting import format_load, format_number
from autotuner.report.near_misses import near_terms
from autotuner.report.run_view import FRONTIER_AXES, RunView
from autotuner.report.table import OUTPUT_PER_GPU_TITLE, Column, Row, Table, cost_column, shows_cost, verdict_text
from autotuner.scoring.objective import COST

MAX_ROWS = 100
"""Load points in the table; CSV and JSON mark all that are on the frontier."""


def frontier_title(experiment: Experiment) -> str:
    return f"Pareto frontier{' of load points that meet the targets' if experiment.slo.terms else ''}"


def frontier_table(view: RunView) -> Table:
    """The load points not dominated in output tokens/s per GPU, interactivity and TTFT, most interactive first."""
    experiment = view.experiment
    rows: list[Row] = [
        {
            "trial": point.trial.number,
            "candidate": view.names.short_name(point.trial.candidate),
            "scenario": point.result.load_point.scenario,
            "load": format_load(point.result.load_point),
            **dict(zip(FRONTIER_AXES, point.coordinates, strict=True)),
            "verdict": point.result.verdict.value,
            "near": near_terms(point.result, experiment.slo),
            "failure": None,
            "gpus": point.trial.candidate.gpus,
            "cost": COST.value(
                point.result.metrics, point.trial.candidate.gpus, experiment.hardware.price_per_gpu_hour
            ),
            "source": point.result.source,
        }
        for point in view.frontier
    ]
    rows.sort(key=lambda row: (-row["interactivity"], -row["throughput"]))
    omitted = len(rows) - MAX_ROWS
    notes = (f"{omitted:,} more load points of the frontier not shown.",) if omitted > 0 else ()
    return Table(_columns(experiment, rows), tuple(_evenly_spaced(rows, MAX_ROWS)), notes)


def _evenly_spaced(rows: Sequence[Row], count: int) -> list[Row]:
    """At most `count` of the rows, with the first and the last, so that both ends of a frontier are shown."""
    if len(rows) <= count:
        return list(rows)
    return [rows[index * (len(rows) - 1) // (count - 1)] for index in range(count)]


def _columns(experiment: Experiment, rows: Sequence[Row]) -> tuple[Column, ...]:
    columns = [
        Column("trial", lambda row: str(row["trial"])),
        Column("candidate", lambda row: str(row["candidate"]), numeric=False, drop_priority=4, listed_below=True),
        Column("scenario", lambda row: str(row["scenario"]), numeric=False, drop_priority=2),
        Column("load", lambda row: str(row["load"])),
        Column(OUTPUT_PER_GPU_TITLE, lambda row: format_number(row["throughput"])),
        Column("tokens/s/user", lambda row: format_number(row["interactivity"])),
        Column("TTFT ms", lambda row: format_number(row["ttft"] * 1e3)),
    ]
    if len(experiment.benchmark.traffic_scenarios) == 1:
        columns = [column for column in columns if column.title != "scenario"]
    if shows_cost(experiment, (row["gpus"] for row in rows)):
        columns.append(cost_column(experiment, drop_priority=1))
    return (
        *columns,
        Column("verdict", verdict_text, numeric=False),
        Column("source", lambda row: str(row["source"]), numeric=False, drop_priority=5),
    )
