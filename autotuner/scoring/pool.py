"""Results pooled over all launches of a candidate: one verdict, one value and one interval for each load point.

A search selects its winner by one launch, which biases that launch's figures upwards. Confirmation launches
are free of this selection bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from autotuner.core import Candidate, LoadPoint, LoadPointResult, Share, Trial, Verdict
from autotuner.experiment import Experiment, Slo
from autotuner.scoring.intervals import Z_95, wilson_share
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.slo import ATTAINMENT, SloStatement, slo_statements

UNTRUSTED_VERDICTS = (Verdict.INVALID, Verdict.CLIENT_LIMITED)
"""Verdicts whose metrics do not describe the server."""

STEADY_STATE_VERDICTS = (Verdict.FEASIBLE, Verdict.UNDECIDED, Verdict.INFEASIBLE)
"""Verdicts whose metrics are of a steady state, and so can be compared."""


@dataclass(frozen=True)
class CandidateLaunches:
    """The judged trials of one candidate, in the order of their numbers."""

    candidate: Candidate
    trials: tuple[Trial, ...]

    @property
    def primary_trial(self) -> Trial:
        """The launch of the search or of the baseline, whose number stands for the candidate; else the earliest."""
        return next((trial for trial in self.trials if trial.purpose != "confirmation"), self.trials[0])

    def confirmation_count(self, points: Sequence[LoadPoint]) -> int:
        """Number of confirmation launches with trusted results at all of these load points."""
        confirmations = [trial.measurement.latest_results for trial in self.trials if trial.purpose == "confirmation"]
        return sum(
            all(point in latest and latest[point].verdict not in UNTRUSTED_VERDICTS for point in points)
            for latest in confirmations
        )

    def results_at(self, point: LoadPoint) -> list[LoadPointResult]:
        """The last result of each launch that did not fail, at one load point."""
        latest = (trial.measurement.latest_results.get(point) for trial in self.trials if not trial.failed)
        return [result for result in latest if result is not None]

    @property
    def load_points(self) -> list[LoadPoint]:
        """Every load point measured by a launch that did not fail, in the order of first measurement."""
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
    """One load point pooled over all launches of a candidate.

    `utility` and `score` are geometric means over the launches in a steady state, None without one.
    `results` are the results that were pooled, `result` the latest of them, for what is not pooled.
    """

    load_point: LoadPoint
    result: LoadPointResult
    verdict: Verdict
    utility: float | None
    score: float | None
    attainment: Share | None
    slo: Slo
    results: tuple[LoadPointResult, ...] = ()

    @property
    def launch_count(self) -> int:
        return len(self.results)

    @cached_property
    def statements(self) -> tuple[SloStatement, ...]:
        """The statements of the targets over all these launches."""
        of_launches = [
            slo_statements(r.metrics, self.slo, open_loop=r.load_point.rate is not None) for r in self.results
        ]
        return _pool_statements(of_launches, self.attainment)


def pool_results(results: Sequence[LoadPointResult], slo: Slo) -> PooledLoadPoint:
    """Pool one load point over launches: the results of a steady state, else the trusted ones, else all."""
    if len(results) == 1:
        return _pool_one(results[0], slo)
    steady_results = [result for result in results if result.verdict in STEADY_STATE_VERDICTS]
    trusted_results = [result for result in results if result.verdict not in UNTRUSTED_VERDICTS]
    used_results = steady_results or trusted_results or list(results)
    scores = [result.score for result in used_results if result.score is not None]
    attainment = _pool_shares(
        [result.metrics.attainment for result in used_results if result.metrics.attainment is not None]
    )
    point = PooledLoadPoint(
        load_point=results[-1].load_point,
        result=used_results[-1],
        verdict=used_results[-1].verdict,
        utility=_geometric_mean([score.utility for score in scores]),
        score=_geometric_mean([score.value for score in scores]),
        attainment=attainment,
        slo=slo,
        results=tuple(used_results),
    )
    return replace(point, verdict=_pooled_verdict(results, used_results, point.statements))


def _pool_one(result: LoadPointResult, slo: Slo) -> PooledLoadPoint:
    """The same as `pool_results` of one result, as nearly all are of a large run."""
    score = result.score
    return PooledLoadPoint(
        load_point=result.load_point,
        result=result,
        verdict=result.verdict,
        utility=None if score is None else _geometric_mean((score.utility,)),
        score=None if score is None else _geometric_mean((score.value,)),
        attainment=result.metrics.attainment,
        slo=slo,
        results=(result,),
    )


def _pooled_verdict(
    results: Sequence[LoadPointResult], used_results: Sequence[LoadPointResult], statements: Sequence[SloStatement]
) -> Verdict:
    """The verdict of all launches: the common one where they agree, else by the pooled SLO statements."""
    verdicts = [result.verdict for result in used_results]
    saturated_count = sum(result.verdict is Verdict.SATURATED for result in results)
    if len(set(verdicts)) == 1 and not (saturated_count and verdicts[0] is not Verdict.SATURATED):
        return verdicts[0]
    if any(verdict in UNTRUSTED_VERDICTS for verdict in verdicts):
        return verdicts[-1]
    states = {statement.state for statement in statements}
    if "fails" in states or 2 * saturated_count > len(results):
        return Verdict.INFEASIBLE
    return Verdict.FEASIBLE if states <= {"holds"} and not saturated_count else Verdict.UNDECIDED


def _pool_statements(
    statements: Sequence[Sequence[SloStatement]], attainment: Share | None
) -> tuple[SloStatement, ...]:
    """One statement of each name: attainment pooled over all requests, other statements averaged over launches."""
    names = dict.fromkeys(statement.name for launch in statements for statement in launch)
    return tuple(
        _mean_statement([s for launch in statements for s in launch if s.name == name], attainment) for name in names
    )


def _mean_statement(statements: Sequence[SloStatement], attainment: Share | None) -> SloStatement:
    """The means of the values and of the limits: the interval gets no narrower, because launches differ."""
    if len(statements) == 1:
        return statements[0]
    if statements[0].name == ATTAINMENT and attainment is not None:
        return replace(statements[0], value=attainment.value, lower=attainment.low, upper=attainment.high).with_state()

    def mean(values: Sequence[float | None]) -> float | None:
        present = [value for value in values if value is not None]
        return fmean(present) if len(present) == len(values) else None

    return replace(
        statements[0],
        value=mean([statement.value for statement in statements]),
        lower=mean([statement.lower for statement in statements]),
        upper=mean([statement.upper for statement in statements]),
    ).with_state()


def _pool_shares(shares: Sequence[Share]) -> Share | None:
    """The share over all requests of some launches, with the sum of their effective sample sizes; None of none."""
    if len(shares) < 2:
        return shares[0] if shares else None
    good, n = sum(share.value * share.n for share in shares), sum(share.n for share in shares)
    return wilson_share(
        round(good), n, sum(share.n if share.effective is None else share.effective for share in shares)
    )


def _geometric_mean(values: Sequence[float]) -> float | None:
    if len(values) == 1:
        return math.exp(math.log(values[0]))
    return math.exp(fmean(map(math.log, values))) if values else None


def log_standard_error(result: LoadPointResult, gpus: int, experiment: Experiment) -> float | None:
    """The standard error of a load point's log objective within its launch; None where it is not known."""
    objective = OBJECTIVES[experiment.optimization.objective]
    interval = objective.interval(result.metrics, gpus, experiment.hardware.price_per_gpu_hour)
    value = objective.value(result.metrics, gpus, experiment.hardware.price_per_gpu_hour)
    if interval is None or not value:
        return None
    return (interval[1] - interval[0]) / value / (2 * Z_95)


def launch_log_utilities(trials: Sequence[Trial], points: Sequence[LoadPoint]) -> list[float]:
    """Mean log utility over these load points, for each launch with a steady state at all of them."""
    logs = []
    for trial in trials:
        latest: Mapping[LoadPoint, LoadPointResult] = {} if trial.failed else trial.measurement.latest_results
        scores = [
            latest[point].score
            for point in points
            if point in latest and latest[point].verdict in STEADY_STATE_VERDICTS
        ]
        utilities = [score.utility for score in scores if score is not None]
        if points and len(utilities) == len(points):
            logs.append(fmean(map(math.log, utilities)))
    return logs
