"""One run against a baseline: every figure that both have, and the few that a gate looks at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from autotuner.compare.changes import DEFAULT_TOLERANCE, Change, Noise, Ratio, unpaired_ratio
from autotuner.compare.compared_run import (
    FIGURES,
    LOAD_TEST_WORDS,
    TUNING_WORDS,
    ComparedCandidate,
    ComparedRun,
    Figure,
    RunWords,
)
from autotuner.compare.differences import Difference, changed, incomparable
from autotuner.compare.gated_figures import GatedFigure, gated_figures
from autotuner.core import LoadPoint

Pair = tuple[ComparedRun, ComparedRun]
"""Two runs of one launch each, that took turns: the baseline's winner, and the new one."""


@dataclass(frozen=True)
class FigureChange:
    """A figure of a candidate at a load point in both runs, in the figure's unit."""

    load_point: LoadPoint
    figure: Figure
    baseline: float
    new: float
    ratio: Ratio
    change: Change


@dataclass(frozen=True)
class CandidateChange:
    """A candidate that both runs launched, with its failures where every launch of a side failed."""

    label: str
    figures: tuple[FigureChange, ...]
    baseline_failure: str | None = None
    new_failure: str | None = None


@dataclass(frozen=True)
class Comparison:
    """A new run against the baseline; `pairs` are fresh launches that took turns, in place of the recorded ones."""

    baseline: ComparedRun
    new: ComparedRun
    tolerance: float = DEFAULT_TOLERANCE
    pairs: tuple[Pair, ...] = ()

    @property
    def words(self) -> RunWords:
        """The words for load tests where both sides are one."""
        return LOAD_TEST_WORDS if self.baseline.is_load_test and self.new.is_load_test else TUNING_WORDS

    @cached_property
    def incomparable(self) -> list[Difference]:
        """Differences that forbid a comparison."""
        return incomparable(self.baseline, self.new)

    @cached_property
    def changed(self) -> list[Difference]:
        """What was changed from the baseline."""
        return changed(self.baseline, self.new)

    @cached_property
    def candidates(self) -> list[CandidateChange]:
        """The candidates that both runs launched."""
        shared = [key for key in self.baseline.candidates if key in self.new.candidates]
        return [_candidate_change(self, self.baseline.candidates[key], self.new.candidates[key]) for key in shared]

    @cached_property
    def only_in_baseline(self) -> list[ComparedCandidate]:
        return [each for key, each in self.baseline.candidates.items() if key not in self.new.candidates]

    @cached_property
    def only_in_new(self) -> list[ComparedCandidate]:
        return [each for key, each in self.new.candidates.items() if key not in self.baseline.candidates]

    @cached_property
    def gated(self) -> list[GatedFigure]:
        """Objective, capacity and attainment of the winners, as far as the baseline has them."""
        return gated_figures(self)


def _candidate_change(comparison: Comparison, baseline: ComparedCandidate, new: ComparedCandidate) -> CandidateChange:
    points = [point for point in baseline.load_points if point in new.load_points]
    figures = (_figure_change(comparison, point, figure, baseline, new) for point in points for figure in FIGURES)
    return CandidateChange(
        baseline.label, tuple(each for each in figures if each is not None), baseline.failure, new.failure
    )


def _figure_change(
    comparison: Comparison, point: LoadPoint, figure: Figure, baseline: ComparedCandidate, new: ComparedCandidate
) -> FigureChange | None:
    first, second = baseline.log_values(point, figure.name), new.log_values(point, figure.name)
    if not first or not second:
        return None
    runs = (comparison.baseline, comparison.new)
    noise = Noise.of(each.log_values(point, figure.name) for run in runs for each in run.candidates.values())
    ratio = unpaired_ratio(first, second, noise)
    return FigureChange(
        point,
        figure,
        math.exp(fmean(first)) * figure.scale,
        math.exp(fmean(second)) * figure.scale,
        ratio,
        ratio.change(comparison.tolerance, higher_is_better=figure.higher_is_better),
    )
