"""The reason for a verdict, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotuner.core import LoadPointResult, TermOutcome, Verdict
from autotuner.errors import pluralize
from autotuner.experiment import Slo
from autotuner.scoring.slo import ATTAINMENT, SloStatement, request_terms, slo_statements, term_outcomes

if TYPE_CHECKING:
    from autotuner.scoring.pool import PooledLoadPoint

MEETS_TARGETS, MISSES_TARGETS, TIME_LIMIT_REACHED = (
    "clearly meets the targets",
    "clearly misses the targets",
    "time is up",
)
PRECISE_ENOUGH, TOO_MANY_FAILURES = "known precisely enough", "too many requests fail"
SINGLE_CHUNK_ANSWERS = "answers come in single chunks"
"""Why a stop rule ended a load point. The texts are stored in trials.jsonl, where `judge` reads them."""

CUT_SHORT = "the window was cut short"
"""Why an interrupted load point ended early: the part of its window that was measured cannot show that targets are met.
"""

CHECK_EXPLANATIONS = {
    "tpot-defined": "answers come in a single chunk or all at once, so that no time per token is known: have the "
    "server stream, or leave the target on it out",
    "streamed": "not streamed (proxy buffering?): many tokens arrive together, so TTFT and TPOT are not the server's; "
    "turn buffering and compression of responses off on the way (nginx: proxy_buffering off), or test the server "
    "directly",
}
"""Explanations of failed checks whose names do not say enough."""

_UNITS = {"output_throughput": "output tokens/s", "request_throughput": "requests/s", "goodput": "requests/s"}
"""Units of the terms that are not latencies, which are in seconds."""


def verdict_reason(result: LoadPointResult, slo: Slo) -> str:
    """The reason for a load point's verdict, with the values that decided it."""
    statements = slo_statements(result.metrics, slo, open_loop=result.load_point.rate is not None)
    return _describe_verdict(result, result.verdict, statements, slo)


def pooled_reason(point: PooledLoadPoint, slo: Slo) -> str:
    """The reason for the verdict of a load point pooled over all launches of a candidate."""
    suffix = f", over {point.launch_count} launches" if point.launch_count > 1 else ""
    return _describe_verdict(point.result, point.verdict, point.statements, slo) + suffix


def _describe_verdict(result: LoadPointResult, verdict: Verdict, statements: Sequence[SloStatement], slo: Slo) -> str:
    """The reason for a verdict on these SLO statements; checks and hard terms are those of `result`."""
    if verdict is Verdict.FEASIBLE:
        return "all targets met" if slo.terms else "no targets set"
    if verdict is Verdict.INFEASIBLE:
        return _describe_miss(result, statements, slo)
    if verdict is Verdict.UNDECIDED:
        parts = [_describe_statement(statement, interval=True) for statement in statements if statement.state == "open"]
        too_few = (
            f"{pluralize(result.metrics.requests, 'request')} {'is' if result.metrics.requests == 1 else 'are'} too few"
        )
        return "; ".join([*parts, f"{too_few} to tell"])
    failed_checks = [check for check in result.validity if not check.ok]
    parts = [f"{check.name} {_format_value(check.value)}, not {check.limit}" for check in failed_checks]
    explained = [check.name for check in failed_checks if check.name in CHECK_EXPLANATIONS]
    # without a stream there is no TPOT either: the first explanation is the cause
    parts += [CHECK_EXPLANATIONS[name] for name in explained[:1]]
    return "; ".join(parts)


def _describe_miss(result: LoadPointResult, statements: Sequence[SloStatement], slo: Slo) -> str:
    """The statements that fail, or without any the open ones, and the hard terms that fail by their values."""
    decisive = [statement for statement in statements if statement.state == "fails"]
    decisive = decisive or [statement for statement in statements if statement.state == "open"]
    parts = [
        _describe_statement(statement) + _describe_mean_violations(statement, result, slo) for statement in decisive
    ]
    parts += [
        f"{describe_term(term)}, a hard target"
        for term in term_outcomes(result.metrics, slo, open_loop=result.load_point.rate is not None)
        if term.state == "failed" and term.term not in {statement.name for statement in decisive}
    ]
    return "; ".join(parts)


def _describe_mean_violations(statement: SloStatement, result: LoadPointResult, slo: Slo) -> str:
    """The means that violate targets on single requests: ` (mean ttft 1.1, target 1)`; empty for other statements."""
    if statement.name != ATTAINMENT:
        return ""
    outcomes = term_outcomes(result.metrics, slo, open_loop=result.load_point.rate is not None)
    names = {term.name for term in request_terms(slo)}
    violations = [f"mean {describe_term(term)}" for term in outcomes if term.violation > 0 and term.term in names]
    return f" ({'; '.join(violations)})" if violations else ""


def _describe_statement(statement: SloStatement, *, interval: bool = False) -> str:
    """`81% of requests good (74% to 87%), target 95%`, or `latency.p90 5.2 s (4.8 s to 5.9 s), target 5 s`."""

    def format_value(value: float | None) -> str:
        if statement.name == ATTAINMENT:
            return "no share" if value is None else f"{format_against_target(100 * value, 100 * statement.target)}%"
        return "none" if value is None else f"{format_against_target(value, statement.target)} {_unit(statement.name)}"

    limits = f" ({format_value(statement.lower)} to {format_value(statement.upper)})" if interval else ""
    if statement.name == ATTAINMENT:
        return f"{format_value(statement.value)} of requests good{limits}, target {format_value(statement.target)}"
    return (
        f"{statement.name} {format_value(statement.value)}{limits}, target {statement.target:g} {_unit(statement.name)}"
    )


def describe_term(term: TermOutcome) -> str:
    """A term with its value and its target, in the units of the configuration."""
    actual = (
        "none" if term.actual is None else f"{format_against_target(term.actual, term.threshold)} {_unit(term.term)}"
    )
    return f"{term.term} {actual}, target {term.threshold:g} {_unit(term.term)}"


def format_against_target(value: float, target: float) -> str:
    """The value with three digits, or with as many more as show on which side of the target it lies."""
    integer_digits = 1 + int(f"{value:e}".split("e")[1])
    for digits in range(max(3, integer_digits), 16):
        rounded = float(f"{value:.{digits}g}")
        if value == target or (rounded != target and (rounded > target) == (value > target)):
            break
    text = f"{rounded:,.{max(0, digits - integer_digits)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _unit(term: str) -> str:
    return _UNITS.get(term, "s")


def _format_value(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
