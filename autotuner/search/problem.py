"""What a searcher is given to solve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autotuner.core import Candidate, LoadPoint, Metrics
from autotuner.experiment import Experiment
from autotuner.search.space import Space

Predict = Callable[[Candidate, LoadPoint], Metrics | None]
"""The figures a candidate is predicted to show at a load point; None where nothing can be said."""


def nothing(candidate: Candidate, load_point: LoadPoint) -> Metrics | None:
    """Predict nothing."""
    return None


@dataclass(frozen=True)
class Problem:
    """The candidates, what is asked of them, and what is believed of them beforehand.

    `predict` gives the prior; `start_seconds` is what one engine start is taken to last.
    """

    space: Space
    experiment: Experiment
    predict: Predict = nothing
    start_seconds: float = 0.0

    @property
    def limit(self) -> int:
        """The most launches of a search."""
        return self.experiment.optimization.max_iterations

    @property
    def seed(self) -> int:
        """What makes a search repeatable."""
        return self.experiment.optimization.seed
