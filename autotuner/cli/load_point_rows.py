"""Measured load points while a run or a load test goes on: as rows of a table, and as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from autotuner.cli import display
from autotuner.cli.table_layout import ColumnSpec
from autotuner.core import Candidate, LoadPointResult, Trial
from autotuner.errors import pluralize

if TYPE_CHECKING:
    from rich.console import RenderableType

    from autotuner.report.candidate_names import CandidateNames
    from autotuner.search.plan import Plan

MIN_ROWS = 4


def load_point_summary(result: LoadPointResult, *, has_targets: bool) -> str:
    """A judged load point in one line: latencies, output tokens/s, attainment if there are targets, verdict."""
    from autotuner.report.formatting import format_number

    metrics = result.metrics
    latencies = (("TTFT", metrics.ttft), ("TPOT", metrics.tpot))
    parts = [f"{label} {format_number(latency.mean * 1e3)} ms" for label, latency in latencies if latency is not None]
    parts.append(f"{format_number(metrics.output_throughput)} output tokens/s")
    if has_targets and metrics.attainment is not None:
        parts.append(f"SLO met {metrics.attainment.value:.0%}")
    errors = sum(metrics.errors.values())
    if errors:
        parts.append(pluralize(errors, "error"))
    return f"{', '.join(parts)}, {result.verdict}, n={metrics.requests} ({result.source})"


OUTPUT_COLUMN, SLO_MET_COLUMN = "output tokens/s", "SLO met %"
COLUMNS = (
    ColumnSpec("trial", numeric=True),
    ColumnSpec("candidate", drop_priority=4, listed_below=True),
    ColumnSpec("scenario", drop_priority=2),
    ColumnSpec("load", numeric=True),
    ColumnSpec("n", numeric=True, drop_priority=3),
    ColumnSpec("TTFT ms", numeric=True),
    ColumnSpec("TPOT ms", numeric=True),
    ColumnSpec(OUTPUT_COLUMN, numeric=True),
    ColumnSpec(SLO_MET_COLUMN, numeric=True, drop_priority=1),
    ColumnSpec("verdict"),
)


def load_points_table(rows: Sequence[Mapping[str, str]], width: int, height: int) -> RenderableType:
    """Table of the load points measured so far; only the last ones that fit `height` lines."""
    from rich.console import Group
    from rich.text import Text

    if not rows:
        return Text("")
    shown_rows = _without_repeats(rows[-max(height, MIN_ROWS) :])
    columns = [column for column in COLUMNS if any(row.get(column.title) for row in rows)]
    if len({row["scenario"] for row in rows if row["scenario"]}) < 2:
        columns = [column for column in columns if column.title != "scenario"]
    table = display.make_table(shown_rows, columns, width=width)
    hidden_count = len(rows) - len(shown_rows)
    return Group(table, Text(f"and {hidden_count} before")) if hidden_count else table


def _without_repeats(rows: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The rows with trial and candidate only on the first row of each trial."""
    blank = {"trial": "", "candidate": ""}
    return [
        {**row, **blank} if previous and previous.get("trial") and previous["trial"] == row["trial"] else row
        for previous, row in zip((None, *rows), rows, strict=False)
    ]


def trial_rows(trial: Trial, plan: Plan, names: CandidateNames) -> list[dict[str, str]]:
    """Table rows of a judged trial: its load points and its failure."""
    point_rows = [load_point_row(result, trial.number, trial.candidate, plan, names) for result in trial.results]
    return [*point_rows, *failure_rows(trial, names)]


def failure_rows(trial: Trial, names: CandidateNames) -> list[dict[str, str]]:
    """The table row of a failed trial; empty for others."""
    failure = trial.measurement.failure
    if failure is None:
        return []
    name = names.short_name(trial.candidate)
    return [{"trial": str(trial.number), "candidate": name, "scenario": "", "verdict": failure.kind}]


def load_point_row(
    result: LoadPointResult, trial_number: int, candidate: Candidate, plan: Plan, names: CandidateNames
) -> dict[str, str]:
    """The table row of a judged load point."""
    return {
        "trial": str(trial_number),
        "candidate": names.short_name(candidate),
        **load_point_cells(result, has_targets=bool(plan.experiment.slo.terms)),
    }


def load_point_cells(result: LoadPointResult, *, has_targets: bool) -> dict[str, str]:
    """Cells of a load point by column title; attainment only if there are targets."""
    from autotuner.report.formatting import format_load, format_number, format_share

    metrics = result.metrics
    return {
        "scenario": result.load_point.scenario,
        "load": format_load(result.load_point),
        "n": f"{metrics.requests:,}",
        "TTFT ms": format_number(metrics.ttft.mean * 1e3) if metrics.ttft else "",
        "TPOT ms": format_number(metrics.tpot.mean * 1e3) if metrics.tpot else "",
        OUTPUT_COLUMN: format_number(metrics.output_throughput),
        SLO_MET_COLUMN: format_share(metrics.attainment).replace("%", "") if has_targets else "",
        "verdict": result.verdict.value,
    }
