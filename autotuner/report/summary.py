"""A run in one sentence: its winner, or the failure that all its launches had."""

from __future__ import annotations

from autotuner.errors import pluralize
from autotuner.report.formatting import failure_text, format_number
from autotuner.report.objective_text import objective_value_text
from autotuner.report.run_view import RunView
from autotuner.scoring.rank import Standing


def common_failure_sentence(view: RunView) -> str:
    """The failure that every launch ended with, in the words of the first, and its remedy; empty where they differ."""
    failure = view.trials[0].measurement.failure if view.trials else None
    if failure is None or view.conclusion.common_failure is not failure.kind:
        return ""
    count = len(view.trials)
    heading = "The only launch failed" if count == 1 else f"All {count} launches failed"
    return f"{heading}, {failure_text(failure)}"


def winner_sentence(view: RunView) -> str:
    """Name, value, load, number of launches, verdict and source of the winner; empty without a winner.

    The value is pooled over all launches, as in the table. That of the confirmation launches alone, which
    played no part in the selection and so carry no selection bias, is given beside it.
    """
    ranking, winner = view.ranking, view.ranking.winner
    if winner is None:
        return ""
    name = view.names.full_name(winner.candidate)
    value_text = objective_value_text(ranking.objective, winner.value, ranking.unit, winner.interval)
    launches = _launches_text(winner)
    scope = f"at {winner.load_point}{', over ' if launches else ''}" if winner.load_point else "over all load points"
    joiner = "" if winner.load_point or not launches else " and "
    return f"Winner: {name}: {value_text} {scope}{joiner}{launches}; {winner.verdict}, {winner.source}."


def _launches_text(winner: Standing) -> str:
    if winner.launch_count < 2:
        return ""
    confirmed = ""
    if winner.confirmation_value is not None and winner.confirmation_count < winner.launch_count:
        launches = pluralize(winner.confirmation_count, "confirmation launch", "confirmation launches")
        confirmed = f" ({format_number(winner.confirmation_value)} on {launches} alone)"
    return f"{winner.launch_count} launches{confirmed}"
