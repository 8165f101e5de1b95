"""The ranked table as plain data: typed rows, and the same rows as text for whoever draws them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from autotuner.core import LoadPointResult, Share, Trial, Verdict
from autotuner.experiment import Experiment
from autotuner.report.figures import differing, label, load, number, share, source_note, with_interval
from autotuner.scoring.judge import judge
from autotuner.scoring.objective import throughput_per_gpu
from autotuner.scoring.rank import Ranking, Standing

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One column: `text` turns a row into its cell; `once` leaves it empty on a candidate's later rows."""

    title: str
    text: Callable[[Row], str]
    right: bool = True
    once: bool = False


@dataclass(frozen=True)
class Table:
    """Rows in SI units with their columns, the winner's row, and notes to print below.

    Keys of a row: rank, trial, candidate, parameters, scenario, load, n, ttft, tpot, e2e
    (Distribution or None), throughput_per_gpu, attainment (Share or None), gpu_use (GpuUse or
    None), joules_per_token, verdict, source, value, score, gain, failure, reason; None where a
    failed trial has none.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    winner: int | None = None

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


def rows(ranking: Ranking, trials: Sequence[Trial], experiment: Experiment, limit: int | None = None) -> Table:
    """The ranked table, at most `limit` candidates of it.

    A candidate that stands at one load point is one row; one that is compared over several load
    points has a row for each, because figures at different loads cannot be averaged.
    """
    by_number = {trial.number: judge(trial, experiment) for trial in trials}
    names = differing(trials)
    mixed = len({trial.candidate.runtime for trial in trials}) > 1
    found: list[Row] = []
    for standing in ranking.standings[:limit]:
        trial = by_number[standing.trial]
        results = _results(standing, trial)
        head = _head(standing, trial, names, mixed)
        found += [head | _figures(result, trial) for result in results] or [head | _NO_FIGURES]
    shown = ranking.standings[:limit]
    metered = any(row["gpu_use"] for row in found)
    return Table(
        _columns(ranking, experiment, metered=metered),
        tuple(found),
        _notes(ranking, shown),
        0 if found and ranking.winner else None,
    )


_NO_FIGURES: Row = dict.fromkeys(
    (
        *("scenario", "load", "n", "ttft", "tpot", "e2e", "throughput_per_gpu", "attainment"),
        *("gpu_use", "joules_per_token", "verdict"),
    )
)


def _results(standing: Standing, trial: Trial) -> list[LoadPointResult]:
    """The load points a standing rests on."""
    return [result for result in trial.measurement.load_points if result.load_point in standing.load_points]


def _head(standing: Standing, trial: Trial, names: Sequence[str], mixed: bool) -> Row:
    return {
        "rank": standing.rank,
        "trial": standing.trial,
        "candidate": label(trial.candidate, names, runtime=mixed),
        "parameters": dict(trial.candidate.parameters),
        "source": standing.source,
        "value": standing.value,
        "score": standing.score,
        "gain": standing.gain,
        "failure": standing.failure.kind.value if standing.failure else None,
        "reason": standing.reason,
    }


def _figures(result: LoadPointResult, trial: Trial) -> Row:
    metrics = result.metrics
    return {
        "scenario": result.load_point.scenario,
        "load": load(result.load_point),
        "n": metrics.requests,
        "ttft": metrics.ttft,
        "tpot": metrics.tpot,
        "e2e": metrics.e2e,
        "throughput_per_gpu": throughput_per_gpu(metrics, trial.candidate.gpus),
        "attainment": metrics.attainment,
        "gpu_use": result.gpu_use,
        "joules_per_token": result.joules_per_token,
        "verdict": result.verdict.value,
    }


def _columns(ranking: Ranking, experiment: Experiment, *, metered: bool) -> tuple[Column, ...]:
    load_title = "rate" if not experiment.benchmark.num_concurrency else "load"
    columns = [
        Column("#", lambda row: str(row["rank"]), once=True),
        Column("trial", lambda row: str(row["trial"]), once=True),
        Column("candidate", lambda row: str(row["candidate"]), right=False, once=True),
        Column("scenario", lambda row: row["scenario"] or "", right=False),
        Column(load_title, lambda row: row["load"] or ""),
        Column("n", lambda row: "" if row["n"] is None else str(row["n"])),
        Column("TTFT ms", lambda row: _mean(row["ttft"], 1e3)),
        Column("TTFT p99 ms", lambda row: with_interval(row["ttft"], "p99", 1e3)),
        Column("TPOT ms", lambda row: _mean(row["tpot"], 1e3)),
        Column("E2E s", lambda row: _mean(row["e2e"], 1.0)),
        Column("tokens/s/GPU", lambda row: number(row["throughput_per_gpu"])),
    ]
    if len(experiment.benchmark.traffic_scenarios) == 1:
        columns = [column for column in columns if column.title != "scenario"]
    if experiment.slo.terms:
        columns.append(Column("SLO met %", lambda row: _percent(row["attainment"])))
    if metered:
        columns.append(Column("W", lambda row: number(row["gpu_use"].mean_watts if row["gpu_use"] else None)))
        columns.append(Column("J/token", lambda row: number(row["joules_per_token"])))
    if _needs_value(ranking):
        columns.append(Column(_value_title(ranking), lambda row: number(row["value"]), once=True))
    return (
        *columns,
        Column("score", lambda row: number(row["score"]), once=True),
        Column("verdict", _verdict, right=False),
        Column("source", lambda row: str(row["source"]), right=False, once=True),
    )


def _needs_value(ranking: Ranking) -> bool:
    """Whether the objective's figure is in no other column."""
    several = any(len(standing.load_points) > 1 for standing in ranking.standings)
    return several or ranking.objective in ("maximize_goodput", "minimize_cost")


def _value_title(ranking: Ranking) -> str:
    short = {"minimize_latency": "E2E", "minimize_ttft": "TTFT", "minimize_tpot": "TPOT"}.get(ranking.objective)
    return f"{short} s, geometric mean" if short else ranking.unit


def _mean(distribution: Any, scale: float) -> str:
    return "" if distribution is None else number(distribution.mean * scale)


def _percent(value: Share | None) -> str:
    return share(value).replace("%", "")


def _verdict(row: Row) -> str:
    return str(row["failure"] or row["verdict"] or "incomplete")


def _notes(ranking: Ranking, shown: Sequence[Standing]) -> tuple[str, ...]:
    notes = [source_note(ranking)]
    notes += [
        f"#{standing.rank}, trial {standing.trial}: {standing.reason}."
        for standing in shown
        if standing.verdict is not Verdict.FEASIBLE
    ]
    left = len(ranking.standings) - len(shown)
    if left:
        notes.append(f"{left} more not shown.")
    return tuple(note for note in notes if note)
