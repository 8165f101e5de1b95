"""What a search says of itself: what it left out, why it stopped, and among how many it chose."""

from __future__ import annotations

from dataclasses import dataclass

from autotuner.core import Candidate


@dataclass(frozen=True)
class SearchReport:
    """Why a search stopped, None while it goes on; the candidates it left out, each with the reason.

    `candidates` is how many could have been launched, None where that was not kept.
    """

    stop_reason: str | None = None
    skipped: tuple[tuple[Candidate, str], ...] = ()
    candidate_count: int | None = None


EMPTY_REPORT = SearchReport()
"""Of a search that goes on, or left nothing behind."""
