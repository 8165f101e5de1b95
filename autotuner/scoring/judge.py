"""What each load point of a trial is worth: its verdict, and its score after SLO penalties."""

from __future__ import annotations

from dataclasses import replace

from autotuner.core import LoadPointResult, Metrics, Score, TermOutcome, Trial, Verdict
from autotuner.experiment import Experiment, Slo
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.reasons import MEETS, MISSES
from autotuner.scoring.slo import attainment_target, is_proven, outcomes, request_terms
from autotuner.scoring.validity import CONSEQUENCES

_GRAVEST_FIRST = (Verdict.INVALID, Verdict.CLIENT_LIMITED, Verdict.SATURATED)


def judge(trial: Trial, experiment: Experiment) -> Trial:
    """The trial with a verdict and a score on each load point; judging twice changes nothing."""
    points = tuple(
        judge_load_point(result, trial.candidate.gpus, experiment) for result in trial.measurement.load_points
    )
    return replace(trial, measurement=replace(trial.measurement, load_points=points))


def judge_load_point(result: LoadPointResult, gpus: int, experiment: Experiment) -> LoadPointResult:
    """One load point with its verdict and score; the score is None where the objective has no figure."""
    terms = outcomes(result.metrics, experiment.slo, open_loop=result.load_point.rate is not None)
    return replace(
        result,
        verdict=verdict(result, experiment.slo),
        score=_score(result.metrics, terms, gpus, experiment),
    )


def _score(metrics: Metrics, terms: tuple[TermOutcome, ...], gpus: int, experiment: Experiment) -> Score | None:
    objective = OBJECTIVES[experiment.optimization.objective]
    value = objective.value(metrics, gpus, experiment.hardware.price_per_gpu_hour)
    if value is None:
        return None
    utility = objective.utility(value)
    penalty = sum(term.penalty for term in terms)
    return Score(utility, penalty, utility / (1 + penalty), terms)


def verdict(result: LoadPointResult, slo: Slo) -> Verdict:
    """Untrustworthy figures first, then targets missed, then targets met but not yet proven.

    A term is missed by its figure. The share of good requests, and each percentile, is met only
    when its whole 95% interval meets the target: 20 good requests of 20 do not prove 95%. A
    sequential test that ended the load point has the last word on the share.
    """
    raised = {CONSEQUENCES.get(check.name, Verdict.INVALID) for check in result.validity if not check.ok}
    for gravest in _GRAVEST_FIRST:
        if gravest in raised:
            return gravest
    open_loop = result.load_point.rate is not None
    terms = outcomes(result.metrics, slo, open_loop=open_loop)
    attainment, target = result.metrics.attainment, attainment_target(slo)
    if not request_terms(slo):
        attainment = None
    if any(term.state in ("missed", "failed") for term in terms) or (attainment and attainment.high < target):
        return Verdict.INFEASIBLE
    if result.decided == MISSES:
        return Verdict.INFEASIBLE
    proven = all(is_proven(term, result.metrics, open_loop=open_loop) for term in slo.terms)
    shown = result.decided == MEETS or attainment is None or attainment.low >= target
    if not proven or not shown or Verdict.UNDECIDED in raised:
        return Verdict.UNDECIDED
    return Verdict.FEASIBLE
