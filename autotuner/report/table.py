"""The ranked table as plain data: typed rows, and the same rows as text for whoever draws them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotuner.core import LoadPointResult, Share, Trial, Verdict
from autotuner.errors import sentence
from autotuner.experiment import Experiment
from autotuner.report.candidate_names import Names
from autotuner.report.formatting import estimate, legend, load, number, share, source_note, with_interval
from autotuner.report.near_misses import LEGEND, MARK, described, near
from autotuner.report.pooling import PooledCandidate, candidates
from autotuner.scoring.objective import cost, cost_unit, output_throughput_per_gpu
from autotuner.scoring.rank import Ranking, Standing

Row = dict[str, Any]

OUTPUT_PER_GPU = "output tokens/s/GPU"
ALWAYS = 0
"""The priority of a column that a table is nothing without."""

BRACKET = ")"
"""What a cell with an interval ends with."""

TIE = "="
"""Behind the rank of a candidate that cannot be told apart from the first."""


@dataclass(frozen=True)
class Column:
    """One column: `text` turns a row into its cell; `once` leaves it empty on a candidate's later rows.

    Where a table is too wide, the columns of the highest `priority` are left out first, those of
    ALWAYS never. A column that is `below` is never broken over lines: its cells are listed under the
    table instead. `marks` explains what some of its cells end with.
    """

    title: str
    text: Callable[[Row], str]
    right: bool = True
    once: bool = False
    priority: int = ALWAYS
    below: bool = False
    marks: Mapping[str, str] = field(default_factory=dict)


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
    winner: int | None = None
    shared: tuple[str, ...] = ()

    @property
    def titles(self) -> list[str]:
        """Column titles in order."""
        return [column.title for column in self.columns]

    @property
    def right(self) -> list[str]:
        """Titles of the columns that are right-aligned."""
        return [column.title for column in self.columns if column.right]

    def texts(self) -> list[dict[str, str]]:
        """Every row as text by column title."""
        found = []
        for before, row in zip((None, *self.rows), self.rows, strict=False):
            later = before is not None and "rank" in row and before["rank"] == row["rank"]
            found.append({c.title: "" if later and c.once else c.text(row) for c in self.columns})
        return found

    def legends(self, titles: Sequence[str] | None = None) -> list[str]:
        """What brackets and marks mean that stand in these columns, in all of them where none are named."""
        shown = self.titles if titles is None else titles
        texts = self.texts()
        brackets = legend(row[title] for title in shown for row in texts)
        marks = [
            (mark, text)
            for column in self.columns
            if column.title in shown
            for mark, text in column.marks.items()
            if any(row[column.title].endswith(mark) for row in texts)
        ]
        brackets = " ".join([brackets, *(text for mark, text in marks if mark == BRACKET)])
        marked = any(row[title].endswith(MARK) for title in shown for row in texts)
        others = (text for mark, text in marks if mark != BRACKET)
        return [text for text in (brackets, *others, LEGEND if marked else "") if text]


def rows(ranking: Ranking, trials: Sequence[Trial], experiment: Experiment, limit: int | None = None) -> Table:
    """The ranked table, at most `limit` candidates of it, each with the figures of all its launches.

    A candidate that stands at one load point is one row; one that is compared over several load
    points has a row for each, because figures at different loads cannot be averaged.
    """
    by_number = {candidate.trial.number: candidate for candidate in candidates(trials, experiment)}
    names = Names.ranked(ranking)
    shown = ranking.standings[:limit]
    body: list[Row] = []
    for standing in shown:
        pooled = by_number[standing.trial]
        head = _head(standing, names)
        body += [
            head | _figures(result, pooled, experiment)
            for result in pooled.trial.results
            if result.load_point in standing.load_points
        ] or [head | _NO_FIGURES]
    return Table(
        _columns(ranking, experiment, body),
        tuple(body),
        _notes(ranking, shown, body, names),
        0 if body and ranking.winner else None,
        tuple(names.shared()),
    )


_NO_FIGURES: Row = {
    **dict.fromkeys(("scenario", "load", "n", "ttft", "tpot", "e2e", "output_throughput_per_gpu", "attainment")),
    **dict.fromkeys(("cost", "gpus", "gpu_use", "joules_per_token", "verdict", "launches")),
    "near": (),
}


def _head(standing: Standing, names: Names) -> Row:
    return {
        "rank": standing.rank,
        "tied": standing.tied,
        "trial": standing.trial,
        "candidate": names.short(standing.candidate),
        "parameters": dict(standing.candidate.parameters),
        "source": standing.source,
        "value": standing.value,
        "interval": standing.interval,
        "score": standing.score,
        "gain": standing.gain,
        "failure": standing.failure.kind.value if standing.failure else None,
        "reason": standing.reason,
    }


def _figures(result: LoadPointResult, pooled: PooledCandidate, experiment: Experiment) -> Row:
    metrics, gpus = result.metrics, pooled.trial.candidate.gpus
    return {
        "launches": pooled.launches.get(result.load_point, 1),
        "scenario": result.load_point.scenario,
        "load_point": result.load_point,
        "load": load(result.load_point),
        "n": metrics.requests,
        "ttft": metrics.ttft,
        "tpot": metrics.tpot,
        "e2e": metrics.e2e,
        "output_throughput_per_gpu": output_throughput_per_gpu(metrics, gpus),
        "attainment": metrics.attainment,
        "cost": cost(metrics, gpus, experiment.hardware.price_per_gpu_hour),
        "gpus": gpus,
        "gpu_use": result.gpu_use,
        "joules_per_token": result.joules_per_token,
        "verdict": result.verdict.value,
        "near": near(result, experiment.slo),
    }


def _columns(ranking: Ranking, experiment: Experiment, body: Sequence[Row]) -> tuple[Column, ...]:
    objective = ranking.objective
    load_title = "rate" if not experiment.benchmark.num_concurrency else "load"
    sources = {row["source"] for row in body}
    columns = [
        Column("#", _rank, once=True, marks={TIE: TIED}),
        Column("trial", lambda row: str(row["trial"]), once=True),
        Column("candidate", lambda row: str(row["candidate"]), right=False, once=True, priority=5, below=True),
        Column("scenario", lambda row: row["scenario"] or "", right=False),
        Column(load_title, lambda row: row["load"] or ""),
        Column("launches", lambda row: str(row["launches"] or ""), priority=3),
        Column("n", lambda row: "" if row["n"] is None else f"{row['n']:,}", priority=7),
        Column("TTFT ms", lambda row: _mean(row["ttft"], 1e3), priority=1),
        Column("TTFT p99 ms", lambda row: with_interval(row["ttft"], "p99", 1e3), priority=8),
        Column("TPOT ms", lambda row: _mean(row["tpot"], 1e3), priority=1),
        Column("E2E s", lambda row: _mean(row["e2e"], 1.0), priority=ALWAYS if objective == "minimize_latency" else 6),
        Column(OUTPUT_PER_GPU, lambda row: number(row["output_throughput_per_gpu"])),
    ]
    if len(experiment.benchmark.traffic_scenarios) == 1:
        columns = [column for column in columns if column.title != "scenario"]
    if not any((row["launches"] or 0) > 1 for row in body):
        columns = [column for column in columns if column.title != "launches"]
    if experiment.slo.terms:
        columns.append(Column("SLO met %", lambda row: _percent(row["attainment"]), priority=2))
    if shows_cost(experiment, (row["gpus"] for row in body)):
        columns.append(cost_column(experiment, priority=ALWAYS if objective == "minimize_cost" else 4))
    if any(row["gpu_use"] for row in body):
        columns.append(
            Column("W", lambda row: number(row["gpu_use"].mean_watts if row["gpu_use"] else None), priority=10)
        )
        columns.append(Column("J/output token", lambda row: number(row["joules_per_token"]), priority=10))
    return (
        *_with_value(columns, ranking, experiment),
        Column("score", lambda row: number(row["score"]), once=True, priority=9),
        Column("verdict", verdict, right=False),
        Column(
            "source",
            lambda row: str(row["source"]),
            right=False,
            once=True,
            # a note says it where it is the same everywhere
            priority=11 if len(sources) == 1 else ALWAYS,
        ),
    )


def cost_column(experiment: Experiment, *, priority: int) -> Column:
    """What a million output tokens cost, in currency where a price is known, else in GPU-seconds."""
    title = cost_unit(experiment.hardware.price_per_gpu_hour)
    return Column(title, lambda row: number(row["cost"]), priority=priority)


def shows_cost(experiment: Experiment, gpus: Iterable[int | None]) -> bool:
    """Whether what tokens cost sets candidates of so many GPUs apart: by a price, by the objective, or by these."""
    priced = experiment.hardware.price_per_gpu_hour is not None
    differ = len(set(gpus) - {None}) > 1
    return priced or differ or experiment.optimization.objective == "minimize_cost"


def _several(ranking: Ranking) -> bool:
    return any(len(standing.load_points) > 1 for standing in ranking.standings)


_SHORT = {
    "minimize_latency": ("E2E s", 1.0),
    "minimize_ttft": ("TTFT ms", 1e3),
    "minimize_tpot": ("TPOT ms", 1e3),
    "maximize_goodput": ("good requests/s", 1.0),
}
"""Titles of objectives' figures and what they are multiplied with; others are called by their unit."""


def _with_value(columns: Sequence[Column], ranking: Ranking, experiment: Experiment) -> list[Column]:
    """The columns with the objective's figure and its interval: in place of the column that has it, else the last."""
    figure, scale = _SHORT.get(ranking.objective, (ranking.unit, 1.0))
    title = f"{figure}, geometric mean" if _several(ranking) else figure
    again = any(standing.launches > 1 for standing in ranking.standings)
    text = "takes in how much launches differ" if again else "is that of one launch, as none was repeated"

    def value(row: Row) -> str:
        return estimate(row["value"], row["interval"], scale)

    column = Column(title, value, once=True, marks={BRACKET: f"The interval of {figure} {text}."})
    if any(other.title == title for other in columns):
        return [column if other.title == title else other for other in columns]
    return [*columns, column]


TIED = f"{TIE} behind a rank: these measurements cannot tell it from the first."


def _rank(row: Row) -> str:
    return f"{row['rank']}{TIE if row['tied'] else ''}"


def _mean(distribution: Any, scale: float) -> str:
    return "" if distribution is None else number(distribution.mean * scale)


def _percent(value: Share | None) -> str:
    return share(value).replace("%", "")


def verdict(row: Row) -> str:
    """How a row came out: its failure, else its verdict and whether it is near a target."""
    text = str(row["failure"] or row["verdict"] or "incomplete")
    return text + MARK if row["near"] and not row["failure"] else text


def _notes(ranking: Ranking, shown: Sequence[Standing], body: Sequence[Row], names: Names) -> tuple[str, ...]:
    notes = [source_note(ranking)]
    for standing in shown:
        who = f"#{standing.rank}, {names.named(standing.candidate)}"
        if standing.verdict is not Verdict.FEASIBLE:
            notes.append(sentence(f"{who}: {standing.reason}"))
        notes += [
            f"{who} is near a target at {row['load_point']}: {described(row['near'])}."
            for row in body
            if row["rank"] == standing.rank and row["near"]
        ]
    left = len(ranking.standings) - len(shown)
    if left:
        notes.append(f"{left} more not shown.")
    return tuple(note for note in notes if note)
