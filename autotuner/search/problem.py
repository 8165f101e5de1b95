"""The input of a searcher."""

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
    """Predicts a candidate's performance at a load point, with operator costs scaled by factors."""

    def __call__(self, candidate: Candidate, load_point: LoadPoint, costs: CostFactors = ..., /) -> Prediction | None:
        """The prediction; None where there is none."""


def no_prediction(candidate: Candidate, load_point: LoadPoint, costs: CostFactors = UNIT_COSTS, /) -> Prediction | None:
    return None


def always_fits(candidate: Candidate) -> bool:
    return True


@dataclass(frozen=True)
class Problem:
    """The candidates, the experiment, and the prior knowledge of them.

    `fits` predicts whether the model fits into memory; `start_seconds` is the assumed duration of an engine start.
    `baseline` is the engine with its own defaults, launched first where there is one. `can_relaunch`: servers are
    started by the run, so that a winner can be confirmed even without a baseline.
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
        """How many launches a strategy may propose, the baseline's not among them."""
        return self.experiment.optimization.max_iterations - (self.baseline is not None)

    @property
    def seed(self) -> int:
        return self.experiment.optimization.seed
