"""The search strategies by name, and the wrapper around each of them."""

from __future__ import annotations

from collections.abc import Callable

from autotuner.search.bayesian import BayesianSearch
from autotuner.search.confirmed import ConfirmedSearch
from autotuner.search.grid import GridSearch
from autotuner.search.problem import Problem
from autotuner.search.protocol import Searcher
from autotuner.search.racing import RacingSearch
from autotuner.search.random import RandomSearch

SEARCHERS: dict[str, Callable[[Problem], Searcher]] = {
    "racing": RacingSearch,
    "grid_search": GridSearch,
    "random": RandomSearch,
    "bayesian": BayesianSearch,
}
"""Strategy name -> searcher of a problem."""


def searcher_for(problem: Problem) -> Searcher:
    """The searcher of the problem's strategy, with baseline, confirmations and budgets."""
    return ConfirmedSearch(problem, SEARCHERS[problem.experiment.optimization.strategy](problem))
