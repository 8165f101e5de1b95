"""Candidates in order, best first, and the winner.

A candidate is ranked by all its launches together. Latency objectives compare candidates over the same
load points; other objectives take each candidate at its best load point of each scenario. Meeting the
targets comes before the penalised score, and candidates that were pruned, failed or measured incompletely
come last. Among candidates tied with the first, one with confirmation launches comes first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from autotuner.core import Candidate, Failure, LoadPoint, Share, Source, Trial, Verdict
from autotuner.experiment import Experiment
from autotuner.scoring.confirm import EQUIVALENCE_MARGIN, LaunchVariation, gain_between, half_width
from autotuner.scoring.judge import judge
from autotuner.scoring.objective import OBJECTIVES, Objective
from autotuner.scoring.pool import (
    STEADY_STATE_VERDICTS,
    CandidateLaunches,
    PooledLoadPoint,
    group_by_candidate,
    launch_log_utilities,
    log_standard_error,
    pool_results,
)
from autotuner.scoring.reasons import pooled_reason

_VERDICT_ORDER = (
    Verdict.FEASIBLE,
    Verdict.UNDECIDED,
    Verdict.INFEASIBLE,
    Verdict.SATURATED,
    Verdict.CLIENT_LIMITED,
    Verdict.INVALID,
)
_HARD_FAILED_TIER = _VERDICT_ORDER.index(Verdict.INFEASIBLE) + 0.5
_PRUNED_TIER, _INCOMPLETE_TIER, _FAILED_TIER = 9.0, 10.0, 11.0
_SOURCE_ORDER: tuple[Source, ...] = ("measured", "simulated", "predicted")


@dataclass(frozen=True)
class Standing:
    """One candidate's position in the ranking.

    `trial_number` is that of its launch in the search, `launch_count` the number of launches pooled.
    `value` is the objective in its unit, the geometric mean over launches and `load_points`: all of the
    experiment for a latency, the best one of each scenario otherwise. `interval` is its 95% interval,
    None where it is not known. `is_tied` says that it cannot be distinguished from the first. `gain` is
    the ratio of utilities to the engine's own defaults, higher is better, and unconfirmed. `verdict` is
    the worst one of the load points, None for a candidate that failed, was pruned or lacks a load point;
    `reason` explains it. `confirmation_count` launches at the end confirm the winner or the defaults;
    `confirmation_value` is the value of those alone.
    """

    rank: int
    trial_number: int
    candidate: Candidate
    source: Source
    verdict: Verdict | None
    reason: str
    load_points: tuple[LoadPoint, ...] = ()
    value: float | None = None
    score: float | None = None
    gain: float | None = None
    attainment: Share | None = None
    failure: Failure | None = None
    interval: tuple[float, float] | None = None
    is_tied: bool = False
    launch_count: int = 1
    confirmation_count: int = 0
    confirmation_value: float | None = None

    @property
    def headline_value(self) -> float | None:
        """The value to quote: that of confirmation launches, which is free of selection bias, where there are any."""
        return self.value if self.confirmation_value is None else self.confirmation_value

    @property
    def load_point(self) -> LoadPoint | None:
        """The operating point, where there is a single one."""
        return self.load_points[0] if len(self.load_points) == 1 else None


@dataclass(frozen=True)
class Ranking:
    """All standings, best first.

    `winner` is the first one when its verdict is feasible or undecided, None otherwise.
    `baseline_trial_number` is the launch of the engine's own defaults, to which gains refer; None where
    they were not launched.
    """

    standings: tuple[Standing, ...]
    winner: Standing | None
    objective: str
    unit: str
    baseline_trial_number: int | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of the results, most trusted first; results of different sources are not comparable."""
        present = {standing.source for standing in self.standings}
        return tuple(source for source in _SOURCE_ORDER if source in present)

    @property
    def defaults(self) -> Standing | None:
        """The standing of the engine's own defaults."""
        return next(
            (standing for standing in self.standings if standing.trial_number == self.baseline_trial_number), None
        )


@dataclass(frozen=True)
class _RankingEntry:
    """A standing without its rank, and what sorts it: `tier` before the score, `violation` after it.

    `log_utilities` has one value per launch; `standard_error` is that of one of them, estimated within its
    launch, None where it is not known.
    """

    tier: float
    standing: Standing
    violation: float = 0.0
    log_utilities: tuple[float, ...] = ()
    standard_error: float | None = None


def rank(
    trials: Sequence[Trial], experiment: Experiment, *, prefer_defaults: bool = True, are_judged: bool = False
) -> Ranking:
    """Rank all candidates; failed ones come last and win under no objective.

    The engine's own defaults come before candidates tied with them, so that nobody sets flags without a
    gain; `prefer_defaults` false turns that off, to select a candidate to confirm. Trials that `are_judged`
    by this experiment are not judged again.
    """
    judged = trials if are_judged else [judge(trial, experiment) for trial in trials]
    entries = _entries(judged, experiment)
    baseline = next((trial.number for trial in judged if trial.purpose == "baseline"), None)
    ranking = _ranking(entries, experiment, baseline, None)
    first, defaults = (ranking.standings or (None,))[0], ranking.defaults
    if not prefer_defaults or first is None or defaults is None or not defaults.is_tied:
        return ranking
    gain = gain_between(first, defaults, judged, experiment)
    return ranking if gain and gain.is_reliable else _ranking(entries, experiment, baseline, defaults.trial_number)


def _entries(judged: Iterable[Trial], experiment: Experiment) -> list[_RankingEntry]:
    """One entry for each candidate, best first."""
    at_equal_load = OBJECTIVES[experiment.optimization.objective].at_equal_load
    load_points = experiment.workload().load_points

    def measured_entry(launches: CandidateLaunches) -> _RankingEntry:
        if at_equal_load:
            return _entry_at_equal_load(launches, experiment, load_points)
        return _entry_at_best_load(launches, experiment)

    entries = [
        _failed_entry(launches) or _pruned_entry(launches) or measured_entry(launches)
        for launches in group_by_candidate(judged)
    ]
    return sorted(entries, key=_sort_key)


def _ranking(
    entries: list[_RankingEntry],
    experiment: Experiment,
    baseline_trial_number: int | None,
    priority_trial_number: int | None,
) -> Ranking:
    """The ranking of sorted entries, with the one of trial `priority_trial_number` first."""
    objective = OBJECTIVES[experiment.optimization.objective]
    variation = LaunchVariation.pooled(entry.log_utilities for entry in entries)
    entries = _move_confirmed_first(entries, variation)
    entries = sorted(entries, key=lambda entry: entry.standing.trial_number != priority_trial_number)
    first = entries[0] if entries else None
    defaults = next((entry.standing for entry in entries if entry.standing.trial_number == baseline_trial_number), None)
    standings = tuple(
        replace(
            entry.standing,
            rank=position,
            gain=_relative_gain(entry, defaults, objective),
            interval=_interval(entry, variation),
            is_tied=first is not None and entry is not first and _is_tied(entry, first, variation),
        )
        for position, entry in enumerate(entries, start=1)
    )
    has_winner = bool(standings) and standings[0].verdict in (Verdict.FEASIBLE, Verdict.UNDECIDED)
    return Ranking(
        standings=standings,
        winner=standings[0] if has_winner else None,
        objective=objective.name,
        unit=objective.unit(experiment.hardware.price_per_gpu_hour),
        baseline_trial_number=baseline_trial_number,
    )


def _sort_key(entry: _RankingEntry) -> tuple[float, int, float, float, int]:
    standing = entry.standing
    return (
        entry.tier,
        _SOURCE_ORDER.index(standing.source),
        -(standing.score or 0.0),
        entry.violation,
        standing.trial_number,
    )


def _move_confirmed_first(entries: list[_RankingEntry], variation: LaunchVariation) -> list[_RankingEntry]:
    """Move the best confirmed candidate to the front where the first is unconfirmed and tied with it."""
    if not entries or entries[0].standing.confirmation_count:
        return entries
    tied = (
        entry for entry in entries[1:] if entry.standing.confirmation_count and _is_tied(entry, entries[0], variation)
    )
    confirmed = next(tied, None)
    return entries if confirmed is None else [confirmed, *(entry for entry in entries if entry is not confirmed)]


def _is_tied(entry: _RankingEntry, first: _RankingEntry, variation: LaunchVariation) -> bool:
    """Whether a candidate of the same tier and source differs from the first by no more than noise.

    The noise is the 95% interval of the difference, or the equivalence margin where that is wider;
    `variation` is that of all candidates.
    """
    if (
        (entry.tier, entry.standing.source) != (first.tier, first.standing.source)
        or not entry.log_utilities
        or not first.log_utilities
    ):
        return False
    margin = half_width(entry.log_utilities, first.log_utilities, _rms_standard_error(entry, first), variation)
    return abs(fmean(entry.log_utilities) - fmean(first.log_utilities)) <= max(margin, math.log(1 + EQUIVALENCE_MARGIN))


def _rms_standard_error(*entries: _RankingEntry) -> float:
    """The root mean square of the known standard errors; 0 where none is known."""
    squares = [entry.standard_error**2 for entry in entries if entry.standard_error is not None]
    return math.sqrt(fmean(squares)) if squares else 0.0


def _interval(entry: _RankingEntry, variation: LaunchVariation) -> tuple[float, float] | None:
    """The 95% interval of a standing's value, in its unit."""
    value = entry.standing.value
    if not value or not entry.log_utilities or entry.standard_error is None:
        return None
    margin = half_width(entry.log_utilities, None, entry.standard_error, variation)
    return value * math.exp(-margin), value * math.exp(margin)


def _tier(point: PooledLoadPoint) -> float:
    terms = point.result.score.terms if point.result.score else ()
    if point.launch_count == 1 and any(term.state == "failed" for term in terms):
        return max(_HARD_FAILED_TIER, float(_VERDICT_ORDER.index(point.verdict)))
    return float(_VERDICT_ORDER.index(point.verdict))


def _violation(points: Sequence[PooledLoadPoint]) -> float:
    """The sum of the relative violations of all SLO terms over all load points."""
    terms = (term for point in points if point.result.score for term in point.result.score.terms)
    return sum(max(0.0, term.violation) for term in terms)


def _failed_entry(launches: CandidateLaunches) -> _RankingEntry | None:
    """The entry of a candidate of which every launch failed; None for any other."""
    failure = launches.primary_trial.measurement.failure
    if failure is None or not all(trial.failed for trial in launches.trials):
        return None
    reason = f"{failure.kind.value}: {failure.message}"
    return _RankingEntry(_FAILED_TIER, replace(_new_standing(launches, None, reason), failure=failure))


def _pruned_entry(launches: CandidateLaunches) -> _RankingEntry | None:
    reason = launches.primary_trial.measurement.outcome.gave_up
    if reason is None:
        return None
    points = tuple(dict.fromkeys(result.load_point for result in launches.primary_trial.results))
    return _RankingEntry(_PRUNED_TIER, replace(_new_standing(launches, None, f"pruned: {reason}"), load_points=points))


def _operating_points(launches: CandidateLaunches, scenario: str, experiment: Experiment) -> list[PooledLoadPoint]:
    """The load points of a scenario at which a candidate may be ranked: its capacity alone where that is known."""
    points = [point for point in launches.load_points if point.scenario == scenario]
    pooled_points = [pool_results(launches.results_at(point), experiment.slo) for point in points]
    scored_points = [point for point in pooled_points if point.utility is not None]
    capacity = next(
        (each for each in launches.primary_trial.measurement.outcome.capacities if each.scenario == scenario), None
    )
    if capacity is None or not scored_points:
        return scored_points
    capacity_point = capacity.load_point or min(point.load_point for point in scored_points)
    return [point for point in scored_points if point.load_point == capacity_point]


def _entry_at_best_load(launches: CandidateLaunches, experiment: Experiment) -> _RankingEntry:
    """The entry of a candidate at its best load point of each scenario: by verdict, then by score."""
    best = []
    for scenario in dict.fromkeys(experiment.benchmark.traffic_scenarios):
        points = _operating_points(launches, scenario, experiment)
        if not points:
            unscored = [point for point in launches.load_points if point.scenario == scenario]
            return _RankingEntry(
                _INCOMPLETE_TIER, _new_standing(launches, None, _no_value_reason(launches, unscored, scenario))
            )
        best.append(min(points, key=lambda point: (_tier(point), -(point.score or 0.0), _violation([point]))))
    entry = _entry_over_load_points(best, launches, experiment)
    # At its capacity a candidate only just meets the targets, which no number of requests may prove.
    at_capacity = launches.primary_trial.measurement.outcome.capacities and entry.tier == _VERDICT_ORDER.index(
        Verdict.UNDECIDED
    )
    return replace(entry, tier=float(_VERDICT_ORDER.index(Verdict.FEASIBLE))) if at_capacity else entry


def _entry_at_equal_load(
    launches: CandidateLaunches, experiment: Experiment, load_points: Sequence[LoadPoint]
) -> _RankingEntry:
    """The entry of a candidate over `load_points`, all those of the experiment."""
    by_point = {
        point: pool_results(results, experiment.slo) for point in load_points if (results := launches.results_at(point))
    }
    missing = [point for point in load_points if point not in by_point or by_point[point].utility is None]
    if missing:
        return _RankingEntry(
            _INCOMPLETE_TIER,
            _new_standing(launches, None, _no_value_reason(launches, missing, ", ".join(map(str, missing)))),
        )
    return _entry_over_load_points([by_point[point] for point in load_points], launches, experiment)


def _no_value_reason(launches: CandidateLaunches, points: Sequence[LoadPoint], location: str) -> str:
    """Why there is no objective value at `location` (a scenario or load points), with the counts of request errors."""
    errors: Counter[str] = Counter()
    for point in points:
        for result in launches.results_at(point):
            errors.update(result.metrics.errors)
    error_counts = ", ".join(f"{name} {count:,} times" for name, count in errors.most_common())
    return f"no figure at {location}" + (f": {error_counts}" if error_counts else "")


def _entry_over_load_points(
    points: Sequence[PooledLoadPoint], launches: CandidateLaunches, experiment: Experiment
) -> _RankingEntry:
    """The entry for these load points: geometric means of utility and score, and the worst verdict."""
    objective = OBJECTIVES[experiment.optimization.objective]
    worst = max(points, key=_tier)
    location = f" at {worst.load_point}" if len(points) > 1 and worst.verdict is not Verdict.FEASIBLE else ""
    shares = [point.attainment for point in points if point.attainment]
    load_points = tuple(point.load_point for point in points)
    utility = _geometric_mean([point.utility for point in points if point.utility is not None])
    standing = replace(
        _new_standing(launches, worst.verdict, pooled_reason(worst, experiment.slo) + location),
        load_points=load_points,
        value=utility if objective.direction == "max" else 1 / utility,
        score=_geometric_mean([point.score for point in points if point.score is not None]),
        attainment=min(shares, key=lambda share: share.value, default=None),
        confirmation_count=launches.confirmation_count(load_points),
        confirmation_value=_confirmation_value(launches, load_points, objective),
    )
    errors = [log_standard_error(point.result, launches.candidate.gpus, experiment) for point in points]
    known_errors = [standard_error for standard_error in errors if standard_error is not None]
    standard_error = (
        math.sqrt(sum(each**2 for each in known_errors)) / len(known_errors)
        if len(known_errors) == len(errors)
        else None
    )
    log_utilities = tuple(launch_log_utilities(launches.trials, load_points))
    standing = replace(standing, launch_count=len(log_utilities) or standing.launch_count)
    return _RankingEntry(_tier(worst), standing, _violation(points), log_utilities, standard_error)


def _confirmation_value(launches: CandidateLaunches, points: Sequence[LoadPoint], objective: Objective) -> float | None:
    """The objective's value over confirmation launches alone; None without any."""
    logs = launch_log_utilities([trial for trial in launches.trials if trial.purpose == "confirmation"], points)
    if not logs:
        return None
    utility = math.exp(fmean(logs))
    return utility if objective.direction == "max" else 1 / utility


def _new_standing(launches: CandidateLaunches, verdict: Verdict | None, reason: str) -> Standing:
    primary = launches.primary_trial
    return Standing(
        0,
        primary.number,
        launches.candidate,
        primary.measurement.source,
        verdict,
        reason,
        launch_count=sum(not trial.failed for trial in launches.trials) or len(launches.trials),
    )


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def _relative_gain(entry: _RankingEntry, defaults: Standing | None, objective: Objective) -> float | None:
    """Utility of the candidate over that of the engine's own defaults, above 1 is better; None where not comparable."""
    standing = entry.standing
    if defaults is None or standing.source != defaults.source or not standing.value or not defaults.value:
        return None
    if standing.verdict not in STEADY_STATE_VERDICTS or defaults.verdict not in STEADY_STATE_VERDICTS:
        return None
    return objective.utility(standing.value) / objective.utility(defaults.value)
