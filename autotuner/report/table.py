"""The ranking as a table: typed rows, columns that format them, notes and legends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from typing import Any

from autotuner.core import LoadPointResult, Share, Verdict
from autotuner.errors import as_sentence
from autotuner.experiment import Experiment
from autotuner.report.candidate_names import CandidateNames
from autotuner.report.environment_text import parallel_trials_note
from autotuner.report.formatting import (
    failure_text,
    format_estimate,
    format_load,
    format_number,
    format_share,
    format_statistic,
    interval_legend,
    source_note,
)
from autotuner.report.near_misses import NEAR_LEGEND, NEAR_MARK, describe_terms, near_terms
from autotuner.report.pooling import PooledCandidate
from autotuner.report.run_view import RunView
from autotuner.scoring.objective import COST, OBJECTIVES, output_throughput_per_gpu
from autotuner.scoring.rank import Ranking, Standing

Row = dict[str, Any]

OUTPUT_PER_GPU_TITLE = "output tokens/s/GPU"
ALWAYS_SHOWN = 0
"""`drop_priority` of a column that is never dropped."""

INTERVAL_END = ")"
"""Last character of a cell with an interval."""

TIE_MARK = "="
"""Suffix of the rank of a candidate that does not differ significantly from the first."""


@dataclass(frozen=True)
class Column:
    """One column: `format_cell` formats a row's cell; `first_row_only` blanks it on a candidate's later rows.

    If a table is too wide, the columns of the highest `drop_priority` are dropped first, those of
    ALWAYS_SHOWN never. A `listed_below` column is never wrapped: its cells are listed below the table
    instead. `mark_legends` maps suffixes of its cells to their explanations.
    """

    title: str
    format_cell: Callable[[Row], str]
    numeric: bool = True
    first_row_only: bool = False
    drop_priority: int = ALWAYS_SHOWN
    listed_below: bool = False
    mark_legends: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Rows in SI units, their columns, the winner's row index, the shared settings, and notes to print below.

    Keys of a row: rank, tied, trial, candidate, parameters, scenario, load, launches, n, ttft, tpot,
    e2e (Distribution or None), output_throughput_per_gpu, attainment (Share or None), cost, gpu_use
    (GpuUse or None), joules_per_token, verdict, near (outcomes of terms met within their warning band),
    source, value, interval, score, gain, failure, reason; None where a failed trial has none.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    winner_row: int | None = None
    shared_settings: tuple[str, ...] = ()

    @property
    def titles(self) -> list[str]:
        return [column.title for column in self.columns]

    @property
    def right_aligned_titles(self) -> list[str]:
        return [column.title for column in self.columns if column.numeric]

    def cell_texts(self) -> list[dict[str, str]]:
        """Every row as column title -> cell text."""
        texts = []
        for previous, row in zip((None, *self.rows), self.rows, strict=False):
            is_later_row = previous is not None and "rank" in row and previous["rank"] == row["rank"]
            texts.append(
                {c.title: "" if is_later_row and c.first_row_only else c.format_cell(row) for c in self.columns}
            )
        return texts

    def legends(self, titles: Sequence[str] | None = None) -> list[str]:
        """Explanations of the intervals and marks in the named columns (default: all)."""
        shown = self.titles if titles is None else titles
        texts = self.cell_texts()
        interval_text = interval_legend(row[title] for title in shown for row in texts)
        marks = [
            (mark, text)
            for column in self.columns
            if column.title in shown
            for mark, text in column.mark_legends.items()
            if any(row[column.title].endswith(mark) for row in texts)
        ]
        interval_text = " ".join([interval_text, *(text for mark, text in marks if mark == INTERVAL_END)])
        has_near = any(row[title].endswith(NEAR_MARK) for title in shown for row in texts)
        mark_texts = (text for mark, text in marks if mark != INTERVAL_END)
        return [text for text in (interval_text, *mark_texts, NEAR_LEGEND if has_near else "") if text]


def ranking_table(view: RunView, limit: int | None = None, max_rows: int | None = None) -> Table:
    """The ranking as a table of at most `limit` candidates, with metrics pooled over each one's launches.

    A candidate ranked by one load point has one row; one ranked over several load points has a row
    for each, because metrics at different loads cannot be averaged. Of candidates after the first, those
    beyond `max_rows` rows are left out.
    """
    ranking, experiment = view.ranking, view.experiment
    standings = first_standings(ranking.standings[:limit], max_rows)
    rows: list[Row] = []
    for standing in standings:
        pooled = view.pooled[standing.trial_number]
        standing_cells = _standing_cells(standing, view.names)
        rows += [
            standing_cells | _figure_cells(result, pooled, experiment)
            for result in pooled.trial.results
            if result.load_point in standing.load_points
        ] or [standing_cells | _NO_FIGURES]
    return Table(
        _columns(ranking, experiment, rows),
        tuple(rows),
        _notes(view, standings, rows),
        0 if rows and ranking.winner else None,
        tuple(view.names.shared_settings()),
    )


def first_standings(standings: Sequence[Standing], max_load_points: int | None) -> tuple[Standing, ...]:
    """The first standings with no more load points than that in all, and always the very first."""
    if max_load_points is None:
        return tuple(standings)
    totals = accumulate(max(1, len(standing.load_points)) for standing in standings)
    count = sum(1 for _ in takewhile(lambda total: total <= max_load_points, totals))
    return tuple(standings[: max(1, count)])


_NO_FIGURES: Row = {
    **dict.fromkeys(("scenario", "load", "n", "ttft", "tpot", "e2e", "output_throughput_per_gpu", "attainment")),
    **dict.fromkeys(("cost", "gpus", "gpu_use", "joules_per_token", "verdict", "launches")),
    "near": (),
}


def _standing_cells(standing: Standing, names: CandidateNames) -> Row:
    return {
        "rank": standing.rank,
        "tied": standing.is_tied,
        "trial": standing.trial_number,
        "candidate": names.short_name(standing.candidate),
        "parameters": dict(standing.candidate.parameters),
        "source": standing.source,
        "value": standing.value,
        "interval": standing.interval,
        "score": standing.score,
        "gain": standing.gain,
        "failure": standing.failure.kind.value if standing.failure else None,
        "reason": standing.reason,
    }


def _figure_cells(result: LoadPointResult, pooled: PooledCandidate, experiment: Experiment) -> Row:
    metrics, gpus = result.metrics, pooled.trial.candidate.gpus
    return {
        "launches": pooled.launch_counts.get(result.load_point, 1),
        "scenario": result.load_point.scenario,
        "load_point": result.load_point,
        "load": format_load(result.load_point),
        "n": metrics.requests,
        "ttft": metrics.ttft,
        "tpot": metrics.tpot,
        "e2e": metrics.e2e,
        "output_throughput_per_gpu": output_throughput_per_gpu(metrics, gpus),
        "attainment": metrics.attainment,
        "cost": COST.value(metrics, gpus, experiment.hardware.price_per_gpu_hour),
        "gpus": gpus,
        "gpu_use": result.gpu_use,
        "joules_per_token": result.joules_per_token,
        "verdict": result.verdict.value,
        "near": near_terms(result, experiment.slo),
    }


def _columns(ranking: Ranking, experiment: Experiment, rows: Sequence[Row]) -> tuple[Column, ...]:
    objective = OBJECTIVES[ranking.objective]
    load_title = "rate" if not experiment.benchmark.num_concurrency else "load"
    sources = {row["source"] for row in rows}
    columns = [
        Column("#", _rank_text, first_row_only=True, mark_legends={TIE_MARK: TIE_LEGEND}),
        Column("trial", lambda row: str(row["trial"]), first_row_only=True),
        Column(
            "candidate",
            lambda row: str(row["candidate"]),
            numeric=False,
            first_row_only=True,
            drop_priority=5,
            listed_below=True,
        ),
        Column("scenario", lambda row: row["scenario"] or "", numeric=False),
        Column(load_title, lambda row: row["load"] or ""),
        Column("launches", lambda row: str(row["launches"] or ""), drop_priority=3),
        Column("n", lambda row: "" if row["n"] is None else f"{row['n']:,}", drop_priority=7),
        Column("TTFT ms", lambda row: _mean_text(row["ttft"], 1e3), drop_priority=1),
        Column("TTFT p99 ms", lambda row: format_statistic(row["ttft"], "p99", 1e3), drop_priority=8),
        Column("TPOT ms", lambda row: _mean_text(row["tpot"], 1e3), drop_priority=1),
        Column(
            "E2E s",
            lambda row: _mean_text(row["e2e"], 1.0),
            drop_priority=ALWAYS_SHOWN if objective.metric == "e2e" else 6,
        ),
        Column(OUTPUT_PER_GPU_TITLE, lambda row: format_number(row["output_throughput_per_gpu"])),
    ]
    if len(experiment.benchmark.traffic_scenarios) == 1:
        columns = [column for column in columns if column.title != "scenario"]
    if not any((row["launches"] or 0) > 1 for row in rows):
        columns = [column for column in columns if column.title != "launches"]
    if experiment.slo.terms:
        columns.append(Column("SLO met %", lambda row: _percent_text(row["attainment"]), drop_priority=2))
    if shows_cost(experiment, (row["gpus"] for row in rows)):
        columns.append(cost_column(experiment, drop_priority=ALWAYS_SHOWN if objective.uses_price else 4))
    if any(row["gpu_use"] for row in rows):
        columns.append(
            Column(
                "W", lambda row: format_number(row["gpu_use"].mean_watts if row["gpu_use"] else None), drop_priority=10
            )
        )
        columns.append(Column("J/output token", lambda row: format_number(row["joules_per_token"]), drop_priority=10))
    return (
        *_with_objective_column(columns, ranking, experiment),
        Column("score", lambda row: format_number(row["score"]), first_row_only=True, drop_priority=9),
        Column("verdict", verdict_text, numeric=False),
        Column(
            "source",
            lambda row: str(row["source"]),
            numeric=False,
            first_row_only=True,
            # a note gives the source if it is the same in all rows
            drop_priority=11 if len(sources) == 1 else ALWAYS_SHOWN,
        ),
    )


def cost_column(experiment: Experiment, *, drop_priority: int) -> Column:
    """Cost of a million output tokens: in currency if a price is set, else in GPU-seconds."""
    title = COST.unit(experiment.hardware.price_per_gpu_hour)
    return Column(title, lambda row: format_number(row["cost"]), drop_priority=drop_priority)


def shows_cost(experiment: Experiment, gpus: Iterable[int | None]) -> bool:
    """Whether to show a cost column: with a price, a cost objective, or differing GPU counts."""
    has_price = experiment.hardware.price_per_gpu_hour is not None
    gpus_differ = len(set(gpus) - {None}) > 1
    return has_price or gpus_differ or OBJECTIVES[experiment.optimization.objective].uses_price


def _has_several_loads(ranking: Ranking) -> bool:
    return any(len(standing.load_points) > 1 for standing in ranking.standings)


def _with_objective_column(columns: Sequence[Column], ranking: Ranking, experiment: Experiment) -> list[Column]:
    """Add the objective's value with its interval, replacing the column of the same metric if there is one."""
    objective = OBJECTIVES[ranking.objective]
    metric_title = objective.column_title or ranking.unit
    title = f"{metric_title}, geometric mean" if _has_several_loads(ranking) else metric_title
    is_repeated = any(standing.launch_count > 1 for standing in ranking.standings)
    scope = "includes the variation between launches" if is_repeated else "covers one launch only: none was repeated"

    def value(row: Row) -> str:
        return format_estimate(row["value"], row["interval"], objective.column_scale)

    column = Column(
        title, value, first_row_only=True, mark_legends={INTERVAL_END: f"The interval of {metric_title} {scope}."}
    )
    if any(other.title == title for other in columns):
        return [column if other.title == title else other for other in columns]
    return [*columns, column]


TIE_LEGEND = f"{TIE_MARK} after a rank: no significant difference from the first."


def _rank_text(row: Row) -> str:
    return f"{row['rank']}{TIE_MARK if row['tied'] else ''}"


def _mean_text(distribution: Any, scale: float) -> str:
    return "" if distribution is None else format_number(distribution.mean * scale)


def _percent_text(value: Share | None) -> str:
    return format_share(value).replace("%", "")


def verdict_text(row: Row) -> str:
    """A row's failure, else its verdict, marked if it is near a target."""
    text = str(row["failure"] or row["verdict"] or "incomplete")
    return text + NEAR_MARK if row["near"] and not row["failure"] else text


def _notes(view: RunView, standings: Sequence[Standing], rows: Sequence[Row]) -> tuple[str, ...]:
    """The lines below the table: source, trials side by side, reasons of the infeasible, near misses, omissions."""
    notes = [source_note(view.ranking), parallel_trials_note(view)]
    near_rows: dict[int, list[Row]] = {}
    for row in rows:
        if row["near"]:
            near_rows.setdefault(row["rank"], []).append(row)
    for standing in standings:
        candidate = f"#{standing.rank}, {view.names.full_name(standing.candidate)}"
        if standing.verdict is not Verdict.FEASIBLE:
            notes.append(f"{candidate}: {_reason_text(standing)}")
        notes += [
            f"{candidate} is near a target at {row['load_point']}: {describe_terms(row['near'])}."
            for row in near_rows.get(standing.rank, ())
        ]
    omitted = len(view.ranking.standings) - len(standings)
    if omitted:
        notes.append(f"{omitted:,} more not shown.")
    return tuple(note for note in notes if note)


def _reason_text(standing: Standing) -> str:
    """Why a candidate is not feasible; of a failure also what to do."""
    return failure_text(standing.failure) if standing.failure else as_sentence(standing.reason)
