"""The winners of several experiments beside each other, with marks for those that no other one beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotuner.core import LoadPointResult
from autotuner.report.formatting import SOURCE_NOTES, format_number, format_share
from autotuner.report.markdown import table_markdown
from autotuner.report.run_view import RunView
from autotuner.report.table import Column, Row, Table
from autotuner.scoring.objective import COST, output_throughput_per_gpu
from autotuner.scoring.rank import Standing

PARETO_MARK = "yes"


@dataclass(frozen=True)
class ExperimentWinner:
    """The winner of one experiment, with its figures at the load at which it is ranked; None without a winner."""

    name: str
    view: RunView
    standing: Standing | None
    result: LoadPointResult | None

    @property
    def throughput(self) -> float | None:
        """Output tokens/s per GPU."""
        if self.result is None or self.standing is None:
            return None
        return output_throughput_per_gpu(self.result.metrics, self.standing.candidate.gpus)

    @property
    def interactivity(self) -> float | None:
        """Output tokens/s of one user."""
        return self.result.metrics.interactivity if self.result else None

    @property
    def cost(self) -> float | None:
        """Cost of a million output tokens; None without a price."""
        price = self.view.experiment.hardware.price_per_gpu_hour
        if self.result is None or self.standing is None or price is None:
            return None
        return COST.value(self.result.metrics, self.standing.candidate.gpus, price)


def experiment_winners(views: Mapping[str, RunView]) -> list[ExperimentWinner]:
    """The winner of each experiment."""
    winners = []
    for name, view in views.items():
        standing = view.ranking.winner
        result = None
        if standing is not None:
            pooled = view.pooled[standing.trial_number].trial.measurement.latest_results
            result = next((pooled[point] for point in standing.load_points if point in pooled), None)
        winners.append(ExperimentWinner(name, view, standing, result))
    return winners


def undominated(winners: Sequence[ExperimentWinner]) -> set[str]:
    """Names of the winners that no other one beats in throughput per GPU, interactivity and, where known, cost."""
    points = {
        winner.name: (winner.throughput, winner.interactivity, None if winner.cost is None else -winner.cost)
        for winner in winners
        if winner.throughput and winner.interactivity
    }

    def dominates(first: str, second: str) -> bool:
        pairs = [(a, b) for a, b in zip(points[first], points[second], strict=True) if a is not None and b is not None]
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    return {name for name in points if not any(dominates(other, name) for other in points)}


def experiments_table(views: Mapping[str, RunView]) -> Table:
    """A row for each experiment, in their order."""
    winners = experiment_winners(views)
    best = undominated(winners)
    notes = [
        SOURCE_NOTES[source] for view in views.values() for source in view.ranking.sources if source in SOURCE_NOTES
    ]
    sources = {source for view in views.values() for source in view.ranking.sources}
    if len(sources) > 1:
        notes.append("Figures of different sources are not comparable.")
    notes.append(
        "Pareto: no other winner has more output tokens/s/GPU, more tokens/s per user and a lower cost at once."
    )
    return Table(_COLUMNS, tuple(_row(winner, best) for winner in winners), tuple(dict.fromkeys(notes)))


def _row(winner: ExperimentWinner, best: set[str]) -> Row:
    experiment, standing = winner.view.experiment, winner.standing
    return {
        "experiment": winner.name,
        "engine": experiment.base_runtime,
        "gpus": f"{standing.candidate.gpus} x {experiment.hardware.gpu_type or 'GPU'}" if standing else "",
        "winner": winner.view.names.short_name(standing.candidate) if standing else "none meets the targets",
        "load": str(standing.load_point) if standing and standing.load_point else "",
        "throughput": winner.throughput,
        "interactivity": winner.interactivity,
        "ttft": winner.result.metrics.ttft.p50 if winner.result and winner.result.metrics.ttft else None,
        "cost": winner.cost,
        "attainment": standing.attainment if standing else None,
        "verdict": str(standing.verdict) if standing else "",
        "pareto": PARETO_MARK if winner.name in best else "",
        "source": ", ".join(winner.view.ranking.sources),
    }


def _number(name: str, scale: float = 1.0) -> Any:
    return lambda row: format_number(None if row[name] is None else row[name] * scale)


_COLUMNS = (
    Column("experiment", lambda row: row["experiment"], numeric=False),
    Column("engine", lambda row: row["engine"], numeric=False, drop_priority=3),
    Column("GPUs", lambda row: row["gpus"], numeric=False, drop_priority=2),
    Column("winner", lambda row: row["winner"], numeric=False, drop_priority=7, listed_below=True),
    Column("load", lambda row: row["load"], numeric=False, drop_priority=6),
    Column("output tokens/s/GPU", _number("throughput")),
    Column("tokens/s per user", _number("interactivity")),
    Column("TTFT p50 ms", _number("ttft", 1000), drop_priority=1),
    Column("cost of 1M tokens", _number("cost"), drop_priority=4),
    Column("SLO met", lambda row: format_share(row["attainment"]), drop_priority=5),
    Column("verdict", lambda row: row["verdict"], numeric=False),
    Column("Pareto", lambda row: row["pareto"], numeric=False),
    Column("source", lambda row: row["source"], numeric=False, drop_priority=8),
)


def experiments_markdown(views: Mapping[str, RunView]) -> str:
    """The table and its notes as a page."""
    table = experiments_table(views)
    notes = "\n".join(f"- {note}" for note in table.notes)
    return f"# Winners of {len(views)} experiments\n\n{table_markdown(table)}\n\n{notes}\n"


def experiments_record(views: Mapping[str, RunView], paths: Mapping[str, str]) -> dict[str, Any]:
    """The rows as JSON-ready data, with the run folder of each."""
    winners = experiment_winners(views)
    best = undominated(winners)
    return {
        "experiments": [
            {
                "experiment": winner.name,
                "run": paths[winner.name],
                "runtime": winner.view.experiment.base_runtime,
                "sources": list(winner.view.ranking.sources),
                "winner": dict(winner.standing.candidate.parameters) if winner.standing else None,
                "gpus": winner.standing.candidate.gpus if winner.standing else None,
                "value": winner.standing.headline_value if winner.standing else None,
                "unit": winner.view.ranking.unit,
                "output_throughput_per_gpu": winner.throughput,
                "interactivity": winner.interactivity,
                "cost_per_million_output_tokens": winner.cost,
                "verdict": str(winner.standing.verdict) if winner.standing else None,
                "pareto": winner.name in best,
            }
            for winner in winners
        ]
    }
