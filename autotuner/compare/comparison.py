"""One run against a baseline: every figure that both have, and the few that a gate looks at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from autotuner.compare.changes import DEFAULT_TOLERANCE, Change, Noise, Ratio, paired_ratio, unpaired_ratio
from autotuner.compare.compared_run import (
    FIGURES,
    LOAD_TEST_WORDS,
    TUNING_WORDS,
    ComparedCandidate,
    ComparedRun,
    Figure,
    LaunchFigures,
    RunWords,
)
from autotuner.compare.differences import Difference, changed, incomparable
from autotuner.core import LoadPoint
from autotuner.scoring.objective import OBJECTIVES

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
class GatedFigure:
    """A figure of the winners that a gate looks at.

    `ratio` is of utilities, so that higher is better; None where the new run has no such figure. `baseline` and
    `new` are in `unit`.
    """

    name: str
    unit: str
    baseline: float
    new: float | None
    ratio: Ratio | None
    change: Change
    higher_is_better: bool = True

    @property
    def value_ratio(self) -> float | None:
        """The ratio of the values themselves."""
        if self.ratio is None:
            return None
        return self.ratio.value if self.higher_is_better else 1 / self.ratio.value

    @property
    def value_interval(self) -> tuple[float, float] | None:
        """The 90% interval of `value_ratio`."""
        if self.ratio is None or self.ratio.interval is None:
            return None
        low, high = self.ratio.interval
        return (low, high) if self.higher_is_better else (1 / high, 1 / low)


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
        return [figure for figure in (_objective(self), _capacity(self), _attainment(self)) if figure is not None]


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


def _objective(comparison: Comparison) -> GatedFigure | None:
    baseline, new = comparison.baseline, comparison.new
    experiment = baseline.experiment
    objective = OBJECTIVES[experiment.optimization.objective]
    return _gated(
        comparison,
        f"{objective.label} of the {comparison.words.best}",
        objective.unit(experiment.hardware.price_per_gpu_hour),
        lambda run, launch: launch.log_objective(run.winner_points),
        higher_is_better=objective.direction == "max",
        values=(baseline.winner_value, new.winner_value),
    )


def _capacity(comparison: Comparison) -> GatedFigure | None:
    load = comparison.baseline.experiment.benchmark
    return _gated(
        comparison,
        "capacity" if comparison.words is LOAD_TEST_WORDS else f"capacity of the {comparison.words.best}",
        "requests/s" if load.request_rates else "in flight",
        lambda run, launch: launch.log_capacity(),
    )


def _attainment(comparison: Comparison) -> GatedFigure | None:
    """Attainment at the load of the baseline's winner, where the new winner was measured there too."""
    points = comparison.baseline.winner_points
    return _gated(
        comparison, "attainment at the baseline's load", "", lambda run, launch: launch.log_attainment(points)
    )


def _gated(
    comparison: Comparison,
    name: str,
    unit: str,
    read: Callable[[ComparedRun, LaunchFigures], float | None],
    *,
    higher_is_better: bool = True,
    values: tuple[float | None, float | None] | None = None,
) -> GatedFigure | None:
    """A figure of both winners, from fresh pairs where there are any; None where the baseline has none."""
    baseline, new = comparison.baseline, comparison.new
    first, second = _winner_logs(baseline, read), _winner_logs(new, read)
    if not first:
        return None
    sign = 1 if higher_is_better else -1
    baseline_value, new_value = values or (None, math.exp(sign * fmean(second)) if second else None)
    baseline_value = math.exp(sign * fmean(first)) if baseline_value is None else baseline_value
    noise = Noise.of(
        [log for launch in candidate.unbiased_launches() if (log := read(run, launch)) is not None]
        for run in (baseline, new)
        for candidate in run.candidates.values()
    )
    if comparison.pairs:
        pair_logs = [(_winner_logs(a, read), _winner_logs(b, read)) for a, b in comparison.pairs]
        if not all(a for a, _ in pair_logs):
            return GatedFigure(name, unit, baseline_value, new_value, None, Change.UNCLEAR, higher_is_better)
        if not all(b for _, b in pair_logs):
            return GatedFigure(name, unit, baseline_value, None, None, Change.WORSE, higher_is_better)
        a_mean, b_mean = (fmean(fmean(logs) for logs in side) for side in zip(*pair_logs, strict=True))
        baseline_value, new_value = math.exp(sign * a_mean), math.exp(sign * b_mean)
        ratio = paired_ratio([fmean(b) - fmean(a) for a, b in pair_logs], noise)
    elif second:
        ratio = unpaired_ratio(first, second, noise)
    else:
        # the baseline met its targets, and no launch of the new run gave the figure
        missing = Change.UNCLEAR if name.startswith("attainment") and new.winner is not None else Change.WORSE
        return GatedFigure(name, unit, baseline_value, None, None, missing, higher_is_better)
    change = ratio.change(comparison.tolerance, higher_is_better=True)
    return GatedFigure(name, unit, baseline_value, new_value, ratio, change, higher_is_better)


def _winner_logs(run: ComparedRun, read: Callable[[ComparedRun, LaunchFigures], float | None]) -> list[float]:
    winner = run.winner
    launches: Iterable[LaunchFigures] = winner.unbiased_launches() if winner else ()
    logs = (read(run, launch) for launch in launches)
    return [log for log in logs if log is not None]


def headline(comparison: Comparison) -> str:
    """What the gated figures say, in one sentence."""
    figures: Sequence[GatedFigure] = comparison.gated
    if not figures:
        return f"{comparison.baseline.name} has no {comparison.words.best}, so that there is nothing to compare with."
    objective = figures[0]
    words = comparison.words
    name, size = comparison.new.name, _size_text(objective, words)
    if objective.ratio is None:
        return f"{name} has no {comparison.words.best} to compare, where {comparison.baseline.name} has one."
    if objective.change in (Change.BETTER, Change.WORSE):
        return f"{name} is {objective.change}: {objective.name} {size}."
    if objective.change is Change.SAME:
        return f"No difference beyond {comparison.tolerance:.0%} in {objective.name}: {size}."
    smallest = objective.ratio.smallest_detectable_change
    reason = (
        f"one {words.repetition} a side, and none that was repeated, decides nothing"
        if smallest is None
        else f"a change below about {smallest:.1%} could not be told from noise"
    )
    return f"Unclear in {objective.name}: {size}; {reason}."


def _size_text(figure: GatedFigure, words: RunWords) -> str:
    if figure.value_ratio is None or figure.ratio is None:
        return "not measured"
    counts = figure.ratio.baseline_launches, figure.ratio.new_launches
    launches = (
        f"one {words.repetition} each" if counts == (1, 1) else f"{counts[0]} and {counts[1]} {words.repetitions}"
    )
    return f"{change_text(figure.value_ratio, figure.value_interval)}, {launches}"


def change_text(ratio: float, interval: tuple[float, float] | None) -> str:
    """A ratio as a relative change with its interval: `-6.0% (-8.1 to -3.9)`."""
    text = f"{(ratio - 1) * 100:+.1f}%"
    return text if interval is None else f"{text} ({(interval[0] - 1) * 100:+.1f} to {(interval[1] - 1) * 100:+.1f})"
