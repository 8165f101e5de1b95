"""Margin, slack, trustworthiness and steady-state utility of one load point, as a capacity search needs them."""

from __future__ import annotations

import math
from dataclasses import replace

from autotuner.core import LoadPointResult, Verdict
from autotuner.experiment import Experiment
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.reasons import TIME_LIMIT_REACHED
from autotuner.scoring.slo import ATTAINMENT, SloStatement, request_terms, slo_statements, term_distribution
from autotuner.scoring.validity import CHECK_VERDICTS
from autotuner.search.bracket import NO_ANSWER_MARGIN
from autotuner.workload import scenarios

ERROR_SHARE_CHECK = "error-share"
"""Validity check that a server fails when it is overloaded."""

LITTLES_LAW_CHECK = "littles-law"
RATE_CAPPED_CHECK = "rate-capped"
"""Validity check that fails on every attempt where `max_in_flight` holds requests back."""

SHORT_WINDOW_CHECKS = (LITTLES_LAW_CHECK, "stationarity", "sample-size")
"""Validity checks that fail when a window is short relative to a request's latency."""

RETRYABLE_CHECKS = ("stationarity", LITTLES_LAW_CHECK)
"""Validity checks that another attempt may pass."""

MIN_OPEN_ATTAINMENT = 0.75
"""Attainment below which a queue that is not steady yet will not meet its targets either; chosen by hand."""

PERCENTILES = ("p50", "p75", "p90", "p95", "p99")


def margin(result: LoadPointResult, experiment: Experiment) -> float:
    """Signed distance of a judged load point from its targets, -1 to 1; 0 or more meets them.

    It is the minimum over all SLO statements: attainment minus its target, else relative distance of the value
    from its target. NO_ANSWER_MARGIN when no request was answered.
    """
    if result.verdict in (Verdict.SATURATED, Verdict.CLIENT_LIMITED):
        return -1.0
    if result.metrics.e2e is None:
        return -1.0 if result.decided else NO_ANSWER_MARGIN
    if any(check.name == ERROR_SHARE_CHECK and not check.ok for check in result.validity):
        return -1.0
    margins = [1.0 if not experiment.slo.terms else math.inf]
    statements = slo_statements(result.metrics, experiment.slo, open_loop=result.load_point.rate is not None)
    margins += [_statement_margin(statement) for statement in statements]
    failed_terms = (term for term in (result.score.terms if result.score else ()) if term.state == "failed")
    margins += [max(-1.0, -term.violation) for term in failed_terms]
    return min(margins)


def _statement_margin(statement: SloStatement) -> float:
    """Distance to the target, -1 at worst, 0 or more meets it: a difference for attainment, else a relative one."""
    if statement.value is None:
        return -1.0
    if statement.name == ATTAINMENT:
        return statement.value - statement.target
    ratio = (statement.value - statement.target) / statement.target
    return max(-1.0, min(1.0, ratio if statement.is_minimum else -ratio))


def log_slack(result: LoadPointResult, experiment: Experiment) -> float | None:
    """Log of the factor by which latencies could have been longer with all targets met; negative when they are missed.

    Each SLO statement counts by its own value, each per-request term by the percentile at the required attainment.
    """
    open_loop, target = result.load_point.rate is not None, 100 * experiment.slo.attainment
    slacks = []
    for statement in slo_statements(result.metrics, experiment.slo, open_loop=open_loop):
        if statement.name == ATTAINMENT or statement.value is None or statement.value <= 0:
            continue
        log_ratio = math.log(statement.value / statement.target)
        slacks.append(log_ratio if statement.is_minimum else -log_ratio)
    percentile = next((name for name in PERCENTILES if int(name[1:]) >= target), PERCENTILES[-1])
    for term in request_terms(experiment.slo):
        distribution = term_distribution(term, result.metrics, open_loop=open_loop)
        if distribution is not None:
            slacks.append(math.log(term.threshold / max(float(getattr(distribution, percentile)), 1e-9)))
    return min(slacks, default=None)


def load_of(result: LoadPointResult) -> float:
    """The load point's concurrency, or its request rate in 1/s."""
    return float(result.load_point.concurrency or result.load_point.rate or 0)


def is_too_short(result: LoadPointResult) -> bool:
    """Whether a load point is invalid only for its short window, and could meet its targets in a longer one."""
    failed = {check.name for check in result.validity if not check.ok}
    share = result.metrics.attainment
    return bool(failed) and failed <= set(SHORT_WINDOW_CHECKS) and (share is None or share.value >= MIN_OPEN_ATTAINMENT)


def is_retryable(result: LoadPointResult) -> bool:
    """Whether a load point is unusable for reasons that may not recur, so that it is worth measuring again."""
    failed = [check.name for check in result.validity if not check.ok]
    others = {CHECK_VERDICTS.get(name, Verdict.INVALID) for name in failed if name not in RETRYABLE_CHECKS}
    retryable = (name in RETRYABLE_CHECKS or CHECK_VERDICTS.get(name) is Verdict.CLIENT_LIMITED for name in failed)
    return any(retryable) and others <= {Verdict.CLIENT_LIMITED, Verdict.UNDECIDED} and RATE_CAPPED_CHECK not in failed


def is_conclusive(result: LoadPointResult) -> bool:
    """Whether the requests sufficed to decide that the load point meets, or misses, its targets."""
    return result.decided not in (None, TIME_LIMIT_REACHED) or result.verdict is not Verdict.UNDECIDED


def steady_state_utility(result: LoadPointResult, gpus: int, experiment: Experiment) -> float | None:
    """Utility of a judged load point in steady state with every request good; None when no request was answered.

    The request rate of a closed loop follows from Little's law, concurrency / mean latency, which holds for windows
    that ended early too; that of an open loop is its arrival rate.
    """
    if result.metrics.e2e is None or result.metrics.e2e.mean <= 0:
        return None
    point = result.load_point
    rate = point.rate or (point.concurrency or 0) / result.metrics.e2e.mean
    prompt, output = scenarios.parse(point.scenario).mean_lengths
    metrics = replace(
        result.metrics, goodput=rate, throughput=rate * (prompt + output), output_throughput=rate * output
    )
    objective = OBJECTIVES[experiment.optimization.objective]
    value = objective.value(metrics, gpus, experiment.hardware.price_per_gpu_hour)
    return objective.utility(value) if value else None
