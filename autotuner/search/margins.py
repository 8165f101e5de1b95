"""What one load point says to the search for a capacity: whether it meets the targets, by how much, and its worth."""

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
"""The check by which a server shows that the load is too much for it."""

LITTLES_LAW_CHECK = "littles-law"
RATE_CAPPED_CHECK = "rate-capped"
"""The check that a bound on requests in flight breaks, however often it is tried."""

SHORT_WINDOW_CHECKS = (LITTLES_LAW_CHECK, "stationarity", "sample-size")
"""Checks that fail where a window is short against its requests."""

RETRYABLE_CHECKS = ("stationarity", LITTLES_LAW_CHECK)
"""Checks that make a load point invalid and that another try may pass."""

MIN_OPEN_ATTAINMENT = 0.75
"""The share of good requests below which a queue that was not steady yet is not going to meet the targets."""

PERCENTILES = ("p50", "p75", "p90", "p95", "p99")


def margin(result: LoadPointResult, experiment: Experiment) -> float:
    """How far a judged load point is inside its targets, 0 on the edge, from -1 to 1; NOTHING without an answer.

    It is the share of good requests above the target, unless another statement's figure is further out.
    """
    if result.verdict in (Verdict.SATURATED, Verdict.CLIENT_LIMITED):
        return -1.0
    if result.metrics.e2e is None:
        return -1.0 if result.decided else NO_ANSWER_MARGIN
    if any(check.name == ERROR_SHARE_CHECK and not check.ok for check in result.validity):
        return -1.0
    inside = [1.0 if not experiment.slo.terms else math.inf]
    stated = slo_statements(result.metrics, experiment.slo, open_loop=result.load_point.rate is not None)
    inside += [_statement_margin(statement) for statement in stated]
    hard = (term for term in (result.score.terms if result.score else ()) if term.state == "failed")
    inside += [max(-1.0, -term.violation) for term in hard]
    return min(inside)


def _statement_margin(statement: SloStatement) -> float:
    """How far a statement's figure is inside its target, from -1 to 1: a difference of shares, else a ratio."""
    if statement.value is None:
        return -1.0
    if statement.name == ATTAINMENT:
        return statement.value - statement.target
    ratio = (statement.value - statement.target) / statement.target
    return max(-1.0, min(1.0, ratio if statement.is_minimum else -ratio))


def log_slack(result: LoadPointResult, experiment: Experiment) -> float | None:
    """The log of how many times slower a judged load point could have been within its targets; below 0 it missed them.

    Of each term its own figure counts, and that of the share of requests that must be good.
    """
    open_loop, target = result.load_point.rate is not None, 100 * experiment.slo.attainment
    found = []
    for statement in slo_statements(result.metrics, experiment.slo, open_loop=open_loop):
        if statement.name == ATTAINMENT or statement.value is None or statement.value <= 0:
            continue
        ratio = math.log(statement.value / statement.target)
        found.append(ratio if statement.is_minimum else -ratio)
    name = next((name for name in PERCENTILES if int(name[1:]) >= target), PERCENTILES[-1])
    for term in request_terms(experiment.slo):
        samples = term_distribution(term, result.metrics, open_loop=open_loop)
        if samples is not None:
            found.append(math.log(term.threshold / max(float(getattr(samples, name)), 1e-9)))
    return min(found, default=None)


def load_of(result: LoadPointResult) -> float:
    """Its concurrency or its rate."""
    return float(result.load_point.concurrency or result.load_point.rate or 0)


def is_too_short(result: LoadPointResult) -> bool:
    """Whether only its being too short makes the figures of a load point worthless, and its answer open."""
    broken = {check.name for check in result.validity if not check.ok}
    share = result.metrics.attainment
    return bool(broken) and broken <= set(SHORT_WINDOW_CHECKS) and (share is None or share.value >= MIN_OPEN_ATTAINMENT)


def is_retryable(result: LoadPointResult) -> bool:
    """Whether a load point says nothing, for reasons that the next try may not meet: it is driven again."""
    broken = [check.name for check in result.validity if not check.ok]
    verdicts = {CHECK_VERDICTS.get(name, Verdict.INVALID) for name in broken if name not in RETRYABLE_CHECKS}
    told = [name for name in broken if name in RETRYABLE_CHECKS or CHECK_VERDICTS.get(name) is Verdict.CLIENT_LIMITED]
    return bool(told) and verdicts <= {Verdict.CLIENT_LIMITED, Verdict.UNDECIDED} and RATE_CAPPED_CHECK not in broken


def is_conclusive(result: LoadPointResult) -> bool:
    """Whether its requests were enough to tell that it meets the targets, or misses them."""
    return result.decided not in (None, TIME_LIMIT_REACHED) or result.verdict is not Verdict.UNDECIDED


def steady_state_utility(result: LoadPointResult, gpus: int, experiment: Experiment) -> float | None:
    """The utility of a judged load point were its flow steady and all its requests good; None without an answer.

    By Little's law a closed loop's requests/s are its concurrency over the time each takes, whether or
    not its window was ended early. An open loop's are at most what arrives.
    """
    if result.metrics.e2e is None or result.metrics.e2e.mean <= 0:
        return None
    point = result.load_point
    rate = point.rate or (point.concurrency or 0) / result.metrics.e2e.mean
    prompt, output = scenarios.parse(point.scenario).mean_lengths
    flow = replace(result.metrics, goodput=rate, throughput=rate * (prompt + output), output_throughput=rate * output)
    objective = OBJECTIVES[experiment.optimization.objective]
    value = objective.value(flow, gpus, experiment.hardware.price_per_gpu_hour)
    return objective.utility(value) if value else None
