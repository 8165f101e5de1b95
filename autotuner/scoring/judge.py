"""What each load point of a trial is worth: its verdict, and its score after SLO penalties."""

from __future__ import annotations

from dataclasses import replace

from autotuner.core import LoadPointResult, Metrics, Score, TermOutcome, Trial, Verdict
from autotuner.experiment import Experiment, Slo
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.reasons import MEETS_TARGETS, MISSES_TARGETS
from autotuner.scoring.slo import slo_statements, term_outcomes
from autotuner.scoring.validity import CHECK_VERDICTS

_INVALIDATING_VERDICTS = (Verdict.INVALID, Verdict.CLIENT_LIMITED, Verdict.SATURATED)


def judge(trial: Trial, experiment: Experiment) -> Trial:
    """The trial with a verdict and a score on each load point; judging twice changes nothing."""
    points = tuple(
        judge_load_point(result, trial.candidate.gpus, experiment) for result in trial.measurement.load_points
    )
    return replace(trial, measurement=replace(trial.measurement, load_points=points))


def judge_load_point(result: LoadPointResult, gpus: int, experiment: Experiment) -> LoadPointResult:
    """One load point with its verdict and score; the score is None where the objective has no figure."""
    terms = term_outcomes(result.metrics, experiment.slo, open_loop=result.load_point.rate is not None)
    return replace(
        result,
        verdict=decide_verdict(result, experiment.slo),
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


def decide_verdict(result: LoadPointResult, slo: Slo) -> Verdict:
    """Untrustworthy figures first, then targets missed, then targets met but not yet proven.

    Each statement of the SLO is missed or met by its whole 95% interval: 20 good requests of 20 do
    not prove 95%. A sequential test that ended the load point decides what intervals leave open. A
    hard term whose figure is out by more than its `fail_ratio` fails whatever the share.
    """
    raised = {CHECK_VERDICTS.get(check.name, Verdict.INVALID) for check in result.validity if not check.ok}
    for gravest in _INVALIDATING_VERDICTS:
        if gravest in raised:
            return gravest
    open_loop = result.load_point.rate is not None
    states = {statement.state for statement in slo_statements(result.metrics, slo, open_loop=open_loop)}
    hard = any(term.state == "failed" for term in term_outcomes(result.metrics, slo, open_loop=open_loop))
    if hard or "fails" in states or result.decided == MISSES_TARGETS:
        return Verdict.INFEASIBLE
    if ("open" in states and result.decided != MEETS_TARGETS) or Verdict.UNDECIDED in raised:
        return Verdict.UNDECIDED
    return Verdict.FEASIBLE
