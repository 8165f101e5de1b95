"""The combinations that no run could try, told by their reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotuner.core import Candidate
from autotuner.experiment import Experiment
from autotuner.report.formatting import candidate_label

RefusedCandidates = Sequence[tuple[Candidate, str]]
"""Candidates that cannot run, and why."""

MAX_NAMED_CANDIDATES = 4
"""Combinations named for each reason."""


def group_by_reason(refused: RefusedCandidates) -> dict[str, list[Candidate]]:
    """Each reason, with the combinations it holds for."""
    grouped: dict[str, list[Candidate]] = {}
    for candidate, reason in refused:
        grouped.setdefault(reason, []).append(candidate)
    return grouped


def reason_lines(refused: RefusedCandidates, experiment: Experiment) -> list[str]:
    """One line for each reason, with the combinations it holds for."""
    names = [name for name, values in experiment.parameters.items() if len(values) > 1]
    return [
        f"{_candidate_list(candidates, names)}: {reason}" for reason, candidates in group_by_reason(refused).items()
    ]


def refusal_records(refused: RefusedCandidates) -> list[dict[str, Any]]:
    """Candidate and reason as JSON-ready data."""
    return [
        {"candidate": {"runtime": candidate.runtime, "parameters": dict(candidate.parameters)}, "reason": reason}
        for candidate, reason in refused
    ]


def refusal_heading(refused: RefusedCandidates) -> str:
    """How many were refused."""
    return f"{len(refused)} combination{'' if len(refused) == 1 else 's'} refused before any launch:"


def _candidate_list(candidates: Sequence[Candidate], names: Sequence[str]) -> str:
    shown = "; ".join(candidate_label(candidate, names) for candidate in candidates[:MAX_NAMED_CANDIDATES])
    left = len(candidates) - MAX_NAMED_CANDIDATES
    return f"{shown}; and {left} more" if left > 0 else shown
