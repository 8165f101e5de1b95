"""The few figures of two winners that a gate looks at: objective, capacity, and attainment at the baseline's load."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from autotuner.compare.changes import Change, Noise, Ratio, change_text, paired_ratio, unpaired_ratio
from autotuner.compare.compared_run import LOAD_TEST_WORDS, ComparedCandidate, ComparedRun, LaunchFigures
from autotuner.compare.differences import common_winner_points
from autotuner.compare.pair_limits import MIN_PAIRS
from autotuner.core import LoadPoint
from autotuner.scoring.objective import OBJECTIVES

if TYPE_CHECKING:
    from autotuner.compare.comparison import Comparison

FigureReader = Callable[[ComparedRun, LaunchFigures], float | None]
"""The natural logarithm of a figure of one launch of a run, higher is better; None where the launch has none."""

MIN_FAILED_LAUNCHES = 2
"""Fresh launches that must fail before the new side is worse for it: a single one may be the machine's fault."""


@dataclass(frozen=True)
class GatedFigure:
    """A figure of the winners that a gate looks at.

    `ratio` is of utilities, so that higher is better; None where the sides cannot be compared in it, with the
    reason in `why_no_ratio`. `baseline` and `new` are in `unit`; `new` is None where the new run has none.
    """

    name: str
    unit: str
    baseline: float
    new: float | None
    ratio: Ratio | None
    change: Change
    higher_is_better: bool = True
    why_no_ratio: str = ""

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

    @property
    def change_text(self) -> str:
        """The relative change of the value with its interval, or why there is none."""
        if self.value_ratio is None:
            return self.why_no_ratio or "not measured"
        return change_text(self.value_ratio, self.value_interval)


def gated_figures(comparison: Comparison) -> list[GatedFigure]:
    """Objective, capacity and attainment of the winners, as far as the baseline has them."""
    figures = (_objective(comparison), _capacity(comparison), _attainment(comparison))
    return [figure for figure in figures if figure is not None]


def equal_load_points(comparison: Comparison) -> tuple[LoadPoint, ...]:
    """The load points over which an objective at equal load is read on both sides; empty where each has its own."""
    objective = OBJECTIVES[comparison.baseline.experiment.optimization.objective]
    return common_winner_points(comparison.baseline, comparison.new) if objective.at_equal_load else ()


def objective_reader(comparison: Comparison) -> FigureReader:
    """Reads the objective at the points of `equal_load_points`, or else at those at which each run's winner won."""
    points = equal_load_points(comparison)
    return lambda run, launch: launch.log_objective(points or run.winner_points)


def _objective(comparison: Comparison) -> GatedFigure | None:
    baseline, new = comparison.baseline, comparison.new
    experiment = baseline.experiment
    objective = OBJECTIVES[experiment.optimization.objective]
    points = equal_load_points(comparison)
    each_at_own_points = not points or set(points) == {*baseline.winner_points} == {*new.winner_points}
    return _gated(
        comparison,
        f"{objective.label} of the {comparison.words.best}",
        objective.unit(experiment.hardware.price_per_gpu_hour),
        objective_reader(comparison),
        higher_is_better=objective.direction == "max",
        values=(baseline.winner_value, new.winner_value) if each_at_own_points else None,
    )


def _capacity(comparison: Comparison) -> GatedFigure | None:
    load = comparison.baseline.experiment.benchmark
    figure = _gated(
        comparison,
        "capacity" if comparison.words is LOAD_TEST_WORDS else f"capacity of the {comparison.words.best}",
        "requests/s" if load.request_rates else "in flight",
        lambda run, launch: launch.log_capacity(),
    )
    if figure is None or figure.ratio is not None or comparison.new.winner is None:
        return figure
    if comparison.new.experiment.benchmark.find_capacity:
        return figure
    return replace(figure, change=Change.UNCLEAR, why_no_ratio=f"{comparison.new.name} did not search for it")


def _attainment(comparison: Comparison) -> GatedFigure | None:
    """Attainment at the load of the baseline's winner, where the new winner was measured there too."""
    points = comparison.baseline.winner_points
    figure = _gated(
        comparison,
        "attainment at the baseline's load",
        "",
        lambda run, launch: launch.log_attainment(points),
        missing_is_worse=comparison.new.winner is None,
    )
    if figure is not None and figure.ratio is None and comparison.baseline.experiment.benchmark.find_capacity:
        return None  # each launch of a capacity search has loads of its own; the capacity is that of this attainment
    return figure


def _gated(
    comparison: Comparison,
    name: str,
    unit: str,
    read: FigureReader,
    *,
    higher_is_better: bool = True,
    values: tuple[float | None, float | None] | None = None,
    missing_is_worse: bool = True,
) -> GatedFigure | None:
    """A figure of both winners, from fresh pairs where there are any; None where the baseline has none."""
    baseline, new = comparison.baseline, comparison.new
    first, second = winner_logs(baseline, read), winner_logs(new, read)
    if not first:
        return None
    sign = 1 if higher_is_better else -1
    baseline_value, new_value = values or (None, math.exp(sign * fmean(second)) if second else None)
    baseline_value = math.exp(sign * fmean(first)) if baseline_value is None else baseline_value
    noise = Noise.of(
        _launch_logs(run, candidate, read) for run in (baseline, new) for candidate in run.candidates.values()
    )
    figure = GatedFigure(name, unit, baseline_value, new_value, None, Change.UNCLEAR, higher_is_better)
    if comparison.pairs:
        return _from_pairs(figure, comparison, read, noise, missing_is_worse=missing_is_worse)
    if second:
        return _with_ratio(figure, unpaired_ratio(first, second, noise), comparison.tolerance)
    # the baseline met its targets, and no launch of the new run gave the figure
    return replace(
        figure,
        new=None,
        change=Change.WORSE if missing_is_worse else Change.UNCLEAR,
        why_no_ratio=f"{new.name} was not measured there" if new.winner else f"{new.name} has no {new.words.best}",
    )


def _from_pairs(
    figure: GatedFigure, comparison: Comparison, read: FigureReader, noise: Noise, *, missing_is_worse: bool
) -> GatedFigure:
    """The figure from the pairs that have it on both sides.

    A launch that failed is left out with its pair; the new side is worse for failures where it has
    MIN_FAILED_LAUNCHES of them, and more than the baseline.
    """
    count = len(comparison.pairs)
    logs = [(winner_logs(a, read), winner_logs(b, read)) for a, b in comparison.pairs]
    complete = [(fmean(a), fmean(b)) for a, b in logs if a and b]
    missing, missing_in_new = sum(not a for a, _ in logs), sum(not b for _, b in logs)
    if missing_is_worse and missing_in_new >= MIN_FAILED_LAUNCHES and missing_in_new > missing:
        why = f"{missing_in_new} of {count} {comparison.words.repetitions} of {comparison.new.name} gave none"
        return replace(figure, new=None, change=Change.WORSE, why_no_ratio=why)
    if len(complete) < MIN_PAIRS:
        why = f"{len(complete)} of {count} pairs have it on both sides, and {MIN_PAIRS} are needed"
        return replace(figure, change=Change.UNCLEAR, why_no_ratio=why)
    sign = 1 if figure.higher_is_better else -1
    first, second = (math.exp(sign * fmean(side)) for side in zip(*complete, strict=True))
    figure = replace(figure, baseline=first, new=second)
    return _with_ratio(figure, paired_ratio([b - a for a, b in complete], noise), comparison.tolerance)


def _with_ratio(figure: GatedFigure, ratio: Ratio, tolerance: float) -> GatedFigure:
    return replace(figure, ratio=ratio, change=ratio.change(tolerance, higher_is_better=True))


def winner_logs(run: ComparedRun, read: FigureReader) -> list[float]:
    """The logarithms of a figure of the run's winner, one for each launch that counts; empty where none has it."""
    return _launch_logs(run, run.winner, read) if run.winner else []


def _launch_logs(run: ComparedRun, candidate: ComparedCandidate, read: FigureReader) -> list[float]:
    """Of the confirmations, and of all launches where no confirmation has the figure."""

    def logs_of(launches: Sequence[LaunchFigures]) -> list[float]:
        return [log for launch in launches if (log := read(run, launch)) is not None]

    return logs_of(candidate.unbiased_launches()) or logs_of(candidate.launches)
