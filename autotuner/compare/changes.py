"""The ratio of a figure between two runs with its interval, and the verdict: better, worse, same or unclear."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from statistics import fmean, variance

DEFAULT_TOLERANCE = 0.03
"""Relative change that does not matter; a median of launches repeats to about 1 to 2%."""

ONE_SIDED_ALPHA = 0.05
"""Probability that an end of the interval is crossed by chance, so that the interval is one of 90%."""


class Change(StrEnum):
    """How a figure of the new run compares with that of the baseline."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Noise:
    """The standard deviation of a launch's log figure, pooled over repeated launches, and its degrees of freedom."""

    sd: float = 0.0
    degrees: int = 0

    @classmethod
    def of(cls, groups: Iterable[Sequence[float]]) -> Noise:
        """The pooled standard deviation of groups of repeated launches of one configuration."""
        repeated = [group for group in groups if len(group) > 1]
        degrees = sum(len(group) - 1 for group in repeated)
        squares = sum(variance(group) * (len(group) - 1) for group in repeated)
        return cls(math.sqrt(squares / degrees), degrees) if degrees else cls()

    def pooled_with(self, other: Noise) -> Noise:
        degrees = self.degrees + other.degrees
        squares = self.sd**2 * self.degrees + other.sd**2 * other.degrees
        return Noise(math.sqrt(squares / degrees), degrees) if degrees else Noise()


@dataclass(frozen=True)
class Ratio:
    """The ratio of the new figure to the baseline's, as a logarithm with its standard error.

    `baseline_launches` and `new_launches` were compared. Without degrees of freedom there is no interval:
    one launch a side, and no repeated launch of anything, decides nothing.
    """

    log_ratio: float
    standard_error: float
    degrees: int
    baseline_launches: int
    new_launches: int

    @property
    def value(self) -> float:
        return math.exp(self.log_ratio)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 90% interval of the ratio: each end holds with 95%."""
        if not self.degrees:
            return None
        margin = _t_quantile(self.degrees, ONE_SIDED_ALPHA) * self.standard_error
        return math.exp(self.log_ratio - margin), math.exp(self.log_ratio + margin)

    @property
    def smallest_detectable_change(self) -> float | None:
        """The relative change that an interval of this width tells from none."""
        if not self.degrees:
            return None
        return math.expm1(_t_quantile(self.degrees, ONE_SIDED_ALPHA) * self.standard_error)

    def change(self, tolerance: float, *, higher_is_better: bool) -> Change:
        """The change by the interval's place relative to the tolerance, which is the same share both ways."""
        if self.interval is None:
            return Change.UNCLEAR
        low, high = self.interval if higher_is_better else (1 / self.interval[1], 1 / self.interval[0])
        lower_limit, upper_limit = 1 - tolerance, 1 / (1 - tolerance)
        if high < lower_limit:
            return Change.WORSE
        if low > upper_limit:
            return Change.BETTER
        return Change.SAME if lower_limit <= low and high <= upper_limit else Change.UNCLEAR

    def worse_p_value(self, tolerance: float) -> float:
        """The probability of a ratio this low, if the new side were worse by just the tolerance; higher is better."""
        if not self.degrees:
            return 1.0
        distance = self.log_ratio - math.log(1 - tolerance)
        if self.standard_error == 0:
            return 0.0 if distance < 0 else 1.0
        return _t_cdf(self.degrees, distance / self.standard_error)

    def excludes_worse(self, tolerance: float) -> bool:
        """Whether the new side is at most the tolerance worse, with 95% confidence; higher is better."""
        return self.interval is not None and self.interval[0] >= 1 - tolerance


def unpaired_ratio(baseline: Sequence[float], new: Sequence[float], noise: Noise) -> Ratio:
    """The ratio of the means of log figures of launches that did not take turns; `noise` is that of one launch."""
    return Ratio(
        fmean(new) - fmean(baseline),
        noise.sd * math.sqrt(1 / len(baseline) + 1 / len(new)),
        noise.degrees,
        len(baseline),
        len(new),
    )


def paired_ratio(log_ratios: Sequence[float], noise: Noise) -> Ratio:
    """The mean of log ratios of pairs that took turns.

    Their own variance is pooled with that of two launches by `noise`, which has none of the drift that
    turns cancel, so that it can only make the interval wider.
    """
    own = Noise.of([log_ratios])
    difference = own.pooled_with(Noise(noise.sd * math.sqrt(2), noise.degrees))
    return Ratio(
        fmean(log_ratios),
        difference.sd / math.sqrt(len(log_ratios)),
        difference.degrees,
        len(log_ratios),
        len(log_ratios),
    )


@lru_cache(maxsize=1024)
def _t_quantile(degrees: int, tail: float) -> float:
    from scipy import special

    return float(special.stdtrit(degrees, 1 - tail))


def _t_cdf(degrees: int, value: float) -> float:
    from scipy import special

    return float(special.stdtr(degrees, value))


def holm_rejections(p_values: Sequence[float], alpha: float = ONE_SIDED_ALPHA) -> list[bool]:
    """Which of several hypotheses Holm's step-down method rejects, at most one wrongly with probability `alpha`."""
    rejected = [False] * len(p_values)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for step, index in enumerate(order):
        if p_values[index] > alpha / (len(p_values) - step):
            break
        rejected[index] = True
    return rejected


def change_text(ratio: float, interval: tuple[float, float] | None) -> str:
    """A ratio as a relative change with its interval: `-6.0% (-8.1 to -3.9)`."""
    text = f"{(ratio - 1) * 100:+.1f}%"
    return text if interval is None else f"{text} ({(interval[0] - 1) * 100:+.1f} to {(interval[1] - 1) * 100:+.1f})"
