"""The interface of a search strategy, and what it reports about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autotuner.core import Candidate, Trial
from autotuner.search.launch import Launch


@dataclass(frozen=True)
class SearchReport:
    """Why a search stopped, None while it goes on, and the candidates it did not launch, each with the reason.

    `candidate_count` is how many could have been launched; None where that was not recorded.
    """

    stop_reason: str | None = None
    skipped: tuple[tuple[Candidate, str], ...] = ()
    candidate_count: int | None = None


EMPTY_REPORT = SearchReport()
"""Of a search that goes on, or that recorded nothing."""


class Searcher(Protocol):
    """Proposes launches, no candidate twice for the same purpose, and learns from finished trials.

    Launches may run side by side: those proposed and not told of yet are taken into account.
    """

    def preview(self) -> tuple[Launch, ...]:
        """The launches of the search if nothing were measured, most promising first; at least as many as it makes."""

    def ask(self) -> Launch | None:
        """The next launch; None when there is nothing to launch now, though there may be after another `tell`."""

    def tell(self, trial: Trial) -> None:
        """Record a finished trial, of this run or read back from a run folder."""

    @property
    def report(self) -> SearchReport:
        """The state of the search; a function of the trials alone, so that a resumed run reports the same."""
