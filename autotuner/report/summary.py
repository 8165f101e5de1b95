"""The winner of a run in one sentence."""

from __future__ import annotations

from autotuner.report.candidate_names import CandidateNames
from autotuner.report.formatting import format_number
from autotuner.report.objective_text import figure_text
from autotuner.scoring.rank import Ranking, Standing


def winner_sentence(ranking: Ranking) -> str:
    """What won and with what figure, at which load, over how many launches, and who answered; empty without a winner.

    The figure is that of the table, over all launches; beside it stands what the fresh ones came to,
    by which nothing was chosen.
    """
    winner = ranking.winner
    if winner is None:
        return ""
    figure = figure_text(ranking.objective, winner.value, ranking.unit, winner.interval)
    launches = _launches_text(winner)
    where = f"at {winner.load_point}{', over ' if launches else ''}" if winner.load_point else "over all load points"
    both = "" if winner.load_point or not launches else " and "
    return (
        f"Winner: {CandidateNames.from_ranking(ranking).full_name(winner.candidate)}: {figure} {where}{both}{launches}; "
        f"{winner.verdict}, {winner.source}."
    )


def _launches_text(winner: Standing) -> str:
    if winner.launch_count < 2:
        return ""
    fresh = ""
    if winner.confirmation_value is not None and winner.confirmation_count < winner.launch_count:
        several = "" if winner.confirmation_count == 1 else f"{winner.confirmation_count} "
        fresh = f" ({format_number(winner.confirmation_value)} on the {several}fresh one{'s' if several else ''} alone)"
    return f"{winner.launch_count} launches{fresh}"
