"""The confirmed gain: the winner against the engine's defaults on fresh launches, free of selection bias."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import TYPE_CHECKING

from autotuner.scoring.intervals import Z_95, t_quantile

if TYPE_CHECKING:
    from autotuner.core import Trial
    from autotuner.experiment import Experiment
    from autotuner.scoring.rank import Ranking, Standing

EQUIVALENCE_MARGIN = 0.01
"""Relative differences below this count as ties, however narrow the intervals. Chosen by hand."""

ROUNDING_TOLERANCE = 0.001
"""Relative width of an interval below which launches differ by rounding alone."""


@dataclass(frozen=True)
class Gain:
    """The ratio of the winner's utility to the defaults', higher is better, with its 95% interval.

    `winner` and `baseline` count the launches of each. The winner's launch of the search is left out,
    because selecting the best of many biases it upwards; the first launch of the defaults was not
    selected and counts.
    """

    value: float
    low: float
    high: float
    winner: int
    baseline: int

    @property
    def is_reliable(self) -> bool:
        """Whether the whole interval lies above the equivalence margin."""
        return self.low > 1.0 + EQUIVALENCE_MARGIN

    @property
    def is_loss(self) -> bool:
        """Whether the whole interval lies below 1."""
        return self.high < 1.0

    @property
    def is_deterministic(self) -> bool:
        """Whether all launches agree up to rounding, as in a simulation without randomness."""
        return self.high <= self.low * (1 + ROUNDING_TOLERANCE)


@dataclass(frozen=True)
class LaunchVariation:
    """The standard deviation of log utility between launches of one candidate, and its degrees of freedom."""

    sd: float
    degrees: int

    @classmethod
    def pooled(cls, samples: Iterable[Sequence[float]]) -> LaunchVariation:
        """That of the log utilities of several candidates, one sample each; without repeated launches it is 0."""
        repeated = [launches for launches in samples if len(launches) > 1]
        degrees = sum(len(launches) - 1 for launches in repeated)
        squares = sum(variance(launches) * (len(launches) - 1) for launches in repeated)
        return cls(math.sqrt(squares / degrees) if degrees else 0.0, degrees)


def half_width(
    sample: Sequence[float],
    other_sample: Sequence[float] | None,
    launch_error: float,
    variation: LaunchVariation | None = None,
) -> float:
    """Half the width of the 95% interval of a mean log utility, or of the difference of two means.

    The `variation` between launches, by default that of the samples themselves, gives a Student's t interval;
    it is no narrower than `launch_error`, the standard error of one launch's log utility, implies.
    """
    if variation is None:
        variation = LaunchVariation.pooled((sample, *((other_sample,) if other_sample else ())))
    spread = t_quantile(variation.degrees) * variation.sd if variation.degrees else 0.0
    launch_half_width = max(spread, Z_95 * launch_error)
    return launch_half_width * math.sqrt(1 / len(sample) + (1 / len(other_sample) if other_sample else 0.0))


def confirmed_gain(ranking: Ranking, trials: Sequence[Trial], experiment: Experiment) -> Gain | None:
    """The gain of the winner over the defaults; None where they win, or without confirmation launches."""
    winner, defaults = ranking.winner, ranking.defaults
    if winner is None or defaults is None or winner.trial_number == defaults.trial_number:
        return None
    return gain_between(winner, defaults, trials, experiment)


def gain_between(
    challenger: Standing, defaults: Standing, trials: Sequence[Trial], experiment: Experiment
) -> Gain | None:
    """The gain of a candidate over the defaults; None where either lacks launches with steady-state figures.

    Student's t interval on the log utilities of launches, with a variance pooled over both candidates.
    """
    from autotuner.scoring.judge import judge
    from autotuner.scoring.pool import group_by_candidate, launch_log_utilities, log_standard_error

    if not challenger.confirmation_count:
        return None
    keys = {challenger.candidate.key, defaults.candidate.key}
    judged_trials = [judge(trial, experiment) for trial in trials if trial.candidate.key in keys]
    launches_by_key = {launches.candidate.key: launches for launches in group_by_candidate(judged_trials)}
    challenger_launches = launches_by_key[challenger.candidate.key]
    default_launches = launches_by_key[defaults.candidate.key]
    confirmations = [trial for trial in challenger_launches.trials if trial.purpose == "confirmation"]
    challenger_logs = launch_log_utilities(confirmations, challenger.load_points)
    default_logs = launch_log_utilities(default_launches.trials, defaults.load_points)
    if not challenger_logs or not default_logs or len(challenger_logs) + len(default_logs) < 3:
        return None
    errors = [
        error
        for launches, standing in ((challenger_launches, challenger), (default_launches, defaults))
        for point in standing.load_points
        for result in launches.results_at(point)[-1:]
        if (error := log_standard_error(result, launches.candidate.gpus, experiment)) is not None
    ]
    launch_error = math.sqrt(fmean(error**2 for error in errors) / len(challenger.load_points)) if errors else 0.0
    log_ratio = fmean(challenger_logs) - fmean(default_logs)
    margin = half_width(challenger_logs, default_logs, launch_error)
    ends = math.exp(log_ratio - margin), math.exp(log_ratio + margin)
    return Gain(math.exp(log_ratio), *ends, len(challenger_logs), len(default_logs))
