"""SLO terms: how far a figure is from its target, what that costs, and which requests are good."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotuner.core import Distribution, Metrics, RequestRecord, TermOutcome
from autotuner.experiment import LATENCY_METRICS, Slo, SloTerm

MAX_EXPONENT = 50.0  # exp(50) is 5e21: below any other score, and far from overflow
MAX_VIOLATION = 1e6  # stands for "infinitely slow", which JSON cannot say


def penalty(violation: float, weight: float, steepness: float) -> float:
    """weight x (exp(violation / steepness) - 1) above the target, 0 below.

    The -1 makes it continuous: without it a miss by nothing would already cost `weight`.
    """
    if violation <= 0:
        return 0.0
    return weight * math.expm1(min(violation / steepness, MAX_EXPONENT))


def outcomes(metrics: Metrics, slo: Slo, *, open_loop: bool) -> tuple[TermOutcome, ...]:
    """How every term came out; in an open loop TTFT and latency run from the scheduled arrival."""
    return tuple(_outcome(term, actual(term, metrics, open_loop=open_loop)) for term in slo.terms)


def actual(term: SloTerm, metrics: Metrics, *, open_loop: bool) -> float | None:
    """The figure a term is held against; None is infinitely slow.

    A percentile counts errors as infinitely slow, so it means "at least this share of all
    requests". A TPOT or ITL that no request defines (one token each) is 0.
    """
    if term.is_minimum:
        return float(getattr(metrics, term.metric))
    found = distribution(term, metrics, open_loop=open_loop)
    if found is None:
        return 0.0 if term.metric in ("tpot", "itl") and metrics.e2e is not None else None
    plain: float = getattr(found, term.statistic)
    return found.adjusted.get(term.statistic, plain)


def distribution(term: SloTerm, metrics: Metrics, *, open_loop: bool) -> Distribution | None:
    """The samples a latency term speaks about."""
    if term.metric == "ttft":
        return metrics.ttft_from_schedule if open_loop else metrics.ttft
    if term.metric == "latency":
        return metrics.e2e_from_schedule if open_loop else metrics.e2e
    return metrics.tpot if term.metric == "tpot" else metrics.itl


def is_proven(term: SloTerm, metrics: Metrics, *, open_loop: bool) -> bool:
    """Whether a percentile term is met by its interval too: "p90 <= 5 s" is a statement about a share."""
    if term.is_minimum or term.statistic == "mean":
        return True
    found = distribution(term, metrics, open_loop=open_loop)
    if found is None or term.statistic not in found.intervals:
        return True
    high = found.intervals[term.statistic][1]
    return high is not None and high <= term.threshold


def _outcome(term: SloTerm, value: float | None) -> TermOutcome:
    violation = MAX_VIOLATION if value is None else min((value - term.threshold) / term.threshold, MAX_VIOLATION)
    if term.is_minimum:
        violation = -violation
    cost = penalty(violation, term.weight, term.steepness)
    if violation > 0:
        failed = term.hard_fail and violation > term.fail_ratio
        return TermOutcome(term.name, value, term.threshold, violation, cost, "failed" if failed else "missed")
    warned = value is not None and (
        value < term.threshold / term.warn_ratio if term.is_minimum else value > term.threshold * term.warn_ratio
    )
    return TermOutcome(term.name, value, term.threshold, violation, cost, "warning" if warned else "met")


def request_terms(slo: Slo) -> tuple[SloTerm, ...]:
    """The terms one request is held to: for each latency metric, the loosest threshold.

    `{p50: 1 s, p99: 3 s}` asks 1 s of half the requests only; each of them owes 3 s.
    """
    loosest: dict[str, SloTerm] = {}
    for term in slo.terms:
        if term.metric in LATENCY_METRICS and (
            term.metric not in loosest or term.threshold > loosest[term.metric].threshold
        ):
            loosest[term.metric] = term
    return tuple(loosest.values())


def attainment_target(slo: Slo) -> float:
    """The share of requests that must be good: no more than a percentile term itself asks for."""
    shares = [int(term.statistic[1:]) / 100 for term in request_terms(slo) if term.statistic != "mean"]
    return min([slo.attainment, *shares])


def is_good(record: RequestRecord, terms: Sequence[SloTerm], *, open_loop: bool) -> bool:
    """Whether a request that answered met every term."""
    return all(_request_value(record, term.metric, open_loop=open_loop) <= term.threshold for term in terms)


def margin(record: RequestRecord, terms: Sequence[SloTerm], *, open_loop: bool) -> float:
    """The log of the worst figure of a request that answered over its threshold; at most 0 when it is good."""
    values = (_request_value(record, term.metric, open_loop=open_loop) / term.threshold for term in terms)
    worst = max(values, default=0.0)
    return math.log(worst) if worst > 0 else -math.inf


def _request_value(record: RequestRecord, metric: str, *, open_loop: bool) -> float:
    origin = record.scheduled if open_loop else record.sent
    if metric == "ttft":
        return record.chunk_times[0] - origin
    if metric == "latency":
        return record.chunk_times[-1] - origin
    if metric == "tpot":
        return record.tpot or 0.0
    later = sum(record.chunk_tokens[1:])
    return (record.chunk_times[-1] - record.chunk_times[0]) / later if later else 0.0
