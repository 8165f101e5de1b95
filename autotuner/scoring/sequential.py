"""Whether enough requests have been seen to tell that a load point meets its targets, or misses them.

Wald's sequential probability ratio test on the share of good requests. Requests that were served
together are fast or slow together, so evidence is divided by the variance ratio of their margins:
the variance of batch means over what independent requests would give. Margins rather than the
good-or-not, because a run of good requests alone does not show how much they depend on each other.

Where all is far better than its targets the count of good requests says little of what margins say
at once: that they lie many deviations from zero. So targets are also met where both the share seen
and the share of a normal distribution with these margins, at the cautious end of what its mean and
deviation may be, lie above the band. The other way round it would end a load point on its first
requests, which are slower than those of a steady state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

from autotuner.core import RequestRecord
from autotuner.experiment import Slo, SloTerm
from autotuner.scoring.reasons import MEETS, MISSES, TIME_IS_UP
from autotuner.scoring.slo import attainment_target, margin, request_terms
from autotuner.scoring.window import error_class

if TYPE_CHECKING:
    from numpy.typing import NDArray

Decision = Literal["meets", "misses", "undecided"]

BAND = 0.02
ERROR_RATE = 0.05
LEAST = 10
"""Requests before which nothing is said."""

PRIOR_RATIO, PRIOR_BATCHES = 1.5, 4
"""What the variance ratio is taken for before it can be seen, and for how many batches that counts."""

CAUTION = 2.5
"""Standard errors by which margins are taken for nearer to zero than they were seen to be."""

SAME = 1e-12
"""Variance of margins below which they differ by rounding alone."""

WORST = 4.0
"""Where margins are cut off, in units of log time: an error is infinitely slow."""


@dataclass(frozen=True)
class Wald:
    """The test of a share against `target`, indifferent within `band` on either side of it.

    Outside the band it errs with a probability of at most `error_rate`. The band narrows where
    the target is close to 1.
    """

    target: float
    band: float = BAND
    error_rate: float = ERROR_RATE

    @property
    def edges(self) -> tuple[float, float]:
        """The share that clearly misses, and the share that clearly meets."""
        band = min(self.band, (1 - self.target) / 2, self.target / 2)
        return self.target - band, self.target + band

    def evidence(self, good: int, n: int) -> float:
        """Log likelihood ratio of the upper against the lower edge, for independent requests."""
        low, high = self.edges
        return good * math.log(high / low) + (n - good) * math.log((1 - high) / (1 - low))

    def decide(self, margins: Sequence[float] | NDArray[np.float64]) -> Decision:
        """What requests with these margins, in the order they were sent, say; above 0 is not good."""
        values = np.clip(np.asarray(margins, dtype=np.float64), -WORST, WORST)
        if len(values) < LEAST:
            return "undecided"
        ratio = variance_ratio(values)
        good = int((values <= 0).sum())
        found = self.evidence(good, len(values)) / ratio
        if abs(found) >= math.log((1 - self.error_rate) / self.error_rate):
            return "meets" if found > 0 else "misses"
        _, high = self.edges
        return "meets" if min(good / len(values), least_share(values, ratio)) >= high else "undecided"


def least_share(values: NDArray[np.float64], ratio: float) -> float:
    """The least that may be the share below zero, were values normal and so dependent; 0 for equal ones."""
    spread = float(values.std(ddof=1))
    if spread**2 < SAME:
        return 0.0
    far = -float(values.mean()) / spread
    return NormalDist().cdf(far - CAUTION * math.sqrt((1 + far * far / 2) * ratio / len(values)))


def variance_ratio(values: NDArray[np.float64]) -> float:
    """The variance of batch means over that of means of independent values; at least 1.

    There are about as many batches as a batch has values.
    """
    size = math.isqrt(len(values))
    batches = values[: len(values) // size * size].reshape(-1, size)
    spread = float(batches.var(ddof=1))
    if spread < SAME:
        return 1.0
    seen = size * float(batches.mean(axis=1).var(ddof=1)) / spread
    weight = len(batches) - 1
    return max(1.0, (weight * seen + PRIOR_BATCHES * PRIOR_RATIO) / (weight + PRIOR_BATCHES))


class Elapsed:
    """A stop rule: no more requests are needed once those sent in `seconds` have ended.

    A window that runs its course lets what is in flight finish under less and less load, which
    makes its last requests faster than the load would have.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, records: Sequence[RequestRecord]) -> str | None:
        """TIME_IS_UP, or None."""
        if not records:
            return None
        first = min(record.scheduled for record in records)
        return TIME_IS_UP if records[-1].finished - first >= self.seconds else None


class Enough:
    """A stop rule: no more requests are needed once they clearly meet the targets, or clearly miss them.

    It looks at the requests in the order they were sent, up to the first that still runs: those
    that have ended by some instant are more often the fast ones. Targets are not met before
    `least` seconds, and not missed before half of them: what a load point yields is to be known,
    too. After `most` seconds there is no clear answer.
    """

    def __init__(
        self,
        terms: Sequence[SloTerm],
        test: Wald,
        *,
        open_loop: bool,
        least: float = 0.0,
        most: float = math.inf,
    ) -> None:
        self.terms = tuple(terms)
        self.test = test
        self.open_loop = open_loop
        self.lasted = {"meets": Elapsed(least), "misses": Elapsed(least / 2)}
        self.elapsed = Elapsed(most)
        self._margins: dict[int, float] = {}
        self._taken = 0
        self._next = LEAST

    def __call__(self, records: Sequence[RequestRecord]) -> str | None:
        """Why no more requests are needed, or None."""
        for record in records[self._taken :]:
            self._margins[record.index] = self._margin(record)
        self._taken = len(records)
        if self._taken < self._next:
            return self.elapsed(records)
        self._next = self._taken + max(1, self._taken // 20)
        decision = self.test.decide(self._in_order())
        if decision != "undecided" and self.lasted[decision](records):
            return MEETS if decision == "meets" else MISSES
        return self.elapsed(records)

    def _in_order(self) -> list[float]:
        found: list[float] = []
        while (value := self._margins.get(len(found))) is not None:
            found.append(value)
        return found

    def _margin(self, record: RequestRecord) -> float:
        if error_class(record) is not None:
            return math.inf
        return margin(record, self.terms, open_loop=self.open_loop)


def enough(slo: Slo, *, open_loop: bool, least: float = 0.0, most: float = math.inf) -> Enough | Elapsed | None:
    """The stop rule of these targets, with the seconds it takes at least to meet them, and at most.

    Without a target that speaks of single requests, that is after `least` seconds; None where
    there are none either.
    """
    terms = request_terms(slo)
    if terms:
        return Enough(terms, Wald(attainment_target(slo)), open_loop=open_loop, least=least, most=most)
    return Elapsed(least) if least else None
