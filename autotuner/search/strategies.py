"""The search strategies by name, and what every one of them is wrapped in."""

from __future__ import annotations

from collections.abc import Callable

from autotuner.search.bayesian import Bayesian
from autotuner.search.confirmed import Proven
from autotuner.search.grid import Grid
from autotuner.search.problem import Problem
from autotuner.search.protocol import Searcher
from autotuner.search.racing import Racing
from autotuner.search.random import Random

SEARCHERS: dict[str, Callable[[Problem], Searcher]] = {
    "racing": Racing,
    "grid_search": Grid,
    "random": Random,
    "bayesian": Bayesian,
}
"""Strategy name -> searcher of a problem."""


def searcher(problem: Problem) -> Searcher:
    """The searcher of a problem's strategy, with baseline, confirmation and budgets."""
    return Proven(problem, SEARCHERS[problem.experiment.optimization.strategy](problem))
