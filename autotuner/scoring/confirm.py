"""What a run's gain is worth: the winner against the engine's defaults on launches that the search did not choose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import TYPE_CHECKING

from autotuner.scoring.intervals import Z_95, t_quantile

if TYPE_CHECKING:
    from autotuner.core import Trial
    from autotuner.experiment import Experiment
    from autotuner.scoring.rank import Ranking, Standing

EQUIVALENCE_MARGIN = 0.01
"""Differences, as a share, below which no two candidates are told apart, however narrow their intervals."""

ROUNDING_TOLERANCE = 0.001
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
    def is_reliable(self) -> bool:
        """Whether the whole interval lies above what can be told from no gain."""
        return self.low > 1.0 + EQUIVALENCE_MARGIN

    @property
    def is_loss(self) -> bool:
        """Whether the whole interval lies below no gain."""
        return self.high < 1.0

    @property
    def is_deterministic(self) -> bool:
        """Whether every launch came to the same but for rounding, as in a simulation without chance."""
        return self.high <= self.low * (1 + ROUNDING_TOLERANCE)


def half_width(
    sample: Sequence[float],
    other_sample: Sequence[float] | None,
    launch_error: float,
    variance_groups: Sequence[Sequence[float]] = (),
) -> float:
    """How far the difference of two means of log utilities, or one mean, may be off at 95%.

    Launches of one candidate vary by what all groups show together, Student's t with as many degrees
    of freedom; a launch is known no better than its own `error` from within says.
    """
    groups = [
        group for group in (variance_groups or (sample, *((other_sample,) if other_sample else ()))) if len(group) > 1
    ]
    freedom = sum(len(group) - 1 for group in groups)
    between = math.sqrt(sum(variance(group) * (len(group) - 1) for group in groups) / freedom) if freedom else 0.0
    reach = max(t_quantile(freedom) * between if freedom else 0.0, Z_95 * launch_error)
    return reach * math.sqrt(1 / len(sample) + (1 / len(other_sample) if other_sample else 0.0))


def confirmed_gain(ranking: Ranking, trials: Sequence[Trial], experiment: Experiment) -> Gain | None:
    """The confirmed gain of the winner; None where it is the defaults, or nothing was confirmed."""
    winner, defaults = ranking.winner, ranking.defaults
    if winner is None or defaults is None or winner.trial_number == defaults.trial_number:
        return None
    return gain_between(winner, defaults, trials, experiment)


def gain_between(best: Standing, first: Standing, trials: Sequence[Trial], experiment: Experiment) -> Gain | None:
    """The gain of a confirmed candidate over the defaults; None where either lacks launches with figures.

    Student's t on the log utilities of single launches, whose variance both candidates share.
    """
    from autotuner.scoring.judge import judge
    from autotuner.scoring.pool import group_by_candidate, launch_log_utilities, log_standard_error

    if not best.confirmation_count:
        return None
    groups = {group.candidate.key: group for group in group_by_candidate(judge(trial, experiment) for trial in trials)}
    winner, defaults = groups[best.candidate.key], groups[first.candidate.key]
    again = [trial for trial in winner.trials if trial.purpose == "confirmation"]
    wins, losses = (
        launch_log_utilities(again, best.load_points),
        launch_log_utilities(defaults.trials, first.load_points),
    )
    if not wins or not losses or len(wins) + len(losses) < 3:
        return None
    errors = [
        error
        for group, points in ((winner, best.load_points), (defaults, first.load_points))
        for point in points
        for result in group.results_at(point)[-1:]
        if (error := log_standard_error(result, group.candidate.gpus, experiment)) is not None
    ]
    within = math.sqrt(fmean(error**2 for error in errors) / len(best.load_points)) if errors else 0.0
    middle, reach = fmean(wins) - fmean(losses), half_width(wins, losses, within)
    return Gain(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach), len(wins), len(losses))
