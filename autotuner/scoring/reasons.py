"""Why a candidate stands where it does, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotuner.core import LoadPointResult, TermOutcome, Verdict
from autotuner.errors import counted
from autotuner.experiment import Slo
from autotuner.scoring.slo import ATTAINMENT, Statement, outcomes, request_terms, statements

if TYPE_CHECKING:
    from autotuner.scoring.pool import Pooled

MEETS, MISSES, TIME_IS_UP = "clearly meets the targets", "clearly misses the targets", "time is up"
PRECISE, FAILING = "known precisely enough", "too many requests fail"
SINGLE_CHUNKS = "answers come in single chunks"
"""Why a load point was ended: with a clear answer, without one, or because its figures are known well."""

EXPLAINED = {
    "tpot-defined": "answers come in a single chunk, so that no time per token is known: have the server stream, "
    "or leave the target on it out",
}
"""What a broken check is a sign of, where its name does not say so."""

_UNITS = {"output_throughput": "output tokens/s", "request_throughput": "requests/s", "goodput": "requests/s"}
"""Of the terms that are no latency."""


def reason(result: LoadPointResult, slo: Slo) -> str:
    """What decided a judged load point's verdict, with the figures."""
    stated = statements(result.metrics, slo, open_loop=result.load_point.rate is not None)
    return _reason(result, result.verdict, stated, slo)


def pooled_reason(point: Pooled, slo: Slo) -> str:
    """The same for a load point over all launches of a candidate."""
    over = f", over {point.launches} launches" if point.launches > 1 else ""
    return _reason(point.result, point.verdict, point.statements, slo) + over


def _reason(result: LoadPointResult, verdict: Verdict, stated: Sequence[Statement], slo: Slo) -> str:
    """The reason for a verdict that `stated` led to; checks and hard terms are those of `result`."""
    if verdict is Verdict.FEASIBLE:
        return "all targets met" if slo.terms else "no targets set"
    if verdict is Verdict.INFEASIBLE:
        return _missed(result, stated, slo)
    if verdict is Verdict.UNDECIDED:
        parts = [_against_target(statement, interval=True) for statement in stated if statement.state == "open"]
        few = f"{counted(result.metrics.requests, 'request')} {'is' if result.metrics.requests == 1 else 'are'} too few"
        return "; ".join([*parts, f"{few} to tell"])
    broken = [check for check in result.validity if not check.ok]
    parts = [f"{check.name} {_figure(check.value)}, not {check.limit}" for check in broken]
    parts += [EXPLAINED[check.name] for check in broken if check.name in EXPLAINED]
    return "; ".join(parts)


def _missed(result: LoadPointResult, stated: Sequence[Statement], slo: Slo) -> str:
    """What failed by its whole interval, then hard terms whose figure is too far out, else what was not shown."""
    failed = [statement for statement in stated if statement.state == "fails"]
    failed = failed or [statement for statement in stated if statement.state == "open"]
    parts = [_against_target(statement) + _because(statement, result, slo) for statement in failed]
    parts += [
        f"{against_target(term)}, a hard one"
        for term in outcomes(result.metrics, slo, open_loop=result.load_point.rate is not None)
        if term.state == "failed" and term.term not in {statement.name for statement in failed}
    ]
    return "; ".join(parts)


def _because(statement: Statement, result: LoadPointResult, slo: Slo) -> str:
    """The means that are beyond the targets single requests are held to: ` (mean ttft 1.1, target 1)`."""
    if statement.name != ATTAINMENT:
        return ""
    every = outcomes(result.metrics, slo, open_loop=result.load_point.rate is not None)
    plain = {term.name for term in request_terms(slo)}
    over = [f"mean {against_target(term)}" for term in every if term.violation > 0 and term.term in plain]
    return f" ({'; '.join(over)})" if over else ""


def _against_target(statement: Statement, *, interval: bool = False) -> str:
    """`81% of requests good (74% to 87%), target 95%`, or `latency.p90 5.2 s (4.8 s to 5.9 s), target 5 s`."""

    def shown(value: float | None) -> str:
        if statement.name == ATTAINMENT:
            return "no share" if value is None else f"{apart(100 * value, 100 * statement.target)}%"
        return "none" if value is None else f"{apart(value, statement.target)} {_unit(statement.name)}"

    ends = f" ({shown(statement.low)} to {shown(statement.high)})" if interval else ""
    if statement.name == ATTAINMENT:
        return f"{shown(statement.value)} of requests good{ends}, target {shown(statement.target)}"
    return f"{statement.name} {shown(statement.value)}{ends}, target {statement.target:g} {_unit(statement.name)}"


def against_target(term: TermOutcome) -> str:
    """A term with its figure and its target, in the units of the configuration."""
    actual = "none" if term.actual is None else f"{apart(term.actual, term.threshold)} {_unit(term.term)}"
    return f"{term.term} {actual}, target {term.threshold:g} {_unit(term.term)}"


def apart(value: float, target: float) -> str:
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


def _figure(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
