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
from autotuner.scoring.confirm import RESOLUTION, gain_of, spread
from autotuner.scoring.judge import judge
from autotuner.scoring.objective import OBJECTIVES, Objective
from autotuner.scoring.pool import STEADY, Launches, Pooled, grouped, launch_logs, noise, pooled
from autotuner.scoring.reasons import pooled_reason

_ORDER = (
    Verdict.FEASIBLE,
    Verdict.UNDECIDED,
    Verdict.INFEASIBLE,
    Verdict.SATURATED,
    Verdict.CLIENT_LIMITED,
    Verdict.INVALID,
)
_HARD_FAILED = _ORDER.index(Verdict.INFEASIBLE) + 0.5
_PRUNED, _INCOMPLETE, _FAILED = 9.0, 10.0, 11.0
_SOURCES: tuple[Source, ...] = ("measured", "simulated", "predicted")


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
    trial: int
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
    tied: bool = False
    launches: int = 1
    confirmations: int = 0
    fresh_value: float | None = None

    @property
    def headline(self) -> float | None:
        """The figure to quote: that of launches nothing was chosen by, where there are any."""
        return self.value if self.fresh_value is None else self.fresh_value

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
    baseline: int | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        """Who answered, most trusted first; more than one means that figures are not comparable."""
        present = {standing.source for standing in self.standings}
        return tuple(source for source in _SOURCES if source in present)

    @property
    def defaults(self) -> Standing | None:
        """Where the engine's own defaults stand."""
        return next((standing for standing in self.standings if standing.trial == self.baseline), None)


@dataclass(frozen=True)
class _Placed:
    """A standing before it has a rank; `tier` sorts before the score.

    `logs` are the log utilities of its launches, `error` the standard error of a single one from
    within, None where it is not known.
    """

    tier: float
    standing: Standing
    violation: float = 0.0
    logs: tuple[float, ...] = ()
    error: float | None = None


def rank(trials: Sequence[Trial], experiment: Experiment, *, prefer_defaults: bool = True) -> Ranking:
    """All candidates in order. A failed one stands last, and wins under no objective.

    The engine's own defaults go before what cannot be told apart from them, for nobody should set
    flags for nothing; `prefer_defaults` false leaves that out, for whoever looks for a candidate to
    confirm.
    """
    ranking = _ranked(trials, experiment, None)
    first, defaults = (ranking.standings or (None,))[0], ranking.defaults
    if not prefer_defaults or first is None or defaults is None or not defaults.tied:
        return ranking
    proven = gain_of(first, defaults, trials, experiment)
    return ranking if proven and proven.reliable else _ranked(trials, experiment, defaults.trial)


def _ranked(trials: Sequence[Trial], experiment: Experiment, ahead: int | None) -> Ranking:
    """All candidates in order, the one of trial `ahead` before all others."""
    objective = OBJECTIVES[experiment.optimization.objective]
    place = _at_equal_load if objective.at_equal_load else _at_best_load
    groups = grouped(judge(trial, experiment) for trial in trials)
    placed = [_failed(group) or _pruned(group) or place(group, experiment) for group in groups]
    placed.sort(key=_key)
    placed = _confirmed_first(placed)
    placed.sort(key=lambda item: item.standing.trial != ahead)
    first = placed[0] if placed else None
    baseline = next((trial.number for trial in trials if trial.purpose == "baseline"), None)
    defaults = next((item.standing for item in placed if item.standing.trial == baseline), None)
    standings = tuple(
        replace(
            item.standing,
            rank=position,
            gain=_gain(item, defaults, objective),
            interval=_interval(item, placed, objective),
            tied=first is not None and item is not first and _is_tied(item, first, placed),
        )
        for position, item in enumerate(placed, start=1)
    )
    wins = bool(standings) and standings[0].verdict in (Verdict.FEASIBLE, Verdict.UNDECIDED)
    return Ranking(
        standings=standings,
        winner=standings[0] if wins else None,
        objective=objective.name,
        unit=objective.unit(experiment.hardware.price_per_gpu_hour),
        baseline=baseline,
    )


def _key(item: _Placed) -> tuple[float, int, float, float, int]:
    standing = item.standing
    return (
        item.tier,
        _SOURCES.index(standing.source),
        -(standing.score or 0.0),
        item.violation,
        standing.trial,
    )


def _confirmed_first(placed: list[_Placed]) -> list[_Placed]:
    """The same, a confirmed candidate in front where the first is not and cannot be told apart from it."""
    if not placed or placed[0].standing.confirmations:
        return placed
    level = (item for item in placed[1:] if item.standing.confirmations and _is_tied(item, placed[0], placed))
    best = next(level, None)
    return placed if best is None else [best, *(item for item in placed if item is not best)]


def _is_tied(item: _Placed, first: _Placed, placed: Sequence[_Placed]) -> bool:
    """Whether a candidate of the same tier and source may be as good as the first, by all that is known of noise."""
    if (item.tier, item.standing.source) != (first.tier, first.standing.source) or not item.logs or not first.logs:
        return False
    reach = spread(item.logs, first.logs, _errors(item, first), others_known=[other.logs for other in placed])
    return abs(fmean(item.logs) - fmean(first.logs)) <= max(reach, math.log(1 + RESOLUTION))


def _errors(*items: _Placed) -> float:
    """The root mean square of what is known of the errors within launches."""
    squares = [item.error**2 for item in items if item.error is not None]
    return math.sqrt(fmean(squares)) if squares else 0.0


def _interval(item: _Placed, placed: Sequence[_Placed], objective: Objective) -> tuple[float, float] | None:
    """The 95% interval of a standing's value, in its unit."""
    value = item.standing.value
    if not value or not item.logs or item.error is None:
        return None
    reach = spread(item.logs, None, item.error, others_known=[other.logs for other in placed])
    return value * math.exp(-reach), value * math.exp(reach)


def _tier(point: Pooled) -> float:
    terms = point.result.score.terms if point.result.score else ()
    if point.launches == 1 and any(term.state == "failed" for term in terms):
        return max(_HARD_FAILED, float(_ORDER.index(point.verdict)))
    return float(_ORDER.index(point.verdict))


def _violation(points: Sequence[Pooled]) -> float:
    """How far the load points are outside their targets, all terms together."""
    terms = (term for point in points if point.result.score for term in point.result.score.terms)
    return sum(max(0.0, term.violation) for term in terms)


def _failed(group: Launches) -> _Placed | None:
    """The standing of a candidate of which no launch ended well."""
    failure = group.first.measurement.failure
    if failure is None or not all(trial.failed for trial in group.trials):
        return None
    words = f"{failure.kind.value}: {failure.said}"
    return _Placed(_FAILED, replace(_standing(group, None, words), failure=failure))


def _pruned(group: Launches) -> _Placed | None:
    why = group.first.measurement.outcome.gave_up
    if why is None:
        return None
    points = tuple(dict.fromkeys(result.load_point for result in group.first.results))
    return _Placed(_PRUNED, replace(_standing(group, None, f"pruned: {why}"), load_points=points))


def _operating(group: Launches, scenario: str, experiment: Experiment) -> list[Pooled]:
    """The load points of a scenario among which a candidate may choose; where it is known, its capacity alone."""
    points = [point for point in group.load_points if point.scenario == scenario]
    every = [pooled(group.at(point), experiment.slo) for point in points]
    scored = [point for point in every if point.utility is not None]
    capacity = next((c for c in group.first.measurement.outcome.capacities if c.scenario == scenario), None)
    if capacity is None or not scored:
        return scored
    highest = capacity.load_point or min(point.load_point for point in scored)
    return [point for point in scored if point.load_point == highest]


def _at_best_load(group: Launches, experiment: Experiment) -> _Placed:
    """The candidate at its best load point of each scenario: targets met first, then the higher score."""
    best = []
    for scenario in dict.fromkeys(experiment.benchmark.traffic_scenarios):
        points = _operating(group, scenario, experiment)
        if not points:
            silent = [point for point in group.load_points if point.scenario == scenario]
            return _Placed(_INCOMPLETE, _standing(group, None, _no_figure(group, silent, scenario)))
        best.append(min(points, key=lambda point: (_tier(point), -(point.score or 0.0), _violation([point]))))
    placed = _over(best, group, experiment)
    # a capacity lies where requests only just meet the targets, and no number of them may prove it
    level = group.first.measurement.outcome.capacities and placed.tier == _ORDER.index(Verdict.UNDECIDED)
    return replace(placed, tier=float(_ORDER.index(Verdict.FEASIBLE))) if level else placed


def _at_equal_load(group: Launches, experiment: Experiment) -> _Placed:
    """The candidate over every load point of the experiment."""
    wanted = experiment.workload().load_points
    by_point = {point: pooled(group.at(point), experiment.slo) for point in wanted if group.at(point)}
    missing = [point for point in wanted if point not in by_point or by_point[point].utility is None]
    if missing:
        return _Placed(_INCOMPLETE, _standing(group, None, _no_figure(group, missing, ", ".join(map(str, missing)))))
    return _over([by_point[point] for point in wanted], group, experiment)


def _no_figure(group: Launches, points: Sequence[LoadPoint], where: str) -> str:
    """That there is no figure, and of which errors the answers were."""
    errors: Counter[str] = Counter()
    for point in points:
        for result in group.at(point):
            errors.update(result.metrics.errors)
    counted = ", ".join(f"{name} {count:,} times" for name, count in errors.most_common())
    return f"no figure at {where}" + (f": {counted}" if counted else "")


def _over(points: Sequence[Pooled], group: Launches, experiment: Experiment) -> _Placed:
    """The standing that rests on these load points: geometric means, and the worst verdict."""
    objective = OBJECTIVES[experiment.optimization.objective]
    worst = max(points, key=_tier)
    where = f" at {worst.load_point}" if len(points) > 1 and worst.verdict is not Verdict.FEASIBLE else ""
    shares = [point.attainment for point in points if point.attainment]
    load_points = tuple(point.load_point for point in points)
    utility = _geometric_mean([point.utility for point in points if point.utility is not None])
    standing = replace(
        _standing(group, worst.verdict, pooled_reason(worst, experiment.slo) + where),
        load_points=load_points,
        value=utility if objective.sense == "max" else 1 / utility,
        score=_geometric_mean([point.score for point in points if point.score is not None]),
        attainment=min(shares, key=lambda share: share.value, default=None),
        confirmations=group.confirmations(load_points),
        fresh_value=_fresh_value(group, load_points, objective),
    )
    errors = [noise(point.result, group.candidate.gpus, experiment) for point in points]
    known = [error for error in errors if error is not None]
    error = math.sqrt(sum(each**2 for each in known)) / len(known) if len(known) == len(errors) else None
    logs = tuple(launch_logs(group.trials, load_points))
    standing = replace(standing, launches=len(logs) or standing.launches)
    return _Placed(_tier(worst), standing, _violation(points), logs, error)


def _fresh_value(group: Launches, points: Sequence[LoadPoint], objective: Objective) -> float | None:
    """What the launches came to that only confirm it; None without any."""
    logs = launch_logs([trial for trial in group.trials if trial.purpose == "confirmation"], points)
    if not logs:
        return None
    utility = math.exp(fmean(logs))
    return utility if objective.sense == "max" else 1 / utility


def _standing(group: Launches, verdict: Verdict | None, why: str) -> Standing:
    first = group.first
    return Standing(
        0,
        first.number,
        group.candidate,
        first.measurement.source,
        verdict,
        why,
        launches=sum(not trial.failed for trial in group.trials) or len(group.trials),
    )


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def _gain(item: _Placed, defaults: Standing | None, objective: Objective) -> float | None:
    standing = item.standing
    if defaults is None or standing.source != defaults.source or not standing.value or not defaults.value:
        return None
    if standing.verdict not in STEADY or defaults.verdict not in STEADY:
        return None
    return objective.utility(standing.value) / objective.utility(defaults.value)
