"""The winner of a run in one sentence."""

from __future__ import annotations

from autotuner.report.candidate_names import Names
from autotuner.report.formatting import number
from autotuner.report.objective_text import achieved
from autotuner.scoring.rank import Ranking, Standing


def sentence(ranking: Ranking) -> str:
    """What won and with what figure, at which load, over how many launches, and who answered; empty without a winner.

    The figure is that of the table, over all launches; beside it stands what the fresh ones came to,
    by which nothing was chosen.
    """
    winner = ranking.winner
    if winner is None:
        return ""
    figure = achieved(ranking.objective, winner.value, ranking.unit, winner.interval)
    launches = _launches(winner)
    where = f"at {winner.load_point}{', over ' if launches else ''}" if winner.load_point else "over all load points"
    both = "" if winner.load_point or not launches else " and "
    return (
        f"Winner: {Names.ranked(ranking).named(winner.candidate)}: {figure} {where}{both}{launches}; "
        f"{winner.verdict}, {winner.source}."
    )


def _launches(winner: Standing) -> str:
    if winner.launches < 2:
        return ""
    fresh = ""
    if winner.fresh_value is not None and winner.confirmations < winner.launches:
        several = "" if winner.confirmations == 1 else f"{winner.confirmations} "
        fresh = f" ({number(winner.fresh_value)} on the {several}fresh one{'s' if several else ''} alone)"
    return f"{winner.launches} launches{fresh}"
