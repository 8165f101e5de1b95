"""All launches of one candidate taken together: one verdict, one value and one interval for each load point.

A search picks its winner because one launch came out well, so that this launch flatters it. The
launches that only confirm it were not chosen; together with the first they say what it is worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from autotuner.core import Candidate, LoadPoint, LoadPointResult, Share, Trial, Verdict
from autotuner.experiment import Experiment, Slo
from autotuner.scoring.intervals import Z_95, wilson_share
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.slo import ATTAINMENT, SloStatement, slo_statements

UNTRUSTED_VERDICTS = (Verdict.INVALID, Verdict.CLIENT_LIMITED)
"""Verdicts whose figures say nothing about the server."""

STEADY_STATE_VERDICTS = (Verdict.FEASIBLE, Verdict.UNDECIDED, Verdict.INFEASIBLE)
"""Verdicts whose figures are those of a steady state, and so can be compared."""


@dataclass(frozen=True)
class CandidateLaunches:
    """The judged trials of one candidate in order; `first` is the one it was searched with, or the baseline's."""

    candidate: Candidate
    trials: tuple[Trial, ...]

    @property
    def primary_trial(self) -> Trial:
        """The launch that carries its number: the baseline's or the search's, else the earliest."""
        return next((trial for trial in self.trials if trial.purpose != "confirmation"), self.trials[0])

    def confirmation_count(self, points: Sequence[LoadPoint]) -> int:
        """How many fresh launches have figures to trust at all of these load points."""
        again = [trial.measurement.latest_results for trial in self.trials if trial.purpose == "confirmation"]
        return sum(
            all(point in latest and latest[point].verdict not in UNTRUSTED_VERDICTS for point in points)
            for latest in again
        )

    def results_at(self, point: LoadPoint) -> list[LoadPointResult]:
        """What each launch that ended well measured last at a load point."""
        latest = (trial.measurement.latest_results.get(point) for trial in self.trials if not trial.failed)
        return [result for result in latest if result is not None]

    @property
    def load_points(self) -> list[LoadPoint]:
        """Every load point that some launch which ended well measured, in the order of the first time."""
        measured = (result.load_point for trial in self.trials if not trial.failed for result in trial.results)
        return list(dict.fromkeys(measured))


def group_by_candidate(trials: Iterable[Trial]) -> list[CandidateLaunches]:
    """Trials by candidate, in the order of each candidate's first launch."""
    groups: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        groups.setdefault(trial.candidate.key, []).append(trial)
    return [CandidateLaunches(group[0].candidate, tuple(group)) for group in groups.values()]


@dataclass(frozen=True)
class PooledLoadPoint:
    """One load point over all launches of a candidate.

    `utility` is the geometric mean over the launches whose figures are steady, None without one;
    `score` the same after penalties. `results` are those of the launches whose figures are used, `result`
    the latest of them, for what is not pooled.
    """

    load_point: LoadPoint
    result: LoadPointResult
    verdict: Verdict
    utility: float | None
    score: float | None
    attainment: Share | None
    launch_count: int
    statements: tuple[SloStatement, ...] = ()
    results: tuple[LoadPointResult, ...] = ()


def pool_results(results: Sequence[LoadPointResult], slo: Slo) -> PooledLoadPoint:
    """What several launches say of one load point; those that say nothing are left out where others do."""
    steady = [result for result in results if result.verdict in STEADY_STATE_VERDICTS] or [
        result for result in results if result.verdict not in UNTRUSTED_VERDICTS
    ]
    usable = steady or list(results)
    scored = [result.score for result in usable if result.score is not None]
    joint = _pool_shares([result.metrics.attainment for result in usable if result.metrics.attainment is not None])
    together = _pool_statements(
        [slo_statements(r.metrics, slo, open_loop=r.load_point.rate is not None) for r in usable], joint
    )
    return PooledLoadPoint(
        load_point=results[-1].load_point,
        result=usable[-1],
        verdict=_pooled_verdict(results, usable, together),
        utility=_geometric_mean([score.utility for score in scored]),
        score=_geometric_mean([score.value for score in scored]),
        attainment=joint,
        launch_count=len(usable),
        statements=together,
        results=tuple(usable),
    )


def _pooled_verdict(
    every: Sequence[LoadPointResult], usable: Sequence[LoadPointResult], together: Sequence[SloStatement]
) -> Verdict:
    """The verdict of all launches: their common one, else what their requests say together."""
    verdicts = [result.verdict for result in usable]
    overloaded = sum(result.verdict is Verdict.SATURATED for result in every)
    if len(set(verdicts)) == 1 and not (overloaded and verdicts[0] is not Verdict.SATURATED):
        return verdicts[0]
    if any(verdict in UNTRUSTED_VERDICTS for verdict in verdicts):
        return verdicts[-1]
    states = {statement.state for statement in together}
    if "fails" in states or 2 * overloaded > len(every):
        return Verdict.INFEASIBLE
    return Verdict.FEASIBLE if states <= {"holds"} and not overloaded else Verdict.UNDECIDED


def _pool_statements(each: Sequence[Sequence[SloStatement]], joint: Share | None) -> tuple[SloStatement, ...]:
    """One statement of each name: that on the attainment by all requests, others by the mean over launches."""
    names = dict.fromkeys(statement.name for launch in each for statement in launch)
    return tuple(_mean_statement([s for launch in each for s in launch if s.name == name], joint) for name in names)


def _mean_statement(same: Sequence[SloStatement], joint: Share | None) -> SloStatement:
    """Launch means of value and ends: the interval gets no narrower, for launches differ."""
    if len(same) == 1:
        return same[0]
    if same[0].name == ATTAINMENT and joint is not None:
        return replace(same[0], value=joint.value, lower=joint.low, upper=joint.high).with_state()

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return fmean(known) if len(known) == len(values) else None

    return replace(
        same[0],
        value=mean([statement.value for statement in same]),
        lower=mean([statement.lower for statement in same]),
        upper=mean([statement.upper for statement in same]),
    ).with_state()


def _pool_shares(shares: Sequence[Share]) -> Share | None:
    """The share over all requests of some launches, which say as much as they do one by one; None of nothing."""
    if len(shares) < 2:
        return shares[0] if shares else None
    good, n = sum(one.value * one.n for one in shares), sum(one.n for one in shares)
    return wilson_share(round(good), n, sum(one.n if one.effective is None else one.effective for one in shares))


def _geometric_mean(values: Sequence[float]) -> float | None:
    return math.exp(fmean(map(math.log, values))) if values else None


def log_standard_error(result: LoadPointResult, gpus: int, experiment: Experiment) -> float | None:
    """The standard error of a load point's log objective on its own launch; None where it is not known."""
    objective = OBJECTIVES[experiment.optimization.objective]
    ends = objective.interval(result.metrics, gpus, experiment.hardware.price_per_gpu_hour)
    value = objective.value(result.metrics, gpus, experiment.hardware.price_per_gpu_hour)
    if ends is None or not value:
        return None
    return (ends[1] - ends[0]) / value / (2 * Z_95)


def launch_log_utilities(trials: Sequence[Trial], points: Sequence[LoadPoint]) -> list[float]:
    """Of each launch that has steady figures at all of these load points, the mean log utility over them."""
    logs = []
    for trial in trials:
        latest: Mapping[LoadPoint, LoadPointResult] = {} if trial.failed else trial.measurement.latest_results
        scores = [
            latest[point].score
            for point in points
            if point in latest and latest[point].verdict in STEADY_STATE_VERDICTS
        ]
        known = [score.utility for score in scores if score is not None]
        if points and len(known) == len(points):
            logs.append(fmean(map(math.log, known)))
    return logs
