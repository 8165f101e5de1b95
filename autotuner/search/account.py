"""What a search says of itself: what it left out, why it stopped, and among how many it chose."""

from __future__ import annotations

from dataclasses import dataclass

from autotuner.core import Candidate


@dataclass(frozen=True)
class Account:
    """Why a search stopped, None while it goes on; the candidates it left out, each with the reason.

    `candidates` is how many could have been launched, None where that was not kept.
    """

    stopped: str | None = None
    skipped: tuple[tuple[Candidate, str], ...] = ()
    candidates: int | None = None


UNFINISHED = Account()
"""Of a search that goes on, or left nothing behind."""
