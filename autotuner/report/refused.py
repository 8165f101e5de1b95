"""Lists the candidates that cannot be launched, grouped by reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotuner.core import Candidate
from autotuner.errors import pluralize
from autotuner.experiment import Experiment
from autotuner.report.formatting import candidate_label

RefusedCandidates = Sequence[tuple[Candidate, str]]
"""(Candidate, reason it cannot run) pairs."""

MAX_NAMED_CANDIDATES = 4
"""Candidates listed by name for each reason."""


def group_by_reason(refused: RefusedCandidates) -> dict[str, list[Candidate]]:
    """Reason -> the candidates refused for it."""
    grouped: dict[str, list[Candidate]] = {}
    for candidate, reason in refused:
        grouped.setdefault(reason, []).append(candidate)
    return grouped


def reason_lines(refused: RefusedCandidates, experiment: Experiment, max_reasons: int) -> list[str]:
    """One line per reason, with the candidates refused for it, and one for all reasons beyond `max_reasons`."""
    names = [name for name, values in experiment.parameters.items() if len(values) > 1]
    reasons = list(group_by_reason(refused).items())
    lines = [f"{_candidate_list(candidates, names)}: {reason}" for reason, candidates in reasons[:max_reasons]]
    others = reasons[max_reasons:]
    if others:
        count = sum(len(candidates) for _, candidates in others)
        lines.append(f"and {count:,} more, for {pluralize(len(others), 'other reason')}")
    return lines


def refusal_records(refused: RefusedCandidates) -> list[dict[str, Any]]:
    """Candidates and reasons as JSON-ready data."""
    return [
        {"candidate": {"runtime": candidate.runtime, "parameters": dict(candidate.parameters)}, "reason": reason}
        for candidate, reason in refused
    ]


def refusal_heading(refused: RefusedCandidates) -> str:
    return f"{len(refused)} combination{'' if len(refused) == 1 else 's'} refused before any launch:"


def _candidate_list(candidates: Sequence[Candidate], names: Sequence[str]) -> str:
    names_text = "; ".join(candidate_label(candidate, names) for candidate in candidates[:MAX_NAMED_CANDIDATES])
    omitted = len(candidates) - MAX_NAMED_CANDIDATES
    return f"{names_text}; and {omitted} more" if omitted > 0 else names_text
