"""What a search spent, what it left out, why it stopped, and what its gain is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from autotuner.core import Trial
from autotuner.errors import counted
from autotuner.experiment import Experiment
from autotuner.report.formatting import number
from autotuner.report.refused import Refused, reasons, records
from autotuner.scoring.conclusion import Conclusion, Situation, conclude
from autotuner.scoring.confirm import Gain
from autotuner.scoring.judge import judge
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.pool import STEADY, grouped, pooled
from autotuner.scoring.rank import Ranking, Standing
from autotuner.scoring.reasons import pooled_reason
from autotuner.search.account import Account

NAMED = 2
"""Load points named of those that say nothing."""


def sentences(ranking: Ranking, trials: Sequence[Trial], experiment: Experiment, account: Account) -> list[str]:
    """What was spent, how the engine's defaults did, what was refuted, what the gain is worth, why it stopped."""
    conclusion = conclude(ranking, trials, experiment)
    return [
        _spent(trials, experiment, account),
        *_about_defaults(conclusion, ranking),
        *(_refuted(standing) for standing in conclusion.refuted),
        *_verdict(conclusion, experiment),
        *_ties(ranking),
        *_unjudged(ranking, trials, experiment),
        *([f"The search stopped: {account.stopped}."] if account.stopped else []),
    ]


def left_out(account: Account, experiment: Experiment) -> list[str]:
    """One line for each reason for which candidates were not launched."""
    skipped: Refused = account.skipped
    return reasons(skipped, experiment)


def search_record(
    ranking: Ranking, trials: Sequence[Trial], experiment: Experiment, account: Account
) -> dict[str, Any]:
    """The same as JSON-ready data; `gain` is None where nothing was confirmed."""
    conclusion = conclude(ranking, trials, experiment)
    searching = [trial for trial in trials if trial.purpose != "confirmation"]
    confirmed = conclusion.gain
    return {
        "strategy": experiment.optimization.strategy,
        "situation": conclusion.situation.value,
        "candidates": account.candidates,
        "launches": len(searching),
        "confirmations": len(trials) - len(searching),
        "load_points": _load_points(searching),
        "gain": {**asdict(confirmed), "reliable": confirmed.reliable} if confirmed else None,
        "refuted": [standing.trial for standing in conclusion.refuted],
        "stopped": account.stopped,
        "skipped": records(account.skipped),
    }


def _spent(trials: Sequence[Trial], experiment: Experiment, account: Account) -> str:
    """Launches and load points, beside those of a grid over everything that could have been launched."""
    searching = [trial for trial in trials if trial.purpose != "confirmation"]
    again = len(trials) - len(searching)
    spent = f"{counted(len(searching), 'launch', 'launches')} and "
    spent += counted(_load_points(searching), "load point")
    spent += f", and {counted(again, 'launch', 'launches')} to confirm the winner" if again else ""
    defaults = any(trial.purpose == "baseline" for trial in trials)
    every = None if account.candidates is None else account.candidates + defaults
    tried = len({trial.candidate.key for trial in searching})
    if every is None or every <= tried:
        return f"The search took {spent}."
    takes = f"{every} launches"
    if not experiment.benchmark.find_capacity:
        takes += f" and {counted(every * len(experiment.workload().load_points), 'load point')}"
    named = f"all {account.candidates} candidates{' and the defaults' if defaults else ''}"
    return f"The search took {spent}; a grid over {named} takes {takes}."


def _about_defaults(conclusion: Conclusion, ranking: Ranking) -> list[str]:
    standing = conclusion.defaults
    if standing is None:
        return []
    if standing.value is None:
        return [f"The engine's own defaults, trial {standing.trial}, gave no figure: {standing.reason}."]
    return [
        f"The engine's own defaults, trial {standing.trial}, gave {number(standing.value)} {ranking.unit}: "
        f"{standing.reason}."
    ]


def _refuted(standing: Standing) -> str:
    again = "its fresh launch" if standing.confirmations == 1 else f"its {standing.confirmations} fresh launches"
    return f"Trial {standing.trial} led after the search; with {again} it misses the targets: {standing.reason}."


def _verdict(conclusion: Conclusion, experiment: Experiment) -> list[str]:
    """What the winner is worth against the engine's defaults, in one sentence."""
    winner, confirmed = conclusion.winner, conclusion.gain
    compared = _compared(confirmed, experiment) if confirmed else ""
    again = f"on {counted(winner.confirmations, 'fresh launch', 'fresh launches')}" if winner else ""
    match conclusion.situation:
        case Situation.NOTHING_MEASURED if conclusion.cause is not None:
            return [f"Every launch failed the same way: {conclusion.cause.value}."]
        case Situation.NOTHING_MEASURED if conclusion.errors:
            return [f"No request was answered: {conclusion.errors}."]
        case Situation.NOTHING_MEASURED:
            return ["Every launch failed."]
        case Situation.NOTHING_FEASIBLE:
            return ["No candidate that was tried meets the targets."]
        case Situation.DEFAULTS_ALONE:
            return ["Nothing but the engine's own defaults was measured."]
        case Situation.DEFAULTS_ARE_BEST:
            return ["Nothing that was tried is better than the engine's own defaults."]
        case Situation.DEFAULTS_FAILED:
            return ["No gain can be claimed: the engine's own defaults gave no figure to compare with."]
        case Situation.DEFAULTS_MISS:
            said = f"Confirmed {again}" if winner and winner.confirmations else "Not confirmed on fresh launches"
            return [f"{said}: the winner meets the targets, which the engine's own defaults miss."]
        case Situation.GAIN:
            return [f"Confirmed: {compared}."]
        case Situation.TIE:
            return [f"No gain is proven, so the defaults stay: {compared}."]
        case Situation.LOSS:
            return [f"Fresh launches do not bear the search out: {compared}."]
        case Situation.UNCONFIRMED:
            return [_unconfirmed(experiment)]
        case Situation.DEFAULTS_NOT_LAUNCHED if experiment.deployment.mode != "external":
            return ["No gain is claimed: the engine's own defaults were not launched (optimization.baseline is false)."]
    return []


def _compared(confirmed: Gain, experiment: Experiment) -> str:
    """`1.22x the output of the engine's own defaults (95% interval 1.15 to 1.29; 2 and 3 launches)`."""
    against = OBJECTIVES[experiment.optimization.objective].comparison
    ends = f"95% interval {confirmed.low:.2f} to {confirmed.high:.2f}"
    if confirmed.certain:
        ends = "deterministic: every launch came to the same"
    launches = f"{confirmed.winner} and {confirmed.baseline} launches"
    return f"{confirmed.value:.2f}x {against} the engine's own defaults ({ends}; {launches})"


def _unconfirmed(experiment: Experiment) -> str:
    if experiment.optimization.confirm:
        return (
            "No gain is claimed: the run ended before the winner and the engine's own defaults were launched again, "
            "so how much launches differ is not known."
        )
    return (
        "No gain is claimed: optimization.confirm is 0, so nothing was launched again, and how much launches differ "
        "is not known."
    )


def _ties(ranking: Ranking) -> list[str]:
    """Which candidates cannot be told apart from the winner."""
    tied = [standing for standing in ranking.standings if standing.tied]
    if ranking.winner is None or not tied:
        return []
    named = ", ".join("the defaults" if s.trial == ranking.baseline else f"trial {s.trial}" for s in tied)
    return [f"Tied with the winner, as far as these measurements tell: {named}."]


def _unjudged(ranking: Ranking, trials: Sequence[Trial], experiment: Experiment) -> list[str]:
    """Load points beside those the standings rest on whose figures say nothing, with the reason."""
    stands = {standing.candidate.key: standing for standing in ranking.standings}
    lines = []
    for group in grouped(judge(trial, experiment) for trial in trials):
        standing = stands[group.candidate.key]
        for point in group.load_points if standing.value is not None else ():
            here = pooled(group.at(point), experiment.slo)
            if point not in standing.load_points and here.verdict not in STEADY:
                name = "the defaults" if standing.trial == ranking.baseline else f"trial {standing.trial}"
                lines.append(f"{name} at {point} is {here.verdict} ({pooled_reason(here, experiment.slo)})")
    if not lines:
        return []
    more = f"; and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
    return [f"Not judged: {'; '.join(lines[:NAMED])}{more}."]


def _load_points(trials: Sequence[Trial]) -> int:
    return sum(len(trial.measurement.load_points) for trial in trials)
