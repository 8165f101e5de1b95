"""The frontier as a table, and the winner in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.core import Trial
from autotuner.experiment import Experiment
from autotuner.report.figures import differing, label, load, number
from autotuner.report.table import Column, Row, Table
from autotuner.scoring.judge import judge
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.pareto import AXES, points
from autotuner.scoring.rank import Ranking

AXES_SHOWN = ("throughput", "interactivity", "ttft")


def frontier(trials: Sequence[Trial], experiment: Experiment) -> Table:
    """The load points no other beats in throughput per GPU, interactivity and TTFT, most interactive first."""
    judged = [judge(trial, experiment) for trial in trials]
    found = points(judged, experiment, [AXES[name] for name in AXES_SHOWN])
    names = differing(trials)
    members: list[Row] = [
        {
            "trial": point.trial.number,
            "candidate": label(point.trial.candidate, names),
            "scenario": point.result.load_point.scenario,
            "load": load(point.result.load_point),
            **dict(zip(AXES_SHOWN, point.at, strict=True)),
            "verdict": point.result.verdict.value,
            "source": point.result.source,
        }
        for point in found
        if point.on_frontier
    ]
    members.sort(key=lambda row: (-row["interactivity"], -row["throughput"]))
    return Table(_COLUMNS, tuple(members))


_COLUMNS = (
    Column("trial", lambda row: str(row["trial"])),
    Column("candidate", lambda row: str(row["candidate"]), right=False),
    Column("scenario", lambda row: str(row["scenario"]), right=False),
    Column("load", lambda row: str(row["load"])),
    Column("tokens/s/GPU", lambda row: number(row["throughput"])),
    Column("tokens/s/user", lambda row: number(row["interactivity"])),
    Column("TTFT ms", lambda row: number(row["ttft"] * 1e3)),
    Column("verdict", lambda row: str(row["verdict"]), right=False),
    Column("source", lambda row: str(row["source"]), right=False),
)


def sentence(ranking: Ranking, experiment: Experiment) -> str:
    """What won, and on whose word; empty without a winner."""
    winner = ranking.winner
    if winner is None:
        return ""
    objective = OBJECTIVES[ranking.objective]
    where = f"at {winner.load_point}" if winner.load_point else "over all load points"
    again = f" on {winner.confirmations} fresh launches" if winner.confirmations > 1 else ""
    again = " on a fresh launch" if winner.confirmations == 1 else again
    return (
        f"Winner: trial {winner.trial} ({winner.candidate}), {objective.label} {number(winner.headline)} "
        f"{ranking.unit} {where}{again}; {winner.verdict}, {winner.source}."
    )
