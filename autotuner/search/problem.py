"""What a searcher is given to solve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from autotuner.core import Candidate, LoadPoint
from autotuner.experiment import Experiment
from autotuner.predict.efficiencies import UNIT_COSTS, CostFactors
from autotuner.predict.predict import Prediction
from autotuner.search.space import Space


class Predictor(Protocol):
    """What a candidate is predicted to do at a load point, with operators of some costs."""

    def __call__(self, candidate: Candidate, load_point: LoadPoint, costs: CostFactors = ..., /) -> Prediction | None:
        """The prediction; None where nothing can be said."""


def no_prediction(candidate: Candidate, load_point: LoadPoint, costs: CostFactors = UNIT_COSTS, /) -> Prediction | None:
    """Predict nothing."""
    return None


def always_fits(candidate: Candidate) -> bool:
    """Expect every candidate to fit."""
    return True


@dataclass(frozen=True)
class Problem:
    """The candidates, what is asked of them, and what is believed of them beforehand.

    `predict` gives the prior, `holds` whether the model is expected to fit; `start_seconds` is what
    one engine start is taken to last. `baseline` is the engine with its own defaults, which is
    launched first where there is one. `relaunches` says that servers are started here, so that a
    winner can be confirmed with nothing to compare it with, too.
    """

    space: Space
    experiment: Experiment
    predict: Predictor = no_prediction
    fits: Callable[[Candidate], bool] = always_fits
    start_seconds: float = 0.0
    baseline: Candidate | None = None
    can_relaunch: bool = False

    @property
    def max_launches(self) -> int:
        """The most launches a strategy may ask for, beside the baseline's."""
        return self.experiment.optimization.max_iterations - (self.baseline is not None)

    @property
    def seed(self) -> int:
        """What makes a search repeatable."""
        return self.experiment.optimization.seed
