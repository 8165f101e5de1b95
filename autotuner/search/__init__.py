"""Which candidate next: searchers propose, the loop has them evaluated and tells them the outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from autotuner.core import Candidate, Trial
from autotuner.search.grid import Grid
from autotuner.search.random import Random
from autotuner.search.space import Space


class Searcher(Protocol):
    """Proposes candidates, each at most once, and learns from finished trials."""

    def ask(self) -> Candidate | None:
        """The next candidate to launch, or None when there is none left to try."""

    def tell(self, trial: Trial) -> None:
        """Take note of a finished trial, this run's or one read back from its record."""


SEARCHERS: dict[str, Callable[[Space, int, int], Searcher]] = {
    "grid_search": Grid,
    "random": Random,
}
"""Strategy name -> searcher, made from the space, the most launches allowed and a seed."""
