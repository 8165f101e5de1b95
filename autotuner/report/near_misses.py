"""SLO targets that are met only within their warning band."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.core import LoadPointResult, TermOutcome, Verdict
from autotuner.experiment import Slo
from autotuner.scoring.reasons import describe_term
from autotuner.scoring.slo import term_outcomes

NEAR_MARK = " (near)"
"""Suffix of the verdict of a load point that meets a target only within its warning band."""

NEAR_LEGEND = "near: all targets are met, but at least one by less than its warning band (warn_ratio)."


def near_terms(result: LoadPointResult, slo: Slo) -> tuple[TermOutcome, ...]:
    """The SLO terms that a judged load point meets only within their warning band; none if a target is missed."""
    if result.verdict not in (Verdict.FEASIBLE, Verdict.UNDECIDED):
        return ()
    terms = term_outcomes(result.metrics, slo, open_loop=result.load_point.rate is not None)
    return tuple(term for term in terms if term.state == "warning")


def describe_terms(terms: Sequence[TermOutcome]) -> str:
    """Each term with its value and its target."""
    return "; ".join(map(describe_term, terms))
