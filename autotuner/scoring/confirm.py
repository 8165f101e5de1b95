"""What a run's gain is worth: the winner against the engine's defaults on launches that the search did not choose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import TYPE_CHECKING

from autotuner.scoring.intervals import Z, student

if TYPE_CHECKING:
    from autotuner.core import Trial
    from autotuner.experiment import Experiment
    from autotuner.scoring.rank import Ranking, Standing

RESOLUTION = 0.01
"""Differences, as a share, below which no two candidates are told apart, however narrow their intervals."""

ROUNDING = 0.001
"""The width of an interval, as a share, that is none."""


@dataclass(frozen=True)
class Gain:
    """How many times better the winner is than the defaults, with its 95% interval.

    `winner` and `baseline` are the launches behind it. The winner's own search trial is not among
    them: it was chosen because it came out well. The first launch of the defaults was not chosen,
    and is.
    """

    value: float
    low: float
    high: float
    winner: int
    baseline: int

    @property
    def reliable(self) -> bool:
        """Whether the whole interval lies above what can be told from no gain."""
        return self.low > 1.0 + RESOLUTION

    @property
    def loses(self) -> bool:
        """Whether the whole interval lies below no gain."""
        return self.high < 1.0

    @property
    def certain(self) -> bool:
        """Whether every launch came to the same but for rounding, as in a simulation without chance."""
        return self.high <= self.low * (1 + ROUNDING)


def spread(
    ones: Sequence[float],
    others: Sequence[float] | None,
    error: float,
    others_known: Sequence[Sequence[float]] = (),
) -> float:
    """How far the difference of two means of log utilities, or one mean, may be off at 95%.

    Launches of one candidate vary by what all groups show together, Student's t with as many degrees
    of freedom; a launch is known no better than its own `error` from within says.
    """
    groups = [group for group in (others_known or (ones, *((others,) if others else ()))) if len(group) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    between = math.sqrt(sum(variance(group) * (len(group) - 1) for group in groups) / freedom) if freedom else 0.0
    reach = max(student(freedom) * between if freedom else 0.0, Z * error)
    return reach * math.sqrt(1 / len(ones) + (1 / len(others) if others else 0.0))


def gain(ranking: Ranking, trials: Sequence[Trial], experiment: Experiment) -> Gain | None:
    """The confirmed gain of the winner; None where it is the defaults, or nothing was confirmed."""
    winner, defaults = ranking.winner, ranking.defaults
    if winner is None or defaults is None or winner.trial == defaults.trial:
        return None
    return gain_of(winner, defaults, trials, experiment)


def gain_of(best: Standing, first: Standing, trials: Sequence[Trial], experiment: Experiment) -> Gain | None:
    """The gain of a confirmed candidate over the defaults; None where either lacks launches with figures.

    Student's t on the log utilities of single launches, whose variance both candidates share.
    """
    from autotuner.scoring.judge import judge
    from autotuner.scoring.pool import grouped, launch_logs, noise

    if not best.confirmations:
        return None
    groups = {group.candidate.key: group for group in grouped(judge(trial, experiment) for trial in trials)}
    winner, defaults = groups[best.candidate.key], groups[first.candidate.key]
    again = [trial for trial in winner.trials if trial.purpose == "confirmation"]
    wins, losses = launch_logs(again, best.load_points), launch_logs(defaults.trials, first.load_points)
    if not wins or not losses or len(wins) + len(losses) < 3:
        return None
    errors = [
        error
        for group, points in ((winner, best.load_points), (defaults, first.load_points))
        for point in points
        for result in group.at(point)[-1:]
        if (error := noise(result, group.candidate.gpus, experiment)) is not None
    ]
    within = math.sqrt(fmean(error**2 for error in errors) / len(best.load_points)) if errors else 0.0
    middle, reach = fmean(wins) - fmean(losses), spread(wins, losses, within)
    return Gain(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach), len(wins), len(losses))
