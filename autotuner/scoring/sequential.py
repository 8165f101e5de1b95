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
from autotuner.experiment import EACH_REQUEST, Experiment, Slo, SloTerm
from autotuner.scoring.batches import BatchMeans, Estimate
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.reasons import (
    MEETS_TARGETS,
    MISSES_TARGETS,
    PRECISE_ENOUGH,
    SINGLE_CHUNK_ANSWERS,
    TIME_LIMIT_REACHED,
    TOO_MANY_FAILURES,
)
from autotuner.scoring.slo import log_margin, request_metric, request_terms
from autotuner.scoring.throughput import request_amounts, residence_times
from autotuner.scoring.validity import MAX_ERROR_SHARE, MAX_SHARE_WITHOUT_TPOT
from autotuner.scoring.window import error_class

if TYPE_CHECKING:
    from numpy.typing import NDArray

Decision = Literal["meets", "misses", "undecided"]

INDIFFERENCE_BAND = 0.02
ERROR_RATE = 0.05
MIN_REQUESTS = 10
"""Requests before which nothing is said."""

PRIOR_VARIANCE_RATIO, PRIOR_BATCHES = 1.5, 4
"""What the variance ratio is taken for before it can be seen, and for how many batches that counts."""

MARGIN_Z = 2.5
"""Standard errors by which margins are taken for nearer to zero than they were seen to be."""

REPEATED_LOOK_FACTOR = 1.3
"""How much wider an interval is made because it is looked at again and again: about 99% for Student's 95%."""

MIN_NORMAL_REQUESTS = 20
"""Requests before which their distance from the targets says nothing: one in twenty may be of another kind."""

MIN_MARGIN_SD = 0.05
"""The deviation that margins are taken to have at least: requests that all came out alike may not go on to."""

ROUNDING_VARIANCE = 1e-12
"""Variance of margins below which they differ by rounding alone."""

SLO_METRIC_NAMES = {"ttft": "ttft", "tpot": "tpot", "e2e": "latency"}
"""Objectives' latencies by the names that targets have for them."""

RELATIVE_PRECISION = 0.03
"""How wide the objective's 95% interval is at most to each side, as a share, when a window may end."""

PRECISION_CHECK_GROWTH = 1.15
"""By what factor a window has grown before its objective is looked at again."""

MAX_LOG_MARGIN = 4.0
"""Where margins are cut off, in units of log time: an error is infinitely slow."""


@dataclass(frozen=True)
class WaldSprt:
    """The test of a share against `target`, indifferent within `band` on either side of it.

    Outside the band it errs with a probability of at most `error_rate`. The band narrows where
    the target is close to 1.
    """

    target: float
    band: float = INDIFFERENCE_BAND
    error_rate: float = ERROR_RATE

    @property
    def indifference_bounds(self) -> tuple[float, float]:
        """The share that clearly misses, and the share that clearly meets."""
        band = min(self.band, (1 - self.target) / 2, self.target / 2)
        return self.target - band, self.target + band

    def log_likelihood_ratio(self, good_count: int, n: int) -> float:
        """Log likelihood ratio of the upper against the lower edge, for independent requests."""
        low, high = self.indifference_bounds
        return good_count * math.log(high / low) + (n - good_count) * math.log((1 - high) / (1 - low))

    def decide(self, margins: Sequence[float] | NDArray[np.float64]) -> Decision:
        """What requests with these margins, in the order they were sent, say; above 0 is not good."""
        values = np.clip(np.asarray(margins, dtype=np.float64), -MAX_LOG_MARGIN, MAX_LOG_MARGIN)
        if len(values) < MIN_REQUESTS:
            return "undecided"
        ratio = variance_ratio(values)
        good = int((values <= 0).sum())
        found = self.log_likelihood_ratio(good, len(values)) / ratio
        if abs(found) >= math.log((1 - self.error_rate) / self.error_rate):
            return "meets" if found > 0 else "misses"
        if len(values) < MIN_NORMAL_REQUESTS:
            return "undecided"
        _, high = self.indifference_bounds
        return "meets" if min(good / len(values), normal_share_lower_bound(values, ratio)) >= high else "undecided"


def normal_share_lower_bound(margins: NDArray[np.float64], ratio: float) -> float:
    """The least that may be the share below zero, were values normal and so dependent."""
    spread = max(float(margins.std(ddof=1)), MIN_MARGIN_SD)
    far = -float(margins.mean()) / spread
    return NormalDist().cdf(far - MARGIN_Z * math.sqrt((1 + far * far / 2) * ratio / len(margins)))


def variance_ratio(margins: NDArray[np.float64]) -> float:
    """The variance of batch means over that of means of independent values; at least 1.

    There are about as many batches as a batch has values.
    """
    size = math.isqrt(len(margins))
    batches = margins[: len(margins) // size * size].reshape(-1, size)
    spread = float(batches.var(ddof=1))
    if spread < ROUNDING_VARIANCE:
        return 1.0
    seen = size * float(batches.mean(axis=1).var(ddof=1)) / spread
    weight = len(batches) - 1
    return max(1.0, (weight * seen + PRIOR_BATCHES * PRIOR_VARIANCE_RATIO) / (weight + PRIOR_BATCHES))


class StatementTest(Protocol):
    """Says of one statement of the SLO what the requests of a window, in the order they were sent, come to."""

    def decide(self, records: Sequence[RequestRecord]) -> Decision:
        """Take in all requests of the window up to the first that still runs."""


class ShareTest:
    """At least a share of all requests meets every one of `terms`: the joint attainment, or one percentile."""

    def __init__(self, terms: Sequence[SloTerm], sprt: WaldSprt, *, open_loop: bool) -> None:
        self.terms = tuple(terms)
        self.sprt = sprt
        self.open_loop = open_loop
        self._margins: list[float] = []
        self._record_count = 0

    def decide(self, records: Sequence[RequestRecord]) -> Decision:
        """By Wald's test; a request without a figure that a term speaks of counts for nothing."""
        for record in records[self._record_count :]:
            value = math.inf
            if error_class(record) is None:
                known = log_margin(record, self.terms, open_loop=self.open_loop)
                if known is None:
                    continue
                value = known
            self._margins.append(value)
        self._record_count = len(records)
        return self.sprt.decide(self._margins)


class MeanTest:
    """The mean of a latency is at most its threshold, by an interval wide enough to be looked at many times."""

    def __init__(self, term: SloTerm, *, open_loop: bool, in_flight: float) -> None:
        self.term = term
        self.open_loop = open_loop
        self.in_flight = in_flight

    def decide(self, records: Sequence[RequestRecord]) -> Decision:
        """By batch means of the requests that answered."""
        answered = [record for record in records if error_class(record) is None]
        known = (request_metric(record, self.term.metric, open_loop=self.open_loop) for record in answered)
        values = [value for value in known if value is not None]
        if len(values) < MIN_REQUESTS:
            return "undecided"
        mean = BatchMeans(len(values), self.in_flight).mean(values)
        if mean.upper is None:
            return "undecided"
        reach = REPEATED_LOOK_FACTOR * (mean.upper - mean.value)
        if mean.value + reach <= self.term.threshold:
            return "meets"
        return "misses" if mean.value - reach > self.term.threshold else "undecided"


class SequentialStopRule:
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
        tests: Sequence[StatementTest],
        *,
        min_seconds: float = 0.0,
        min_seconds_before_miss: float | None = None,
        max_seconds: float = math.inf,
        estimate: Callable[[Sequence[RequestRecord]], Estimate | None] | None = None,
        has_token_target: bool = False,
    ) -> None:
        self.tests = tuple(tests)
        self.min_seconds = min_seconds
        self.min_seconds_before_miss = min_seconds if min_seconds_before_miss is None else min_seconds_before_miss
        self.max_seconds = max_seconds
        self.estimate = estimate
        self.has_token_target = has_token_target
        self._finished_by_index: dict[int, RequestRecord] = {}
        self._leading_records: list[RequestRecord] = []
        self._record_count = 0
        self._next_decision_count = MIN_REQUESTS
        self._next_precision_check = min_seconds
        self._precision_reached = estimate is None

    def __call__(self, records: Sequence[RequestRecord]) -> str | None:
        """Why no more requests are needed, or None."""
        for record in records[self._record_count :]:
            self._finished_by_index[record.index] = record
        self._record_count = len(records)
        while (record_ := self._finished_by_index.pop(len(self._leading_records), None)) is not None:
            self._leading_records.append(record_)
        if not self._leading_records:
            return None
        lasted = self._leading_records[-1].scheduled - self._leading_records[0].scheduled
        answer = (
            self._decide(lasted)
            if self._record_count >= self._next_decision_count or lasted >= self.max_seconds
            else None
        )
        return answer or (TIME_LIMIT_REACHED if lasted >= self.max_seconds else None)

    def _decide(self, elapsed: float) -> str | None:
        self._next_decision_count = self._record_count + max(1, self._record_count // 20)
        if elapsed < min(self.min_seconds, self.min_seconds_before_miss):
            return None
        decisions = {test.decide(self._leading_records) for test in self.tests}
        if "misses" in decisions:
            return MISSES_TARGETS if elapsed >= self.min_seconds_before_miss else None
        if elapsed < self.min_seconds:
            return None
        if self.estimate is not None and self._has_too_many_failures():
            return TOO_MANY_FAILURES
        if self.estimate is not None and self._lacks_tpot():
            return SINGLE_CHUNK_ANSWERS
        if not self._check_precision(elapsed) or "undecided" in decisions:
            return None
        return MEETS_TARGETS if self.tests else PRECISE_ENOUGH

    def _has_too_many_failures(self) -> bool:
        """Whether so many requests fail that no longer window makes the load point valid."""
        return (
            sum(error_class(record) is not None for record in self._leading_records)
            > MAX_ERROR_SHARE * len(self._leading_records) + 1
        )

    def _lacks_tpot(self) -> bool:
        """Whether targets on the time per token cannot be judged: answers come in one chunk each."""
        answered = [record for record in self._leading_records if error_class(record) is None]
        undefined = sum(record.tpot is None for record in answered)
        return self.has_token_target and undefined > MAX_SHARE_WITHOUT_TPOT * len(answered) + 1

    def _check_precision(self, elapsed: float) -> bool:
        if self.estimate is not None and not self._precision_reached and elapsed >= self._next_precision_check:
            self._next_precision_check = PRECISION_CHECK_GROWTH * elapsed
            estimate = self.estimate(self._leading_records)
            if estimate is not None and estimate.upper is not None and estimate.value > 0:
                reach = max(estimate.upper - estimate.value, estimate.value - estimate.lower)
                self._precision_reached = reach <= RELATIVE_PRECISION * estimate.value
        return self._precision_reached


def statement_tests(slo: Slo, *, open_loop: bool, in_flight: float) -> tuple[StatementTest, ...]:
    """A test for each statement of the SLO that single requests decide; minimums are judged at the end."""
    joint = request_terms(slo)
    chosen: list[StatementTest] = [ShareTest(joint, WaldSprt(slo.attainment), open_loop=open_loop)] if joint else []
    for term in slo.terms:
        if term.is_minimum or term.statistic == EACH_REQUEST:
            continue
        if term.quantile is not None:
            chosen.append(ShareTest((term,), WaldSprt(term.quantile), open_loop=open_loop))
        else:
            chosen.append(MeanTest(term, open_loop=open_loop, in_flight=in_flight))
    return tuple(chosen)


def decision_stop_rule(slo: Slo, point: LoadPoint, *, min_seconds: float, max_seconds: float) -> SequentialStopRule:
    """The rule of a load point whose answer alone matters: within its targets or not."""
    open_loop = point.rate is not None
    every = statement_tests(slo, open_loop=open_loop, in_flight=point.concurrency or 1)
    if not every:
        return SequentialStopRule((), min_seconds=min_seconds, max_seconds=min_seconds)
    return SequentialStopRule(
        every, min_seconds=min_seconds, min_seconds_before_miss=min_seconds / 2, max_seconds=max_seconds
    )


def precision_stop_rule(experiment: Experiment, point: LoadPoint) -> SequentialStopRule:
    """The rule of a load point of which the objective is to be known as well, from the least duration on."""
    open_loop = point.rate is not None
    return SequentialStopRule(
        statement_tests(experiment.slo, open_loop=open_loop, in_flight=point.concurrency or 1),
        min_seconds=experiment.benchmark.duration,
        estimate=lambda records: estimate_objective(experiment, point, records),
        has_token_target=any(term.metric in ("tpot", "itl") for term in experiment.slo.terms),
    )


def estimate_objective(experiment: Experiment, point: LoadPoint, records: Sequence[RequestRecord]) -> Estimate | None:
    """What the objective goes by, from a window's first requests: a latency's mean, or tokens or requests per second.

    None where no request answered. Of an open loop rates are what arrives, known beforehand.
    """
    metric = OBJECTIVES[experiment.optimization.objective].metric
    answered = [record for record in records if error_class(record) is None]
    if not answered:
        return None
    in_flight = point.concurrency or 1
    if metric in SLO_METRIC_NAMES:
        values = [request_metric(record, SLO_METRIC_NAMES[metric], open_loop=False) for record in answered]
        defined = [value for value in values if value is not None]
        return BatchMeans(len(defined), in_flight).mean(defined) if defined else None
    if point.concurrency is None:
        return Estimate(point.rate or 0.0, point.rate or 0.0, point.rate or 0.0)
    seconds = residence_times(answered)
    if not seconds.sum():
        return None
    each = request_amounts(answered, experiment.slo, open_loop=False)[metric]
    return BatchMeans(len(answered), in_flight).ratio(each, seconds).scaled(in_flight)
