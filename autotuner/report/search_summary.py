"""What a search spent, what it left out, why it stopped, and what its gain is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from autotuner.core import Trial
from autotuner.errors import pluralize
from autotuner.experiment import Experiment
from autotuner.report.formatting import format_number
from autotuner.report.refused import RefusedCandidates, reason_lines, refusal_records
from autotuner.scoring.conclusion import Conclusion, Situation, conclude
from autotuner.scoring.confirm import Gain
from autotuner.scoring.judge import judge
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.pool import STEADY_STATE_VERDICTS, group_by_candidate, pool_results
from autotuner.scoring.rank import Ranking, Standing
from autotuner.scoring.reasons import pooled_reason
from autotuner.search.protocol import SearchReport

MAX_NAMED_LOAD_POINTS = 2
"""Load points named of those that say nothing."""


def search_sentences(
    ranking: Ranking, trials: Sequence[Trial], experiment: Experiment, search_report: SearchReport
) -> list[str]:
    """What was spent, how the engine's defaults did, what was refuted, what the gain is worth, why it stopped."""
    conclusion = conclude(ranking, trials, experiment)
    return [
        _effort_sentence(trials, experiment, search_report),
        *_defaults_sentences(conclusion, ranking),
        *(_refuted_sentence(standing) for standing in conclusion.refuted_standings),
        *_gain_sentences(conclusion, experiment),
        *_tie_sentences(ranking),
        *_unjudged_sentences(ranking, trials, experiment),
        *([f"The search stopped: {search_report.stop_reason}."] if search_report.stop_reason else []),
    ]


def skipped_lines(search_report: SearchReport, experiment: Experiment) -> list[str]:
    """One line for each reason for which candidates were not launched."""
    skipped: RefusedCandidates = search_report.skipped
    return reason_lines(skipped, experiment)


def search_record(
    ranking: Ranking, trials: Sequence[Trial], experiment: Experiment, search_report: SearchReport
) -> dict[str, Any]:
    """The same as JSON-ready data; `gain` is None where nothing was confirmed."""
    conclusion = conclude(ranking, trials, experiment)
    searching = [trial for trial in trials if trial.purpose != "confirmation"]
    confirmed = conclusion.gain
    return {
        "strategy": experiment.optimization.strategy,
        "situation": conclusion.situation.value,
        "candidates": search_report.candidate_count,
        "launches": len(searching),
        "confirmations": len(trials) - len(searching),
        "load_points": _load_point_count(searching),
        "gain": {**asdict(confirmed), "reliable": confirmed.is_reliable} if confirmed else None,
        "refuted": [standing.trial_number for standing in conclusion.refuted_standings],
        "stopped": search_report.stop_reason,
        "skipped": refusal_records(search_report.skipped),
    }


def _effort_sentence(trials: Sequence[Trial], experiment: Experiment, search_report: SearchReport) -> str:
    """Launches and load points, beside those of a grid over everything that could have been launched."""
    searching = [trial for trial in trials if trial.purpose != "confirmation"]
    again = len(trials) - len(searching)
    spent = f"{pluralize(len(searching), 'launch', 'launches')} and "
    spent += pluralize(_load_point_count(searching), "load point")
    spent += f", and {pluralize(again, 'launch', 'launches')} to confirm the winner" if again else ""
    defaults = any(trial.purpose == "baseline" for trial in trials)
    every = None if search_report.candidate_count is None else search_report.candidate_count + defaults
    tried = len({trial.candidate.key for trial in searching})
    if every is None or every <= tried:
        return f"The search took {spent}."
    takes = f"{every} launches"
    if not experiment.benchmark.find_capacity:
        takes += f" and {pluralize(every * len(experiment.workload().load_points), 'load point')}"
    named = f"all {search_report.candidate_count} candidates{' and the defaults' if defaults else ''}"
    return f"The search took {spent}; a grid over {named} takes {takes}."


def _defaults_sentences(conclusion: Conclusion, ranking: Ranking) -> list[str]:
    standing = conclusion.defaults
    if standing is None:
        return []
    if standing.value is None:
        return [f"The engine's own defaults, trial {standing.trial_number}, gave no figure: {standing.reason}."]
    return [
        f"The engine's own defaults, trial {standing.trial_number}, gave {format_number(standing.value)} {ranking.unit}: "
        f"{standing.reason}."
    ]


def _refuted_sentence(standing: Standing) -> str:
    again = (
        "its fresh launch" if standing.confirmation_count == 1 else f"its {standing.confirmation_count} fresh launches"
    )
    return f"Trial {standing.trial_number} led after the search; with {again} it misses the targets: {standing.reason}."


def _gain_sentences(conclusion: Conclusion, experiment: Experiment) -> list[str]:
    """What the winner is worth against the engine's defaults, in one sentence."""
    winner, confirmed = conclusion.winner, conclusion.gain
    compared = _gain_text(confirmed, experiment) if confirmed else ""
    again = f"on {pluralize(winner.confirmation_count, 'fresh launch', 'fresh launches')}" if winner else ""
    match conclusion.situation:
        case Situation.NOTHING_MEASURED if conclusion.common_failure is not None:
            return [f"Every launch failed the same way: {conclusion.common_failure.value}."]
        case Situation.NOTHING_MEASURED if conclusion.error_summary:
            return [f"No request was answered: {conclusion.error_summary}."]
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
            said = f"Confirmed {again}" if winner and winner.confirmation_count else "Not confirmed on fresh launches"
            return [f"{said}: the winner meets the targets, which the engine's own defaults miss."]
        case Situation.GAIN:
            return [f"Confirmed: {compared}."]
        case Situation.TIE:
            return [f"No gain is proven, so the defaults stay: {compared}."]
        case Situation.LOSS:
            return [f"Fresh launches do not bear the search out: {compared}."]
        case Situation.UNCONFIRMED:
            return [_unconfirmed_sentence(experiment)]
        case Situation.DEFAULTS_NOT_LAUNCHED if experiment.deployment.mode != "external":
            return ["No gain is claimed: the engine's own defaults were not launched (optimization.baseline is false)."]
    return []


def _gain_text(gain: Gain, experiment: Experiment) -> str:
    """`1.22x the output of the engine's own defaults (95% interval 1.15 to 1.29; 2 and 3 launches)`."""
    against = OBJECTIVES[experiment.optimization.objective].comparison_phrase
    ends = f"95% interval {gain.low:.2f} to {gain.high:.2f}"
    if gain.is_deterministic:
        ends = "deterministic: every launch came to the same"
    launches = f"{gain.winner} and {gain.baseline} launches"
    return f"{gain.value:.2f}x {against} the engine's own defaults ({ends}; {launches})"


def _unconfirmed_sentence(experiment: Experiment) -> str:
    if experiment.optimization.confirm:
        return (
            "No gain is claimed: the run ended before the winner and the engine's own defaults were launched again, "
            "so how much launches differ is not known."
        )
    return (
        "No gain is claimed: optimization.confirm is 0, so nothing was launched again, and how much launches differ "
        "is not known."
    )


def _tie_sentences(ranking: Ranking) -> list[str]:
    """Which candidates cannot be told apart from the winner."""
    tied = [standing for standing in ranking.standings if standing.is_tied]
    if ranking.winner is None or not tied:
        return []
    named = ", ".join(
        "the defaults" if s.trial_number == ranking.baseline_trial_number else f"trial {s.trial_number}" for s in tied
    )
    return [f"Tied with the winner, as far as these measurements tell: {named}."]


def _unjudged_sentences(ranking: Ranking, trials: Sequence[Trial], experiment: Experiment) -> list[str]:
    """Load points beside those the standings rest on whose figures say nothing, with the reason."""
    stands = {standing.candidate.key: standing for standing in ranking.standings}
    lines = []
    for group in group_by_candidate(judge(trial, experiment) for trial in trials):
        standing = stands[group.candidate.key]
        for point in group.load_points if standing.value is not None else ():
            here = pool_results(group.results_at(point), experiment.slo)
            if point not in standing.load_points and here.verdict not in STEADY_STATE_VERDICTS:
                name = (
                    "the defaults"
                    if standing.trial_number == ranking.baseline_trial_number
                    else f"trial {standing.trial_number}"
                )
                lines.append(f"{name} at {point} is {here.verdict} ({pooled_reason(here, experiment.slo)})")
    if not lines:
        return []
    more = f"; and {len(lines) - MAX_NAMED_LOAD_POINTS} more" if len(lines) > MAX_NAMED_LOAD_POINTS else ""
    return [f"Not judged: {'; '.join(lines[:MAX_NAMED_LOAD_POINTS])}{more}."]


def _load_point_count(trials: Sequence[Trial]) -> int:
    return sum(len(trial.measurement.load_points) for trial in trials)
