"""A comparison as JSON-ready data."""

from __future__ import annotations

from typing import Any

from autotuner.compare.changes import Ratio
from autotuner.compare.comparison import Comparison
from autotuner.compare.differences import Difference
from autotuner.compare.gate import GateDecision
from autotuner.compare.headline import headline
from autotuner.core import LoadPoint


def comparison_record(comparison: Comparison, decision: GateDecision | None) -> dict[str, Any]:
    """Headline, differences, gated figures and figures of shared candidates; ratios are new / baseline."""
    states = [str(state) for _, state in decision.figures] if decision else [None] * len(comparison.gated)
    return {
        "baseline": comparison.baseline.name,
        "new": comparison.new.name,
        "sources": {"baseline": list(comparison.baseline.sources), "new": list(comparison.new.sources)},
        "tolerance": comparison.tolerance,
        "headline": headline(comparison, decision),
        "fresh_pairs": len(comparison.pairs),
        "changed": [_difference(each) for each in comparison.changed],
        "gate": str(decision.state) if decision else None,
        "gated": [
            {
                "figure": figure.name,
                "unit": figure.unit,
                "baseline": figure.baseline,
                "new": figure.new,
                "ratio": figure.value_ratio,
                "interval": figure.value_interval,
                "why_no_ratio": figure.why_no_ratio or None,
                "smallest_detectable_change": figure.ratio and figure.ratio.smallest_detectable_change,
                "change": str(figure.change),
                "state": state,
            }
            for figure, state in zip(comparison.gated, states, strict=True)
        ],
        "candidates": [
            {
                "candidate": candidate.label,
                "baseline_failure": candidate.baseline_failure,
                "new_failure": candidate.new_failure,
                "figures": [
                    {
                        **_load_point(each.load_point),
                        "figure": each.figure.name,
                        "unit": each.figure.unit,
                        "baseline": each.baseline,
                        "new": each.new,
                        **_ratio(each.ratio),
                        "change": str(each.change),
                    }
                    for each in candidate.figures
                ],
            }
            for candidate in comparison.candidates
        ],
        "only_in_baseline": [candidate.label for candidate in comparison.only_in_baseline],
        "only_in_new": [candidate.label for candidate in comparison.only_in_new],
    }


def _difference(difference: Difference) -> dict[str, str]:
    return {"name": difference.name, "baseline": difference.baseline, "new": difference.new}


def _load_point(point: LoadPoint) -> dict[str, Any]:
    return {"scenario": point.scenario, "concurrency": point.concurrency, "rate": point.rate}


def _ratio(ratio: Ratio) -> dict[str, Any]:
    return {
        "ratio": ratio.value,
        "interval": ratio.interval,
        "baseline_launches": ratio.baseline_launches,
        "new_launches": ratio.new_launches,
    }
