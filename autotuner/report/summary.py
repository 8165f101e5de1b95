"""The winner of a run in one sentence."""

from __future__ import annotations

from autotuner.experiment import Experiment
from autotuner.report.figures import number
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.rank import Ranking


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
