"""Whether enough requests have been seen: to tell that targets are met, or missed, and how good the objective is.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from autotuner.core import LoadPoint, RequestRecord
from autotuner.experiment import EACH, Experiment, Slo, SloTerm
from autotuner.scoring.batches import Batches, Estimate
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.reasons import FAILING, MEETS, MISSES, PRECISE, SINGLE_CHUNKS, TIME_IS_UP
from autotuner.scoring.slo import margin, request_terms, request_value
from autotuner.scoring.throughput import amounts, residence
from autotuner.scoring.validity import ERROR_SHARE, UNDEFINED_SHARE
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

REPEATED = 1.3
"""How much wider an interval is made because it is looked at again and again: about 99% for Student's 95%."""

LEAST_FAR = 20
"""Requests before which their distance from the targets says nothing: one in twenty may be of another kind."""

LEAST_SPREAD = 0.05
"""The deviation that margins are taken to have at least: requests that all came out alike may not go on to."""

SAME = 1e-12
"""Variance of margins below which they differ by rounding alone."""

LATENCIES = {"ttft": "ttft", "tpot": "tpot", "e2e": "latency"}
"""Objectives' latencies by the names that targets have for them."""

PRECISION = 0.03
"""How wide the objective's 95% interval is at most to each side, as a share, when a window may end."""

AGAIN = 1.15
"""By what factor a window has grown before its objective is looked at again."""

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
        if len(values) < LEAST_FAR:
            return "undecided"
        _, high = self.edges
        return "meets" if min(good / len(values), least_share(values, ratio)) >= high else "undecided"


def least_share(values: NDArray[np.float64], ratio: float) -> float:
    """The least that may be the share below zero, were values normal and so dependent."""
    spread = max(float(values.std(ddof=1)), LEAST_SPREAD)
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


class Test(Protocol):
    """Says of one statement of the SLO what the requests of a window, in the order they were sent, come to."""

    def decide(self, records: Sequence[RequestRecord]) -> Decision:
        """Take in all requests of the window up to the first that still runs."""


class ShareTest:
    """At least a share of all requests meets every one of `terms`: the joint attainment, or one percentile."""

    def __init__(self, terms: Sequence[SloTerm], wald: Wald, *, open_loop: bool) -> None:
        self.terms = tuple(terms)
        self.wald = wald
        self.open_loop = open_loop
        self._margins: list[float] = []
        self._taken = 0

    def decide(self, records: Sequence[RequestRecord]) -> Decision:
        """By Wald's test; a request without a figure that a term speaks of counts for nothing."""
        for record in records[self._taken :]:
            value = math.inf
            if error_class(record) is None:
                known = margin(record, self.terms, open_loop=self.open_loop)
                if known is None:
                    continue
                value = known
            self._margins.append(value)
        self._taken = len(records)
        return self.wald.decide(self._margins)


class MeanTest:
    """The mean of a latency is at most its threshold, by an interval wide enough to be looked at many times."""

    def __init__(self, term: SloTerm, *, open_loop: bool, in_flight: float) -> None:
        self.term = term
        self.open_loop = open_loop
        self.in_flight = in_flight

    def decide(self, records: Sequence[RequestRecord]) -> Decision:
        """By batch means of the requests that answered."""
        answered = [record for record in records if error_class(record) is None]
        known = (request_value(record, self.term.metric, open_loop=self.open_loop) for record in answered)
        values = [value for value in known if value is not None]
        if len(values) < LEAST:
            return "undecided"
        mean = Batches(len(values), self.in_flight).mean(values)
        if mean.high is None:
            return "undecided"
        reach = REPEATED * (mean.high - mean.value)
        if mean.value + reach <= self.term.threshold:
            return "meets"
        return "misses" if mean.value - reach > self.term.threshold else "undecided"


class Enough:
    """A stop rule: no more requests are needed once the targets are decided and the objective is known.

    It looks at the requests in the order they were sent, up to the first that still runs: those
    that have ended by some instant are more often the fast ones. The window they span lasts `least`
    seconds before targets are met, and `soonest` before they are missed: what a load point yields
    is to be known, too. After `most` seconds there is no clear answer. Where a `figure` of the
    requests is given, its interval must be narrow before targets are met; it ends at once where
    the load point can only be invalid. `per_token` says that a target is on TPOT or ITL.
    """

    def __init__(
        self,
        tests: Sequence[Test],
        *,
        least: float = 0.0,
        soonest: float | None = None,
        most: float = math.inf,
        figure: Callable[[Sequence[RequestRecord]], Estimate | None] | None = None,
        per_token: bool = False,
    ) -> None:
        self.tests = tuple(tests)
        self.least = least
        self.soonest = least if soonest is None else soonest
        self.most = most
        self.figure = figure
        self.per_token = per_token
        self._ended: dict[int, RequestRecord] = {}
        self._in_order: list[RequestRecord] = []
        self._taken = 0
        self._next = LEAST
        self._look = least
        self._precise = figure is None

    def __call__(self, records: Sequence[RequestRecord]) -> str | None:
        """Why no more requests are needed, or None."""
        for record in records[self._taken :]:
            self._ended[record.index] = record
        self._taken = len(records)
        while (record_ := self._ended.pop(len(self._in_order), None)) is not None:
            self._in_order.append(record_)
        if not self._in_order:
            return None
        lasted = self._in_order[-1].scheduled - self._in_order[0].scheduled
        answer = self._answer(lasted) if self._taken >= self._next or lasted >= self.most else None
        return answer or (TIME_IS_UP if lasted >= self.most else None)

    def _answer(self, lasted: float) -> str | None:
        self._next = self._taken + max(1, self._taken // 20)
        if lasted < min(self.least, self.soonest):
            return None
        decisions = {test.decide(self._in_order) for test in self.tests}
        if "misses" in decisions:
            return MISSES if lasted >= self.soonest else None
        if lasted < self.least:
            return None
        if self.figure is not None and self._fails():
            return FAILING
        if self.figure is not None and self._says_nothing():
            return SINGLE_CHUNKS
        if not self._is_precise(lasted) or "undecided" in decisions:
            return None
        return MEETS if self.tests else PRECISE

    def _fails(self) -> bool:
        """Whether so many requests fail that no longer window makes the load point valid."""
        return sum(error_class(record) is not None for record in self._in_order) > ERROR_SHARE * len(self._in_order) + 1

    def _says_nothing(self) -> bool:
        """Whether targets on the time per token cannot be judged: answers come in one chunk each."""
        answered = [record for record in self._in_order if error_class(record) is None]
        undefined = sum(record.tpot is None for record in answered)
        return self.per_token and undefined > UNDEFINED_SHARE * len(answered) + 1

    def _is_precise(self, lasted: float) -> bool:
        if self.figure is not None and not self._precise and lasted >= self._look:
            self._look = AGAIN * lasted
            estimate = self.figure(self._in_order)
            if estimate is not None and estimate.high is not None and estimate.value > 0:
                reach = max(estimate.high - estimate.value, estimate.value - estimate.low)
                self._precise = reach <= PRECISION * estimate.value
        return self._precise


def tests_of(slo: Slo, *, open_loop: bool, in_flight: float) -> tuple[Test, ...]:
    """A test for each statement of the SLO that single requests decide; minimums are judged at the end."""
    joint = request_terms(slo)
    chosen: list[Test] = [ShareTest(joint, Wald(slo.attainment), open_loop=open_loop)] if joint else []
    for term in slo.terms:
        if term.is_minimum or term.statistic == EACH:
            continue
        if term.share is not None:
            chosen.append(ShareTest((term,), Wald(term.share), open_loop=open_loop))
        else:
            chosen.append(MeanTest(term, open_loop=open_loop, in_flight=in_flight))
    return tuple(chosen)


def decided(slo: Slo, point: LoadPoint, *, least: float, most: float) -> Enough:
    """The rule of a load point whose answer alone matters: within its targets or not."""
    open_loop = point.rate is not None
    every = tests_of(slo, open_loop=open_loop, in_flight=point.concurrency or 1)
    if not every:
        return Enough((), least=least, most=least)
    return Enough(every, least=least, soonest=least / 2, most=most)


def precise(experiment: Experiment, point: LoadPoint) -> Enough:
    """The rule of a load point of which the objective is to be known as well, from the least duration on."""
    open_loop = point.rate is not None
    return Enough(
        tests_of(experiment.slo, open_loop=open_loop, in_flight=point.concurrency or 1),
        least=experiment.benchmark.duration,
        figure=lambda records: objective(experiment, point, records),
        per_token=any(term.metric in ("tpot", "itl") for term in experiment.slo.terms),
    )


def objective(experiment: Experiment, point: LoadPoint, records: Sequence[RequestRecord]) -> Estimate | None:
    """What the objective goes by, from a window's first requests: a latency's mean, or tokens or requests per second.

    None where no request answered. Of an open loop rates are what arrives, known beforehand.
    """
    metric = OBJECTIVES[experiment.optimization.objective].metric
    answered = [record for record in records if error_class(record) is None]
    if not answered:
        return None
    in_flight = point.concurrency or 1
    if metric in LATENCIES:
        values = [request_value(record, LATENCIES[metric], open_loop=False) for record in answered]
        defined = [value for value in values if value is not None]
        return Batches(len(defined), in_flight).mean(defined) if defined else None
    if point.concurrency is None:
        return Estimate(point.rate or 0.0, point.rate or 0.0, point.rate or 0.0)
    seconds = residence(answered)
    if not seconds.sum():
        return None
    each = amounts(answered, experiment.slo, open_loop=False)[metric]
    return Batches(len(answered), in_flight).ratio(each, seconds).scaled(in_flight)
