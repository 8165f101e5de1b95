"""The combinations that no run could try, told by their reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotuner.core import Candidate
from autotuner.experiment import Experiment
from autotuner.report.formatting import label

Refused = Sequence[tuple[Candidate, str]]
"""Candidates that cannot run, and why."""

NAMED = 4
"""Combinations named for each reason."""


def by_reason(refused: Refused) -> dict[str, list[Candidate]]:
    """Each reason, with the combinations it holds for."""
    grouped: dict[str, list[Candidate]] = {}
    for candidate, reason in refused:
        grouped.setdefault(reason, []).append(candidate)
    return grouped


def reasons(refused: Refused, experiment: Experiment) -> list[str]:
    """One line for each reason, with the combinations it holds for."""
    names = [name for name, values in experiment.parameters.items() if len(values) > 1]
    return [f"{_named(candidates, names)}: {reason}" for reason, candidates in by_reason(refused).items()]


def records(refused: Refused) -> list[dict[str, Any]]:
    """Candidate and reason as JSON-ready data."""
    return [
        {"candidate": {"runtime": candidate.runtime, "parameters": dict(candidate.parameters)}, "reason": reason}
        for candidate, reason in refused
    ]


def heading(refused: Refused) -> str:
    """How many were refused."""
    return f"{len(refused)} combination{'' if len(refused) == 1 else 's'} refused before any launch:"


def _named(candidates: Sequence[Candidate], names: Sequence[str]) -> str:
    shown = "; ".join(label(candidate, names) for candidate in candidates[:NAMED])
    left = len(candidates) - NAMED
    return f"{shown}; and {left} more" if left > 0 else shown
