"""Candidates in order, best first, and the winner.

A candidate stands on all its launches together. Latency objectives compare candidates over the same
load points; the others take each at the load point of each scenario where it does best. Meeting the
targets comes before the penalised score, and what was pruned, failed or was not measured completely
comes after everything that was. Among candidates that cannot be told apart from the first, one that
was confirmed on fresh launches goes first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from autotuner.core import Candidate, Failure, LoadPoint, Share, Source, Trial, Verdict
from autotuner.experiment import Experiment
from autotuner.scoring.confirm import EQUIVALENCE_MARGIN, gain_between, half_width
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
    """One candidate's place; `trial` is the launch it was searched with, `launches` how many stand behind it.

    `value` is the objective's figure in its unit, the geometric mean over launches and
    `load_points`, on which the standing rests: all of the experiment for a latency, the best one of
    each scenario otherwise. `interval` is its 95% interval, None where a single launch bounds
    nothing. `tied` says that it cannot be told apart from the first. `gain` is the ratio to the
    engine's own defaults, higher is better, which only confirmation makes a claim. `verdict` is the
    worst of the load points', and None for a candidate that failed or lacks one; `reason` says
    which. `confirmations` are fresh launches of the winner or the defaults at the end, and
    `fresh_value` is what those alone came to.
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
        """The figure to quote: that of launches nothing was chosen by, where there are any."""
        return self.value if self.confirmation_value is None else self.confirmation_value

    @property
    def load_point(self) -> LoadPoint | None:
        """The operating point, where the standing rests on a single one."""
        return self.load_points[0] if len(self.load_points) == 1 else None


@dataclass(frozen=True)
class Ranking:
    """All standings, best first.

    `winner` is the first one when its targets are met, or met but not yet proven (its verdict
    says which); None when nothing meets them. `baseline` is the trial of the engine's own defaults,
    to which gains refer; None where they were not launched.
    """

    standings: tuple[Standing, ...]
    winner: Standing | None
    objective: str
    unit: str
    baseline_trial_number: int | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        """Who answered, most trusted first; more than one means that figures are not comparable."""
        present = {standing.source for standing in self.standings}
        return tuple(source for source in _SOURCE_ORDER if source in present)

    @property
    def defaults(self) -> Standing | None:
        """Where the engine's own defaults stand."""
        return next(
            (standing for standing in self.standings if standing.trial_number == self.baseline_trial_number), None
        )


@dataclass(frozen=True)
class _RankingEntry:
    """A standing before it has a rank; `tier` sorts before the score.

    `logs` are the log utilities of its launches, `error` the standard error of a single one from
    within, None where it is not known.
    """

    tier: float
    standing: Standing
    violation: float = 0.0
    log_utilities: tuple[float, ...] = ()
    standard_error: float | None = None


def rank(trials: Sequence[Trial], experiment: Experiment, *, prefer_defaults: bool = True) -> Ranking:
    """All candidates in order. A failed one stands last, and wins under no objective.

    The engine's own defaults go before what cannot be told apart from them, for nobody should set
    flags for nothing; `prefer_defaults` false leaves that out, for whoever looks for a candidate to
    confirm.
    """
    ranking = _rank_with_priority(trials, experiment, None)
    first, defaults = (ranking.standings or (None,))[0], ranking.defaults
    if not prefer_defaults or first is None or defaults is None or not defaults.is_tied:
        return ranking
    proven = gain_between(first, defaults, trials, experiment)
    return ranking if proven and proven.is_reliable else _rank_with_priority(trials, experiment, defaults.trial_number)


def _rank_with_priority(trials: Sequence[Trial], experiment: Experiment, priority_trial_number: int | None) -> Ranking:
    """All candidates in order, the one of trial `ahead` before all others."""
    objective = OBJECTIVES[experiment.optimization.objective]
    place = _entry_at_equal_load if objective.at_equal_load else _entry_at_best_load
    groups = group_by_candidate(judge(trial, experiment) for trial in trials)
    placed = [_failed_entry(group) or _pruned_entry(group) or place(group, experiment) for group in groups]
    placed.sort(key=_sort_key)
    placed = _move_confirmed_first(placed)
    placed.sort(key=lambda item: item.standing.trial_number != priority_trial_number)
    first = placed[0] if placed else None
    baseline = next((trial.number for trial in trials if trial.purpose == "baseline"), None)
    defaults = next((item.standing for item in placed if item.standing.trial_number == baseline), None)
    standings = tuple(
        replace(
            item.standing,
            rank=position,
            gain=_relative_gain(item, defaults, objective),
            interval=_interval(item, placed, objective),
            is_tied=first is not None and item is not first and _is_tied(item, first, placed),
        )
        for position, item in enumerate(placed, start=1)
    )
    wins = bool(standings) and standings[0].verdict in (Verdict.FEASIBLE, Verdict.UNDECIDED)
    return Ranking(
        standings=standings,
        winner=standings[0] if wins else None,
        objective=objective.name,
        unit=objective.unit(experiment.hardware.price_per_gpu_hour),
        baseline_trial_number=baseline,
    )


def _sort_key(item: _RankingEntry) -> tuple[float, int, float, float, int]:
    standing = item.standing
    return (
        item.tier,
        _SOURCE_ORDER.index(standing.source),
        -(standing.score or 0.0),
        item.violation,
        standing.trial_number,
    )


def _move_confirmed_first(placed: list[_RankingEntry]) -> list[_RankingEntry]:
    """The same, a confirmed candidate in front where the first is not and cannot be told apart from it."""
    if not placed or placed[0].standing.confirmation_count:
        return placed
    level = (item for item in placed[1:] if item.standing.confirmation_count and _is_tied(item, placed[0], placed))
    best = next(level, None)
    return placed if best is None else [best, *(item for item in placed if item is not best)]


def _is_tied(item: _RankingEntry, first: _RankingEntry, placed: Sequence[_RankingEntry]) -> bool:
    """Whether a candidate of the same tier and source may be as good as the first, by all that is known of noise."""
    if (
        (item.tier, item.standing.source) != (first.tier, first.standing.source)
        or not item.log_utilities
        or not first.log_utilities
    ):
        return False
    reach = half_width(
        item.log_utilities,
        first.log_utilities,
        _rms_standard_error(item, first),
        variance_groups=[other.log_utilities for other in placed],
    )
    return abs(fmean(item.log_utilities) - fmean(first.log_utilities)) <= max(reach, math.log(1 + EQUIVALENCE_MARGIN))


def _rms_standard_error(*items: _RankingEntry) -> float:
    """The root mean square of what is known of the errors within launches."""
    squares = [item.standard_error**2 for item in items if item.standard_error is not None]
    return math.sqrt(fmean(squares)) if squares else 0.0


def _interval(item: _RankingEntry, placed: Sequence[_RankingEntry], objective: Objective) -> tuple[float, float] | None:
    """The 95% interval of a standing's value, in its unit."""
    value = item.standing.value
    if not value or not item.log_utilities or item.standard_error is None:
        return None
    reach = half_width(
        item.log_utilities, None, item.standard_error, variance_groups=[other.log_utilities for other in placed]
    )
    return value * math.exp(-reach), value * math.exp(reach)


def _tier(point: PooledLoadPoint) -> float:
    terms = point.result.score.terms if point.result.score else ()
    if point.launch_count == 1 and any(term.state == "failed" for term in terms):
        return max(_HARD_FAILED_TIER, float(_VERDICT_ORDER.index(point.verdict)))
    return float(_VERDICT_ORDER.index(point.verdict))


def _violation(points: Sequence[PooledLoadPoint]) -> float:
    """How far the load points are outside their targets, all terms together."""
    terms = (term for point in points if point.result.score for term in point.result.score.terms)
    return sum(max(0.0, term.violation) for term in terms)


def _failed_entry(group: CandidateLaunches) -> _RankingEntry | None:
    """The standing of a candidate of which no launch ended well."""
    failure = group.primary_trial.measurement.failure
    if failure is None or not all(trial.failed for trial in group.trials):
        return None
    words = f"{failure.kind.value}: {failure.message}"
    return _RankingEntry(_FAILED_TIER, replace(_new_standing(group, None, words), failure=failure))


def _pruned_entry(group: CandidateLaunches) -> _RankingEntry | None:
    why = group.primary_trial.measurement.outcome.gave_up
    if why is None:
        return None
    points = tuple(dict.fromkeys(result.load_point for result in group.primary_trial.results))
    return _RankingEntry(_PRUNED_TIER, replace(_new_standing(group, None, f"pruned: {why}"), load_points=points))


def _operating_points(group: CandidateLaunches, scenario: str, experiment: Experiment) -> list[PooledLoadPoint]:
    """The load points of a scenario among which a candidate may choose; where it is known, its capacity alone."""
    points = [point for point in group.load_points if point.scenario == scenario]
    every = [pool_results(group.results_at(point), experiment.slo) for point in points]
    scored = [point for point in every if point.utility is not None]
    capacity = next((c for c in group.primary_trial.measurement.outcome.capacities if c.scenario == scenario), None)
    if capacity is None or not scored:
        return scored
    highest = capacity.load_point or min(point.load_point for point in scored)
    return [point for point in scored if point.load_point == highest]


def _entry_at_best_load(group: CandidateLaunches, experiment: Experiment) -> _RankingEntry:
    """The candidate at its best load point of each scenario: targets met first, then the higher score."""
    best = []
    for scenario in dict.fromkeys(experiment.benchmark.traffic_scenarios):
        points = _operating_points(group, scenario, experiment)
        if not points:
            silent = [point for point in group.load_points if point.scenario == scenario]
            return _RankingEntry(
                _INCOMPLETE_TIER, _new_standing(group, None, _missing_figure_reason(group, silent, scenario))
            )
        best.append(min(points, key=lambda point: (_tier(point), -(point.score or 0.0), _violation([point]))))
    placed = _entry_over_load_points(best, group, experiment)
    # a capacity lies where requests only just meet the targets, and no number of them may prove it
    level = group.primary_trial.measurement.outcome.capacities and placed.tier == _VERDICT_ORDER.index(
        Verdict.UNDECIDED
    )
    return replace(placed, tier=float(_VERDICT_ORDER.index(Verdict.FEASIBLE))) if level else placed


def _entry_at_equal_load(group: CandidateLaunches, experiment: Experiment) -> _RankingEntry:
    """The candidate over every load point of the experiment."""
    wanted = experiment.workload().load_points
    by_point = {
        point: pool_results(group.results_at(point), experiment.slo) for point in wanted if group.results_at(point)
    }
    missing = [point for point in wanted if point not in by_point or by_point[point].utility is None]
    if missing:
        return _RankingEntry(
            _INCOMPLETE_TIER,
            _new_standing(group, None, _missing_figure_reason(group, missing, ", ".join(map(str, missing)))),
        )
    return _entry_over_load_points([by_point[point] for point in wanted], group, experiment)


def _missing_figure_reason(group: CandidateLaunches, points: Sequence[LoadPoint], where: str) -> str:
    """That there is no figure, and of which errors the answers were."""
    errors: Counter[str] = Counter()
    for point in points:
        for result in group.results_at(point):
            errors.update(result.metrics.errors)
    counted = ", ".join(f"{name} {count:,} times" for name, count in errors.most_common())
    return f"no figure at {where}" + (f": {counted}" if counted else "")


def _entry_over_load_points(
    points: Sequence[PooledLoadPoint], group: CandidateLaunches, experiment: Experiment
) -> _RankingEntry:
    """The standing that rests on these load points: geometric means, and the worst verdict."""
    objective = OBJECTIVES[experiment.optimization.objective]
    worst = max(points, key=_tier)
    where = f" at {worst.load_point}" if len(points) > 1 and worst.verdict is not Verdict.FEASIBLE else ""
    shares = [point.attainment for point in points if point.attainment]
    load_points = tuple(point.load_point for point in points)
    utility = _geometric_mean([point.utility for point in points if point.utility is not None])
    standing = replace(
        _new_standing(group, worst.verdict, pooled_reason(worst, experiment.slo) + where),
        load_points=load_points,
        value=utility if objective.direction == "max" else 1 / utility,
        score=_geometric_mean([point.score for point in points if point.score is not None]),
        attainment=min(shares, key=lambda share: share.value, default=None),
        confirmation_count=group.confirmation_count(load_points),
        confirmation_value=_confirmation_value(group, load_points, objective),
    )
    errors = [log_standard_error(point.result, group.candidate.gpus, experiment) for point in points]
    known = [error for error in errors if error is not None]
    error = math.sqrt(sum(each**2 for each in known)) / len(known) if len(known) == len(errors) else None
    logs = tuple(launch_log_utilities(group.trials, load_points))
    standing = replace(standing, launch_count=len(logs) or standing.launch_count)
    return _RankingEntry(_tier(worst), standing, _violation(points), logs, error)


def _confirmation_value(group: CandidateLaunches, points: Sequence[LoadPoint], objective: Objective) -> float | None:
    """What the launches came to that only confirm it; None without any."""
    logs = launch_log_utilities([trial for trial in group.trials if trial.purpose == "confirmation"], points)
    if not logs:
        return None
    utility = math.exp(fmean(logs))
    return utility if objective.direction == "max" else 1 / utility


def _new_standing(group: CandidateLaunches, verdict: Verdict | None, why: str) -> Standing:
    first = group.primary_trial
    return Standing(
        0,
        first.number,
        group.candidate,
        first.measurement.source,
        verdict,
        why,
        launch_count=sum(not trial.failed for trial in group.trials) or len(group.trials),
    )


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def _relative_gain(item: _RankingEntry, defaults: Standing | None, objective: Objective) -> float | None:
    standing = item.standing
    if defaults is None or standing.source != defaults.source or not standing.value or not defaults.value:
        return None
    if standing.verdict not in STEADY_STATE_VERDICTS or defaults.verdict not in STEADY_STATE_VERDICTS:
        return None
    return objective.utility(standing.value) / objective.utility(defaults.value)
