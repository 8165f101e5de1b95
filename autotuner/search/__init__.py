"""Which launch next: searchers propose, the loop has them evaluated and tells them the outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from autotuner.core import Trial
from autotuner.search.bayesian import Bayesian
from autotuner.search.grid import Grid
from autotuner.search.launch import Launch
from autotuner.search.problem import Problem
from autotuner.search.random import Random


class Searcher(Protocol):
    """Proposes launches, no candidate twice for the same purpose, and learns from finished trials."""

    def ask(self) -> Launch | None:
        """The next launch, or None when there is nothing left to try."""

    def tell(self, trial: Trial) -> None:
        """Take note of a finished trial, this run's or one read back from its record."""


SEARCHERS: dict[str, Callable[[Problem], Searcher]] = {
    "grid_search": Grid,
    "random": Random,
    "bayesian": Bayesian,
}
"""Strategy name -> searcher of a problem."""
