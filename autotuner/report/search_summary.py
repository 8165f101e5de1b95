"""Summarizes a search: its cost, skipped candidates, stop reason, and the winner's gain over the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from autotuner.core import Trial
from autotuner.errors import as_sentence, pluralize
from autotuner.experiment import Experiment
from autotuner.report.formatting import format_number
from autotuner.report.refused import refusal_records
from autotuner.report.run_view import RunView
from autotuner.scoring.conclusion import Conclusion, Situation
from autotuner.scoring.confirm import Gain
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.pool import STEADY_STATE_VERDICTS, pool_results
from autotuner.scoring.rank import Ranking, Standing
from autotuner.scoring.reasons import pooled_reason

MAX_NAMED_LOAD_POINTS = 2
"""Unjudged load points that are listed by name."""

MAX_NAMED_TIES = 20
"""Candidates tied with the winner that are listed by number."""


def search_sentences(view: RunView) -> list[str]:
    """Sentences: cost of the search, result of the defaults, refuted winners, gain, ties, stop reason."""
    conclusion, stop_reason = view.conclusion, view.search_report.stop_reason
    return [
        _effort_sentence(view),
        *_defaults_sentences(conclusion, view.ranking),
        *(_refuted_sentence(standing) for standing in conclusion.refuted_standings),
        *gain_sentences(conclusion, view.experiment),
        *tie_sentences(view.ranking),
        *_unjudged_sentences(view),
        *([as_sentence(f"The search stopped: {stop_reason}")] if stop_reason else []),
    ]


def search_record(view: RunView) -> dict[str, Any]:
    """The summary as JSON-ready data; `gain` is None if nothing was confirmed."""
    conclusion, gain, search_report = view.conclusion, view.conclusion.gain, view.search_report
    search_trials = [trial for trial in view.trials if trial.purpose != "confirmation"]
    return {
        "strategy": view.experiment.optimization.strategy,
        "situation": conclusion.situation.value,
        "candidates": search_report.candidate_count,
        "launches": len(search_trials),
        "confirmations": len(view.trials) - len(search_trials),
        "load_points": _load_point_count(search_trials),
        "gain": {**asdict(gain), "reliable": gain.is_reliable} if gain else None,
        "refuted": [standing.trial_number for standing in conclusion.refuted_standings],
        "stopped": search_report.stop_reason,
        "skipped": refusal_records(search_report.skipped),
    }


def _effort_sentence(view: RunView) -> str:
    """Launches and load points used, compared with a grid search over all candidates."""
    experiment, candidate_count = view.experiment, view.search_report.candidate_count
    search_trials = [trial for trial in view.trials if trial.purpose != "confirmation"]
    confirmations = len(view.trials) - len(search_trials)
    effort = f"{pluralize(len(search_trials), 'launch', 'launches')} and "
    effort += pluralize(_load_point_count(search_trials), "load point")
    effort += f", and {pluralize(confirmations, 'launch', 'launches')} to confirm the winner" if confirmations else ""
    has_baseline = any(trial.purpose == "baseline" for trial in view.trials)
    grid_launches = None if candidate_count is None else candidate_count + has_baseline
    launched = len({trial.candidate.key for trial in search_trials})
    if grid_launches is None or grid_launches <= launched:
        return f"The search took {effort}."
    grid_effort = f"{grid_launches} launches"
    if not experiment.benchmark.find_capacity:
        grid_effort += f" and {pluralize(grid_launches * len(experiment.workload().load_points), 'load point')}"
    grid_text = f"all {candidate_count} candidates{' and the defaults' if has_baseline else ''}"
    return f"The search took {effort}; a grid search over {grid_text} needs {grid_effort}."


def _defaults_sentences(conclusion: Conclusion, ranking: Ranking) -> list[str]:
    standing = conclusion.defaults
    if standing is None:
        return []
    result = "no result" if standing.value is None else f"{format_number(standing.value)} {ranking.unit}"
    text = f"The engine's own defaults, trial {standing.trial_number}, gave {result}: {standing.reason}"
    return [as_sentence(text)]


def _refuted_sentence(standing: Standing) -> str:
    launches = pluralize(standing.confirmation_count, "confirmation launch", "confirmation launches")
    return as_sentence(
        f"Trial {standing.trial_number} was best after the search but, with {launches}, misses the targets: "
        f"{standing.reason}"
    )


def gain_sentences(conclusion: Conclusion, experiment: Experiment) -> list[str]:
    """The winner's gain over the engine's defaults, in at most one sentence."""
    winner, gain = conclusion.winner, conclusion.gain
    comparison = _gain_text(gain, experiment) if gain else ""
    launches = f"on {pluralize(winner.confirmation_count, 'fresh launch', 'fresh launches')}" if winner else ""
    match conclusion.situation:
        case Situation.NOTHING_MEASURED if conclusion.common_failure is not None:
            return [f"Every launch failed the same way: {conclusion.common_failure.value}."]
        case Situation.NOTHING_MEASURED if conclusion.error_summary:
            return [f"No request was answered: {conclusion.error_summary}."]
        case Situation.NOTHING_MEASURED:
            return ["Every launch failed."]
        case Situation.NOTHING_FEASIBLE:
            return ["No candidate tried meets the targets."]
        case Situation.DEFAULTS_ALONE:
            return ["Only the engine's own defaults were measured."]
        case Situation.DEFAULTS_ARE_BEST:
            return ["No candidate tried is better than the engine's own defaults."]
        case Situation.DEFAULTS_FAILED:
            return ["No gain is claimed: the engine's own defaults gave no result to compare with."]
        case Situation.DEFAULTS_MISS:
            status = (
                f"Confirmed {launches}" if winner and winner.confirmation_count else "Not confirmed on fresh launches"
            )
            return [f"{status}: the winner meets the targets, which the engine's own defaults miss."]
        case Situation.GAIN:
            return [f"Confirmed: {comparison}."]
        case Situation.TIE:
            return [f"No significant gain, so the defaults are kept: {comparison}."]
        case Situation.LOSS:
            return [f"The confirmation launches do not reproduce the gain: {comparison}."]
        case Situation.UNCONFIRMED:
            return [_unconfirmed_sentence(experiment)]
        case Situation.DEFAULTS_NOT_LAUNCHED if experiment.deployment.mode != "external":
            return ["No gain is claimed: the engine's own defaults were not launched (optimization.baseline is false)."]
    return []


def _gain_text(gain: Gain, experiment: Experiment) -> str:
    """The gain with its interval, such as `1.22x ... (95% confidence interval 1.15 to 1.29; 2 and 3 launches)`."""
    comparison = OBJECTIVES[experiment.optimization.objective].comparison_phrase
    interval_text = f"95% confidence interval {gain.low:.2f} to {gain.high:.2f}"
    if gain.is_deterministic:
        interval_text = "deterministic: every launch gave the same result"
    launches = f"{gain.winner} and {gain.baseline} launches"
    return f"{gain.value:.2f}x {comparison} the engine's own defaults ({interval_text}; {launches})"


def _unconfirmed_sentence(experiment: Experiment) -> str:
    if experiment.optimization.confirm:
        return (
            "No gain is claimed: the run ended before the winner and the engine's own defaults were launched again, "
            "so the variation between launches is unknown."
        )
    return (
        "No gain is claimed: optimization.confirm is 0, so nothing was launched again and the variation "
        "between launches is unknown."
    )


def tie_sentences(ranking: Ranking) -> list[str]:
    """The candidates that do not differ significantly from the winner."""
    tied = [standing for standing in ranking.standings if standing.is_tied]
    if ranking.winner is None or not tied:
        return []
    names = ", ".join(
        "the defaults" if s.trial_number == ranking.baseline_trial_number else f"trial {s.trial_number}"
        for s in tied[:MAX_NAMED_TIES]
    )
    more = f" and {len(tied) - MAX_NAMED_TIES:,} more" if len(tied) > MAX_NAMED_TIES else ""
    return [f"Tied with the winner (no significant difference): {names}{more}."]


def _unjudged_sentences(view: RunView) -> list[str]:
    """Load points that were measured but could not be judged, with the reason."""
    ranking, slo = view.ranking, view.experiment.slo
    standing_by_key = {standing.candidate.key: standing for standing in ranking.standings}
    lines = []
    for launches in view.launches:
        standing = standing_by_key[launches.candidate.key]
        judged = set(standing.load_points)
        for point in launches.load_points if standing.value is not None else ():
            if point in judged:
                continue
            pooled = pool_results(launches.results_at(point), slo)
            if pooled.verdict not in STEADY_STATE_VERDICTS:
                name = (
                    "the defaults"
                    if standing.trial_number == ranking.baseline_trial_number
                    else f"trial {standing.trial_number}"
                )
                lines.append(f"{name} at {point} is {pooled.verdict} ({pooled_reason(pooled, slo)})")
    if not lines:
        return []
    more = f"; and {len(lines) - MAX_NAMED_LOAD_POINTS} more" if len(lines) > MAX_NAMED_LOAD_POINTS else ""
    return [f"Not judged: {'; '.join(lines[:MAX_NAMED_LOAD_POINTS])}{more}."]


def _load_point_count(trials: Sequence[Trial]) -> int:
    return sum(len(trial.measurement.load_points) for trial in trials)
