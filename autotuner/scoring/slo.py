"""SLO terms: violations and their penalties, which requests are good, and which statements hold.

A load point meets its targets when each of these statements holds, by its own interval and independently:

1. joint attainment: the share of requests that meet every term without a statistic is at least
   `Slo.attainment`;
2. each percentile term: p90 <= 5 s means that at least 90% of requests take at most 5 s;
3. each mean term: the mean is at most its threshold;
4. each minimum: the throughput is at least its threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from autotuner.core import Distribution, Metrics, RequestRecord, TermOutcome
from autotuner.experiment import EACH_REQUEST, Slo, SloTerm

MAX_EXPONENT = 50.0  # exp(50) is 5e21: below any other score, and far from overflow
MAX_VIOLATION = 1e6  # stands for "infinitely slow", which JSON cannot represent

ATTAINMENT = "attainment"
"""The name of the joint statement on all targets on single requests."""


def penalty(violation: float, weight: float, steepness: float) -> float:
    """weight x (exp(violation / steepness) - 1) for a positive violation, else 0; the -1 makes it continuous."""
    if violation <= 0:
        return 0.0
    return weight * math.expm1(min(violation / steepness, MAX_EXPONENT))


def term_outcomes(metrics: Metrics, slo: Slo, *, open_loop: bool) -> tuple[TermOutcome, ...]:
    """Every term held against the metrics; in an open loop TTFT and latency count from the scheduled arrival."""
    return tuple(_term_outcome(term, scored_value(term, metrics, open_loop=open_loop)) for term in slo.terms)


def scored_value(term: SloTerm, metrics: Metrics, *, open_loop: bool) -> float | None:
    """The value that a term is scored by; None is infinitely slow.

    A percentile counts errors as infinitely slow, so it means "at least this share of all
    requests". A TPOT or ITL that no request defines (one token each, or all at once) meets no target.
    """
    if term.is_minimum:
        return float(getattr(metrics, term.metric))
    samples = term_distribution(term, metrics, open_loop=open_loop)
    if samples is None:
        return None
    value: float = getattr(samples, term.scored_statistic)
    return samples.adjusted.get(term.scored_statistic, value)


def term_distribution(term: SloTerm, metrics: Metrics, *, open_loop: bool) -> Distribution | None:
    """The distribution of a latency term's metric."""
    if term.metric == "ttft":
        return metrics.ttft_from_schedule if open_loop else metrics.ttft
    if term.metric == "latency":
        return metrics.e2e_from_schedule if open_loop else metrics.e2e
    return metrics.tpot if term.metric == "tpot" else metrics.itl


def _term_outcome(term: SloTerm, value: float | None) -> TermOutcome:
    """Hold a value against one target; None is a missing metric, and counts as the largest violation.

    The violation is relative to the threshold and positive where the target is missed, also for a minimum.
    """
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


StatementState = Literal["holds", "fails", "open"]


@dataclass(frozen=True)
class SloStatement:
    """One statement that a load point must satisfy, and whether its 95% interval decides it.

    `name` is ATTAINMENT or a term's. `value` with its limits `lower` and `upper` is compared with
    `target`: shares for the attainment, seconds or rates for terms. None is infinite.
    """

    name: str
    value: float | None
    lower: float | None
    upper: float | None
    target: float
    state: StatementState
    is_minimum: bool = False

    def with_state(self) -> SloStatement:
        """The statement with its state recomputed from its interval."""
        minimum = self.is_minimum or self.name == ATTAINMENT
        return replace(self, state=_interval_state(self.lower, self.upper, self.target, is_minimum=minimum))


def slo_statements(metrics: Metrics, slo: Slo, *, open_loop: bool) -> tuple[SloStatement, ...]:
    """Every statement of the SLO on a load point; empty without targets."""
    return tuple(_generate_statements(metrics, slo, open_loop=open_loop))


def _generate_statements(metrics: Metrics, slo: Slo, *, open_loop: bool) -> Iterator[SloStatement]:
    """One statement for all per-request targets together, the attainment, and one for each other target."""
    if slo.request_terms:
        share = metrics.attainment
        if share is None:
            yield SloStatement(ATTAINMENT, None, 0.0, 1.0, slo.attainment, "fails" if metrics.e2e is None else "open")
        else:
            state = _interval_state(share.low, share.high, slo.attainment, is_minimum=True)
            yield SloStatement(ATTAINMENT, share.value, share.low, share.high, slo.attainment, state)
    for term in slo.terms:
        if term.is_minimum:
            value = float(getattr(metrics, term.metric))
            lower, upper = metrics.intervals.get(term.metric, (value, value))
            state = _interval_state(lower, upper, term.threshold, is_minimum=True)
            yield SloStatement(term.name, value, lower, upper, term.threshold, state, is_minimum=True)
        elif term.statistic != EACH_REQUEST:
            yield _statistic_statement(term, metrics, open_loop=open_loop)


def _statistic_statement(term: SloTerm, metrics: Metrics, *, open_loop: bool) -> SloStatement:
    """Whether a mean or percentile is below its threshold, by its 95% interval; "open" where that cannot be told."""
    samples = term_distribution(term, metrics, open_loop=open_loop)
    if samples is None:
        has_metric = term.metric in ("tpot", "itl") and metrics.e2e is not None
        return SloStatement(term.name, None, None, None, term.threshold, "open" if has_metric else "fails")
    value = scored_value(term, metrics, open_loop=open_loop)
    lower: float | None
    upper: float | None
    lower, upper = samples.intervals.get(term.statistic, (value, value))
    lower, upper = samples.adjusted_intervals.get(term.statistic, (lower, upper))
    return SloStatement(
        term.name, value, lower, upper, term.threshold, _interval_state(lower, upper, term.threshold, is_minimum=False)
    )


def _interval_state(lower: float | None, upper: float | None, target: float, *, is_minimum: bool) -> StatementState:
    """Whether an interval lies within the target, outside, or across it; a limit of None is infinite."""
    lower, upper = math.inf if lower is None else lower, math.inf if upper is None else upper
    if is_minimum:
        return "holds" if lower >= target else "fails" if upper < target else "open"
    return "holds" if upper <= target else "fails" if lower > target else "open"


def request_terms(slo: Slo) -> tuple[SloTerm, ...]:
    """The terms on single requests: the latency targets without a statistic."""
    return slo.request_terms


def is_good(record: RequestRecord, terms: Sequence[SloTerm], *, open_loop: bool) -> bool | None:
    """Whether a request without an error met every term; None where it lacks a term's metric."""
    margin = log_margin(record, terms, open_loop=open_loop)
    return None if margin is None else margin <= 0


def log_margin(record: RequestRecord, terms: Sequence[SloTerm], *, open_loop: bool) -> float | None:
    """The log of the largest ratio of a metric to its threshold, for a request without an error; good if <= 0.

    None where the request lacks a term's metric: a single chunk has no TPOT.
    """
    ratio = 0.0
    for term in terms:
        value = request_metric(record, term.metric, open_loop=open_loop)
        if value is None:
            return None
        ratio = max(ratio, value / term.threshold)
    return math.log(ratio) if ratio > 0 else -math.inf


def request_metric(record: RequestRecord, metric: str, *, open_loop: bool) -> float | None:
    """One request's TTFT, E2E, TPOT or mean ITL in seconds; None for TPOT and ITL where `RequestRecord.tpot` is."""
    origin = record.scheduled if open_loop else record.sent
    if metric == "ttft":
        return record.chunk_times[0] - origin
    if metric == "latency":
        return record.chunk_times[-1] - origin
    if metric == "tpot" or record.tpot is None:
        return record.tpot
    later_tokens = sum(record.chunk_tokens[1:])
    return (record.chunk_times[-1] - record.chunk_times[0]) / later_tokens if later_tokens else None
