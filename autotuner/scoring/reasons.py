"""Why a candidate stands where it does, in one line."""

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
"""Why a load point was ended: with a clear answer, without one, or because its figures are known well."""

CHECK_EXPLANATIONS = {
    "tpot-defined": "answers come in a single chunk, so that no time per token is known: have the server stream, "
    "or leave the target on it out",
}
"""What a broken check is a sign of, where its name does not say so."""

_UNITS = {"output_throughput": "output tokens/s", "request_throughput": "requests/s", "goodput": "requests/s"}
"""Of the terms that are no latency."""


def verdict_reason(result: LoadPointResult, slo: Slo) -> str:
    """What decided a judged load point's verdict, with the figures."""
    stated = slo_statements(result.metrics, slo, open_loop=result.load_point.rate is not None)
    return _describe_verdict(result, result.verdict, stated, slo)


def pooled_reason(point: PooledLoadPoint, slo: Slo) -> str:
    """The same for a load point over all launches of a candidate."""
    over = f", over {point.launch_count} launches" if point.launch_count > 1 else ""
    return _describe_verdict(point.result, point.verdict, point.statements, slo) + over


def _describe_verdict(result: LoadPointResult, verdict: Verdict, stated: Sequence[SloStatement], slo: Slo) -> str:
    """The reason for a verdict that `stated` led to; checks and hard terms are those of `result`."""
    if verdict is Verdict.FEASIBLE:
        return "all targets met" if slo.terms else "no targets set"
    if verdict is Verdict.INFEASIBLE:
        return _describe_miss(result, stated, slo)
    if verdict is Verdict.UNDECIDED:
        parts = [_describe_statement(statement, interval=True) for statement in stated if statement.state == "open"]
        few = (
            f"{pluralize(result.metrics.requests, 'request')} {'is' if result.metrics.requests == 1 else 'are'} too few"
        )
        return "; ".join([*parts, f"{few} to tell"])
    broken = [check for check in result.validity if not check.ok]
    parts = [f"{check.name} {_format_value(check.value)}, not {check.limit}" for check in broken]
    parts += [CHECK_EXPLANATIONS[check.name] for check in broken if check.name in CHECK_EXPLANATIONS]
    return "; ".join(parts)


def _describe_miss(result: LoadPointResult, stated: Sequence[SloStatement], slo: Slo) -> str:
    """What failed by its whole interval, then hard terms whose figure is too far out, else what was not shown."""
    failed = [statement for statement in stated if statement.state == "fails"]
    failed = failed or [statement for statement in stated if statement.state == "open"]
    parts = [_describe_statement(statement) + _describe_mean_violations(statement, result, slo) for statement in failed]
    parts += [
        f"{describe_term(term)}, a hard one"
        for term in term_outcomes(result.metrics, slo, open_loop=result.load_point.rate is not None)
        if term.state == "failed" and term.term not in {statement.name for statement in failed}
    ]
    return "; ".join(parts)


def _describe_mean_violations(statement: SloStatement, result: LoadPointResult, slo: Slo) -> str:
    """The means that are beyond the targets single requests are held to: ` (mean ttft 1.1, target 1)`."""
    if statement.name != ATTAINMENT:
        return ""
    every = term_outcomes(result.metrics, slo, open_loop=result.load_point.rate is not None)
    plain = {term.name for term in request_terms(slo)}
    over = [f"mean {describe_term(term)}" for term in every if term.violation > 0 and term.term in plain]
    return f" ({'; '.join(over)})" if over else ""


def _describe_statement(statement: SloStatement, *, interval: bool = False) -> str:
    """`81% of requests good (74% to 87%), target 95%`, or `latency.p90 5.2 s (4.8 s to 5.9 s), target 5 s`."""

    def shown(value: float | None) -> str:
        if statement.name == ATTAINMENT:
            return "no share" if value is None else f"{format_against_target(100 * value, 100 * statement.target)}%"
        return "none" if value is None else f"{format_against_target(value, statement.target)} {_unit(statement.name)}"

    ends = f" ({shown(statement.lower)} to {shown(statement.upper)})" if interval else ""
    if statement.name == ATTAINMENT:
        return f"{shown(statement.value)} of requests good{ends}, target {shown(statement.target)}"
    return f"{statement.name} {shown(statement.value)}{ends}, target {statement.target:g} {_unit(statement.name)}"


def describe_term(term: TermOutcome) -> str:
    """A term with its figure and its target, in the units of the configuration."""
    actual = (
        "none" if term.actual is None else f"{format_against_target(term.actual, term.threshold)} {_unit(term.term)}"
    )
    return f"{term.term} {actual}, target {term.threshold:g} {_unit(term.term)}"


def format_against_target(value: float, target: float) -> str:
    """A figure with three digits, no fewer than its whole part, and more where they tell it from a target."""
    whole = 1 + int(f"{value:e}".split("e")[1])
    for digits in range(max(3, whole), 16):
        rounded = float(f"{value:.{digits}g}")
        if value == target or (rounded != target and (rounded > target) == (value > target)):
            break
    text = f"{rounded:,.{max(0, digits - whole)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _unit(term: str) -> str:
    return _UNITS.get(term, "s")


def _format_value(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
