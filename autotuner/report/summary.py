"""The winner of a run in one sentence."""

from __future__ import annotations

from autotuner.experiment import Experiment
from autotuner.report.figures import number
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.rank import Ranking


def sentence(ranking: Ranking, experiment: Experiment) -> str:
    """What won, by how much, and on whose word; empty without a winner."""
    winner = ranking.winner
    if winner is None:
        return ""
    objective = OBJECTIVES[ranking.objective]
    where = f"at {winner.load_point}" if winner.load_point else "over all load points"
    gain = f", {winner.gain:.2f} times as good as trial {ranking.baseline}" if (winner.gain or 1.0) > 1.005 else ""
    return (
        f"Winner: trial {winner.trial} ({winner.candidate}), {objective.label} {number(winner.value)} {ranking.unit} "
        f"{where}{gain}; {winner.verdict}, {winner.source}."
    )
