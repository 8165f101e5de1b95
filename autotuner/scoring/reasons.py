"""Why a candidate stands where it does, in one line."""

from __future__ import annotations

from autotuner.core import LoadPointResult, TermOutcome, Verdict
from autotuner.experiment import Slo
from autotuner.scoring.slo import attainment_target, is_proven, outcomes, request_terms

MEETS, MISSES, TIME_IS_UP = "clearly meets the targets", "clearly misses the targets", "time is up"
"""Why a load point was ended: with a clear answer, or without one."""


_UNITS = {"output_throughput": "output tokens/s", "request_throughput": "requests/s", "goodput": "requests/s"}
"""Of the terms that are no latency."""


def reason(result: LoadPointResult, slo: Slo) -> str:
    """What decided a judged load point's verdict, with the figures."""
    if result.verdict is Verdict.FEASIBLE:
        return "all targets met" if slo.terms else "no targets set"
    if result.verdict is Verdict.INFEASIBLE:
        return _missed(result, slo)
    if result.verdict is Verdict.UNDECIDED:
        return _unproven(result, slo)
    broken = (check for check in result.validity if not check.ok)
    return "; ".join(f"{check.name} {_figure(check.value)}, not {check.limit}" for check in broken)


def _missed(result: LoadPointResult, slo: Slo) -> str:
    every = outcomes(result.metrics, slo, open_loop=result.load_point.rate is not None)
    terms = [term for term in every if term.state in ("missed", "failed")]
    share = result.metrics.attainment
    if terms or share is None:
        return "; ".join(map(against_target, terms))
    return f"{share.value:.1%} of requests good, target {attainment_target(slo):.0%}"


def _unproven(result: LoadPointResult, slo: Slo) -> str:
    share, target = result.metrics.attainment, attainment_target(slo)
    if share and request_terms(slo) and share.low < target:
        interval = f"{share.low:.0%} to {share.high:.0%}"
        return f"{share.value:.0%} of {share.n} requests good ({interval}), target {target:.0%}: too few to tell"
    open_loop = result.load_point.rate is not None
    unproven = [term.name for term in slo.terms if not is_proven(term, result.metrics, open_loop=open_loop)]
    subject = f"{' and '.join(unproven)}: " if unproven else ""
    return f"{subject}{result.metrics.requests} requests are too few to tell"


def against_target(term: TermOutcome) -> str:
    """A term with its figure and its target, in the units of the configuration."""
    unit = _UNITS.get(term.term, "s")
    actual = "none" if term.actual is None else f"{_figure(term.actual)} {unit}"
    return f"{term.term} {actual}, target {term.threshold:g} {unit}"


def _figure(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
