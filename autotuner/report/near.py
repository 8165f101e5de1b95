"""Targets that are met by little: how a verdict says so, and by how much."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.core import LoadPointResult, TermOutcome, Verdict
from autotuner.experiment import Slo
from autotuner.report.figures import number
from autotuner.scoring.slo import outcomes

MARK = " (near)"
"""Behind the verdict of a load point that meets a target within its warning band."""

LEGEND = "near: the figures meet every target, but one of them by less than its warning band (warn_ratio)."
_UNITS = {"output_throughput": "output tokens/s", "request_throughput": "requests/s", "goodput": "requests/s"}


def near(result: LoadPointResult, slo: Slo) -> tuple[TermOutcome, ...]:
    """The terms that a judged load point meets within their warning band; none where a target is missed."""
    if result.verdict not in (Verdict.FEASIBLE, Verdict.UNDECIDED):
        return ()
    terms = outcomes(result.metrics, slo, open_loop=result.load_point.rate is not None)
    return tuple(term for term in terms if term.state == "warning")


def described(terms: Sequence[TermOutcome]) -> str:
    """Each term with its figure and its target, in the units of the configuration."""
    return "; ".join(
        f"{term.term} {number(term.actual)} {unit}, target {term.threshold:g} {unit}"
        for term in terms
        for unit in (_UNITS.get(term.term, "s"),)
    )
