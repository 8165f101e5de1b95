"""Trials in order, best first, and the winner.

Latency objectives compare candidates over the same load points; the others take each candidate
at the load point of each scenario where it does best. Meeting the targets comes before the penalised score, and
what was given up, failed or was not measured completely comes after everything that was. Launches
that only confirm another one have no place of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autotuner.core import Candidate, Failure, LoadPoint, LoadPointResult, Share, Source, Trial, Verdict
from autotuner.experiment import Experiment
from autotuner.scoring.judge import judge
from autotuner.scoring.objective import OBJECTIVES, Objective
from autotuner.scoring.reasons import reason

_ORDER = (
    Verdict.FEASIBLE,
    Verdict.UNDECIDED,
    Verdict.INFEASIBLE,
    Verdict.SATURATED,
    Verdict.CLIENT_LIMITED,
    Verdict.INVALID,
)
_HARD_FAILED = _ORDER.index(Verdict.INFEASIBLE) + 0.5
_GAVE_UP, _INCOMPLETE, _FAILED = 9.0, 10.0, 11.0
_SOURCES: tuple[Source, ...] = ("measured", "simulated", "predicted")


@dataclass(frozen=True)
class Standing:
    """One trial's place.

    `value` is the objective's figure in its unit, the geometric mean over `load_points`, on which
    the standing rests: all of the experiment for a latency, the best one of each scenario
    otherwise. `gain` is how many times better than the baseline. `verdict` is the worst of them,
    and None for a trial that failed or lacks a load point; `reason` says which.
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

    @property
    def load_point(self) -> LoadPoint | None:
        """The operating point, where the standing rests on a single one."""
        return self.load_points[0] if len(self.load_points) == 1 else None


@dataclass(frozen=True)
class Ranking:
    """All standings, best first.

    `winner` is the first one when its targets are met, or met but not yet proven (its verdict
    says which); None when nothing meets them. `baseline` is the trial that gains refer to: the
    engine's own defaults where they were measured, else the earliest one with a figure to trust.
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


@dataclass(frozen=True)
class _Placed:
    """A standing before it has a rank; `tier` sorts before the score."""

    tier: float
    standing: Standing
    violation: float = 0.0


def rank(trials: Sequence[Trial], experiment: Experiment) -> Ranking:
    """All trials in order. A failed one stands last, and wins under no objective."""
    objective = OBJECTIVES[experiment.optimization.objective]
    place = _at_equal_load if objective.at_equal_load else _at_best_load
    listed = [judge(trial, experiment) for trial in trials if trial.purpose != "confirmation"]
    placed = [(_failed(trial) or _given_up(trial) or place(trial, experiment)) for trial in listed]
    placed.sort(key=_key)
    defaults = {trial.number for trial in listed if trial.purpose == "baseline"}
    baseline = _baseline(placed, defaults)
    standings = tuple(
        replace(item.standing, rank=position, gain=_gain(item, baseline, objective))
        for position, item in enumerate(placed, start=1)
    )
    wins = bool(standings) and standings[0].verdict in (Verdict.FEASIBLE, Verdict.UNDECIDED)
    return Ranking(
        standings=standings,
        winner=standings[0] if wins else None,
        objective=objective.name,
        unit=objective.unit(experiment.hardware.price_per_gpu_hour),
        baseline=baseline.trial if baseline else None,
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


def _tier(result: LoadPointResult) -> float:
    if result.score and any(term.state == "failed" for term in result.score.terms):
        return max(_HARD_FAILED, float(_ORDER.index(result.verdict)))
    return float(_ORDER.index(result.verdict))


def _violation(results: Sequence[LoadPointResult]) -> float:
    terms = (term for result in results if result.score for term in result.score.terms)
    return sum(max(0.0, term.violation) for term in terms)


def _failed(trial: Trial) -> _Placed | None:
    failure = trial.measurement.failure
    if failure is None:
        return None
    said = f"{failure.kind.value}: {failure.said}"
    return _Placed(_FAILED, replace(_standing(trial, None, said), failure=failure))


def _given_up(trial: Trial) -> _Placed | None:
    why = trial.measurement.outcome.gave_up
    if why is None:
        return None
    points = tuple(dict.fromkeys(result.load_point for result in trial.measurement.load_points))
    return _Placed(_GAVE_UP, replace(_standing(trial, None, f"given up: {why}"), load_points=points))


def _operating(trial: Trial, scenario: str) -> list[LoadPointResult]:
    """The load points of a scenario among which a candidate may choose; where it is known, its capacity alone."""
    found = [
        result for result in trial.measurement.load_points if result.score and result.load_point.scenario == scenario
    ]
    known = [capacity for capacity in trial.measurement.outcome.capacities if capacity.scenario == scenario]
    if not known or not found:
        return found
    lightest = min(result.load_point for result in found)
    point = known[0].load_point or lightest
    return [result for result in found if result.load_point == point][-1:]


def _at_best_load(trial: Trial, experiment: Experiment) -> _Placed:
    """The candidate at its best load point of each scenario: targets met first, then the higher score."""
    best = []
    for scenario in dict.fromkeys(experiment.benchmark.traffic_scenarios):
        scored = _operating(trial, scenario)
        if not scored:
            return _Placed(_INCOMPLETE, _standing(trial, None, f"no figure for {scenario}"))
        best.append(min(scored, key=lambda r: (_tier(r), -(r.score.value if r.score else 0.0), _violation([r]))))
    placed = _over(best, trial, experiment)
    # a capacity lies where requests only just meet the targets, and no number of them may prove it
    level = trial.measurement.outcome.capacities and placed.tier == _ORDER.index(Verdict.UNDECIDED)
    return replace(placed, tier=float(_ORDER.index(Verdict.FEASIBLE))) if level else placed


def _at_equal_load(trial: Trial, experiment: Experiment) -> _Placed:
    """The candidate over every load point of the experiment."""
    asked = experiment.workload().load_points
    by_point = {result.load_point: result for result in trial.measurement.load_points if result.score}
    missing = [str(point) for point in asked if point not in by_point]
    if missing:
        return _Placed(_INCOMPLETE, _standing(trial, None, f"no figure at {', '.join(missing)}"))
    return _over([by_point[point] for point in asked], trial, experiment)


def _over(results: Sequence[LoadPointResult], trial: Trial, experiment: Experiment) -> _Placed:
    """The standing that rests on these load points: geometric means, and the worst verdict."""
    worst = max(results, key=_tier)
    where = f" at {worst.load_point}" if len(results) > 1 and worst.verdict is not Verdict.FEASIBLE else ""
    shares = [result.metrics.attainment for result in results if result.metrics.attainment]
    standing = replace(
        _standing(trial, worst.verdict, reason(worst, experiment.slo) + where),
        load_points=tuple(result.load_point for result in results),
        value=_geometric_mean([_value(result, trial, experiment) or math.nan for result in results]),
        score=_geometric_mean([result.score.value for result in results if result.score]),
        attainment=min(shares, key=lambda share: share.value, default=None),
    )
    return _Placed(_tier(worst), standing, _violation(results))


def _standing(trial: Trial, verdict: Verdict | None, why: str) -> Standing:
    return Standing(0, trial.number, trial.candidate, trial.measurement.source, verdict, why)


def _value(result: LoadPointResult, trial: Trial, experiment: Experiment) -> float | None:
    objective = OBJECTIVES[experiment.optimization.objective]
    return objective.value(result.metrics, trial.candidate.gpus, experiment.hardware.price_per_gpu_hour)


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def _baseline(placed: Sequence[_Placed], defaults: set[int]) -> Standing | None:
    """The engine's own defaults, else the earliest trial; with a figure to trust, of the source that ranks first."""
    trusted = [item.standing for item in placed if item.tier < _ORDER.index(Verdict.SATURATED)]
    comparable = (standing for standing in trusted if standing.source == trusted[0].source)
    return min(comparable, key=lambda standing: (standing.trial not in defaults, standing.trial), default=None)


def _gain(item: _Placed, baseline: Standing | None, objective: Objective) -> float | None:
    standing = item.standing
    if item.tier >= _ORDER.index(Verdict.SATURATED) or baseline is None or standing.source != baseline.source:
        return None
    if not standing.value or not baseline.value:
        return None
    return objective.utility(standing.value) / objective.utility(baseline.value)
