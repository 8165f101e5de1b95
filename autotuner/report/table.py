"""The ranked table as plain data: typed rows, and the same rows as text for whoever draws them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotuner.core import LoadPointResult, Share, Trial, Verdict
from autotuner.errors import as_sentence
from autotuner.experiment import Experiment
from autotuner.report.candidate_names import CandidateNames
from autotuner.report.formatting import (
    format_estimate,
    format_load,
    format_number,
    format_share,
    format_statistic,
    interval_legend,
    source_note,
)
from autotuner.report.near_misses import NEAR_LEGEND, NEAR_MARK, describe_terms, near_terms
from autotuner.report.pooling import PooledCandidate, pool_candidates
from autotuner.scoring.objective import output_throughput_per_gpu, output_token_cost, output_token_cost_unit
from autotuner.scoring.rank import Ranking, Standing

Row = dict[str, Any]

OUTPUT_PER_GPU_TITLE = "output tokens/s/GPU"
ALWAYS_SHOWN = 0
"""The priority of a column that a table is nothing without."""

INTERVAL_END = ")"
"""What a cell with an interval ends with."""

TIE_MARK = "="
"""Behind the rank of a candidate that cannot be told apart from the first."""


@dataclass(frozen=True)
class Column:
    """One column: `text` turns a row into its cell; `once` leaves it empty on a candidate's later rows.

    Where a table is too wide, the columns of the highest `priority` are left out first, those of
    ALWAYS never. A column that is `below` is never broken over lines: its cells are listed under the
    table instead. `marks` explains what some of its cells end with.
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
    """Rows in SI units with their columns, the winner's row, what all candidates share, and notes to print below.

    Keys of a row: rank, tied, trial, candidate, parameters, scenario, load, launches, n, ttft, tpot,
    e2e (Distribution or None), output_throughput_per_gpu, attainment (Share or None), cost, gpu_use
    (GpuUse or None), joules_per_token, verdict, near (outcomes of terms met by little), source,
    value, interval, score, gain, failure, reason; None where a failed trial has none.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    winner_row: int | None = None
    shared_settings: tuple[str, ...] = ()

    @property
    def titles(self) -> list[str]:
        """Column titles in order."""
        return [column.title for column in self.columns]

    @property
    def right_aligned_titles(self) -> list[str]:
        """Titles of the columns that are right-aligned."""
        return [column.title for column in self.columns if column.numeric]

    def cell_texts(self) -> list[dict[str, str]]:
        """Every row as text by column title."""
        found = []
        for before, row in zip((None, *self.rows), self.rows, strict=False):
            later = before is not None and "rank" in row and before["rank"] == row["rank"]
            found.append({c.title: "" if later and c.first_row_only else c.format_cell(row) for c in self.columns})
        return found

    def legends(self, titles: Sequence[str] | None = None) -> list[str]:
        """What brackets and marks mean that stand in these columns, in all of them where none are named."""
        shown = self.titles if titles is None else titles
        texts = self.cell_texts()
        brackets = interval_legend(row[title] for title in shown for row in texts)
        marks = [
            (mark, text)
            for column in self.columns
            if column.title in shown
            for mark, text in column.mark_legends.items()
            if any(row[column.title].endswith(mark) for row in texts)
        ]
        brackets = " ".join([brackets, *(text for mark, text in marks if mark == INTERVAL_END)])
        marked = any(row[title].endswith(NEAR_MARK) for title in shown for row in texts)
        others = (text for mark, text in marks if mark != INTERVAL_END)
        return [text for text in (brackets, *others, NEAR_LEGEND if marked else "") if text]


def ranking_table(ranking: Ranking, trials: Sequence[Trial], experiment: Experiment, limit: int | None = None) -> Table:
    """The ranked table, at most `limit` candidates of it, each with the figures of all its launches.

    A candidate that stands at one load point is one row; one that is compared over several load
    points has a row for each, because figures at different loads cannot be averaged.
    """
    by_number = {candidate.trial.number: candidate for candidate in pool_candidates(trials, experiment)}
    names = CandidateNames.from_ranking(ranking)
    shown = ranking.standings[:limit]
    body: list[Row] = []
    for standing in shown:
        pooled = by_number[standing.trial_number]
        head = _standing_cells(standing, names)
        body += [
            head | _figure_cells(result, pooled, experiment)
            for result in pooled.trial.results
            if result.load_point in standing.load_points
        ] or [head | _NO_FIGURES]
    return Table(
        _columns(ranking, experiment, body),
        tuple(body),
        _notes(ranking, shown, body, names),
        0 if body and ranking.winner else None,
        tuple(names.shared_settings()),
    )


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
        "cost": output_token_cost(metrics, gpus, experiment.hardware.price_per_gpu_hour),
        "gpus": gpus,
        "gpu_use": result.gpu_use,
        "joules_per_token": result.joules_per_token,
        "verdict": result.verdict.value,
        "near": near_terms(result, experiment.slo),
    }


def _columns(ranking: Ranking, experiment: Experiment, rows: Sequence[Row]) -> tuple[Column, ...]:
    objective = ranking.objective
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
            drop_priority=ALWAYS_SHOWN if objective == "minimize_latency" else 6,
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
        columns.append(cost_column(experiment, drop_priority=ALWAYS_SHOWN if objective == "minimize_cost" else 4))
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
            # a note says it where it is the same everywhere
            drop_priority=11 if len(sources) == 1 else ALWAYS_SHOWN,
        ),
    )


def cost_column(experiment: Experiment, *, drop_priority: int) -> Column:
    """What a million output tokens cost, in currency where a price is known, else in GPU-seconds."""
    title = output_token_cost_unit(experiment.hardware.price_per_gpu_hour)
    return Column(title, lambda row: format_number(row["cost"]), drop_priority=drop_priority)


def shows_cost(experiment: Experiment, gpus: Iterable[int | None]) -> bool:
    """Whether what tokens cost sets candidates of so many GPUs apart: by a price, by the objective, or by these."""
    priced = experiment.hardware.price_per_gpu_hour is not None
    differ = len(set(gpus) - {None}) > 1
    return priced or differ or experiment.optimization.objective == "minimize_cost"


def _has_several_loads(ranking: Ranking) -> bool:
    return any(len(standing.load_points) > 1 for standing in ranking.standings)


_OBJECTIVE_COLUMNS = {
    "minimize_latency": ("E2E s", 1.0),
    "minimize_ttft": ("TTFT ms", 1e3),
    "minimize_tpot": ("TPOT ms", 1e3),
    "maximize_goodput": ("good requests/s", 1.0),
}
"""Titles of objectives' figures and what they are multiplied with; others are called by their unit."""


def _with_objective_column(columns: Sequence[Column], ranking: Ranking, experiment: Experiment) -> list[Column]:
    """The columns with the objective's figure and its interval: in place of the column that has it, else the last."""
    figure, scale = _OBJECTIVE_COLUMNS.get(ranking.objective, (ranking.unit, 1.0))
    title = f"{figure}, geometric mean" if _has_several_loads(ranking) else figure
    again = any(standing.launch_count > 1 for standing in ranking.standings)
    text = "takes in how much launches differ" if again else "is that of one launch, as none was repeated"

    def value(row: Row) -> str:
        return format_estimate(row["value"], row["interval"], scale)

    column = Column(title, value, first_row_only=True, mark_legends={INTERVAL_END: f"The interval of {figure} {text}."})
    if any(other.title == title for other in columns):
        return [column if other.title == title else other for other in columns]
    return [*columns, column]


TIE_LEGEND = f"{TIE_MARK} behind a rank: these measurements cannot tell it from the first."


def _rank_text(row: Row) -> str:
    return f"{row['rank']}{TIE_MARK if row['tied'] else ''}"


def _mean_text(distribution: Any, scale: float) -> str:
    return "" if distribution is None else format_number(distribution.mean * scale)


def _percent_text(value: Share | None) -> str:
    return format_share(value).replace("%", "")


def verdict_text(row: Row) -> str:
    """How a row came out: its failure, else its verdict and whether it is near a target."""
    text = str(row["failure"] or row["verdict"] or "incomplete")
    return text + NEAR_MARK if row["near"] and not row["failure"] else text


def _notes(
    ranking: Ranking, standings: Sequence[Standing], rows: Sequence[Row], names: CandidateNames
) -> tuple[str, ...]:
    notes = [source_note(ranking)]
    for standing in standings:
        who = f"#{standing.rank}, {names.full_name(standing.candidate)}"
        if standing.verdict is not Verdict.FEASIBLE:
            notes.append(as_sentence(f"{who}: {standing.reason}"))
        notes += [
            f"{who} is near a target at {row['load_point']}: {describe_terms(row['near'])}."
            for row in rows
            if row["rank"] == standing.rank and row["near"]
        ]
    left = len(ranking.standings) - len(standings)
    if left:
        notes.append(f"{left} more not shown.")
    return tuple(note for note in notes if note)
