"""The verdict and the score of each load point."""

from __future__ import annotations

from dataclasses import replace

from autotuner.core import LoadPointResult, Metrics, Score, TermOutcome, Trial, Verdict
from autotuner.experiment import Experiment, Slo
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.reasons import CUT_SHORT, MEETS_TARGETS, MISSES_TARGETS
from autotuner.scoring.slo import slo_statements, term_outcomes
from autotuner.scoring.validity import CHECK_VERDICTS

_INVALIDATING_VERDICTS = (Verdict.INVALID, Verdict.CLIENT_LIMITED, Verdict.SATURATED)


def judge(trial: Trial, experiment: Experiment) -> Trial:
    """The trial with a verdict and a score for each load point; idempotent."""
    gpus = trial.candidate.gpus
    points = tuple(judge_load_point(result, gpus, experiment) for result in trial.measurement.load_points)
    return replace(trial, measurement=replace(trial.measurement, load_points=points))


def judge_load_point(result: LoadPointResult, gpus: int, experiment: Experiment) -> LoadPointResult:
    """The load point with its verdict and score; the score is None where the objective has no value."""
    terms = term_outcomes(result.metrics, experiment.slo, open_loop=result.load_point.rate is not None)
    return replace(
        result,
        verdict=decide_verdict(result, experiment.slo, terms),
        score=_score(result.metrics, terms, gpus, experiment),
    )


def _score(metrics: Metrics, terms: tuple[TermOutcome, ...], gpus: int, experiment: Experiment) -> Score | None:
    """Utility (higher is better), the penalty of missed targets, and utility / (1 + penalty); None without a value."""
    objective = OBJECTIVES[experiment.optimization.objective]
    value = objective.value(metrics, gpus, experiment.hardware.price_per_gpu_hour)
    if value is None:
        return None
    utility = objective.utility(value)
    penalty = sum(term.penalty for term in terms)
    return Score(utility, penalty, utility / (1 + penalty), terms)


def decide_verdict(result: LoadPointResult, slo: Slo, terms: tuple[TermOutcome, ...] | None = None) -> Verdict:
    """The verdict by validity checks first, then by targets missed, then by targets not yet decided.

    A target is met or missed only by its whole 95% interval: 20 good requests of 20 do not prove 95%.
    A sequential test that ended the load point decides what intervals leave open. A hard term
    violated by more than its `fail_ratio` makes the load point infeasible whatever the attainment. An
    interrupted window cannot show that the targets are met. `terms` are the outcomes of the SLO's terms
    where they are at hand.
    """
    check_verdicts = {CHECK_VERDICTS.get(check.name, Verdict.INVALID) for check in result.validity if not check.ok}
    for verdict in _INVALIDATING_VERDICTS:
        if verdict in check_verdicts:
            return verdict
    open_loop = result.load_point.rate is not None
    states = {statement.state for statement in slo_statements(result.metrics, slo, open_loop=open_loop)}
    if terms is None:
        terms = term_outcomes(result.metrics, slo, open_loop=open_loop)
    hard_failed = any(term.state == "failed" for term in terms)
    if hard_failed or "fails" in states or result.decided == MISSES_TARGETS:
        return Verdict.INFEASIBLE
    if ("open" in states and result.decided != MEETS_TARGETS) or Verdict.UNDECIDED in check_verdicts:
        return Verdict.UNDECIDED
    return Verdict.UNDECIDED if result.ended_early == CUT_SHORT else Verdict.FEASIBLE
