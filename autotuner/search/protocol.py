"""What a search strategy is."""

from __future__ import annotations

from typing import Protocol

from autotuner.core import Trial
from autotuner.search.account import SearchReport
from autotuner.search.launch import Launch


class Searcher(Protocol):
    """Proposes launches, no candidate twice for the same purpose, and learns from finished trials."""

    def ask(self) -> Launch | None:
        """The next launch, or None when there is nothing to try now; there may be after another tell."""

    def tell(self, trial: Trial) -> None:
        """Take note of a finished trial, this run's or one read back from its record."""

    @property
    def report(self) -> SearchReport:
        """What was left out, and why it stopped; told of all trials of a record it says the same again."""
