"""What a search says of itself: what it left out, and why it stopped."""

from __future__ import annotations

from dataclasses import dataclass

from autotuner.core import Candidate


@dataclass(frozen=True)
class Account:
    """Why a search stopped, None while it goes on; the candidates it left out, each with the reason."""

    stopped: str | None = None
    skipped: tuple[tuple[Candidate, str], ...] = ()


UNFINISHED = Account()
"""Of a search that goes on, or left nothing behind."""
