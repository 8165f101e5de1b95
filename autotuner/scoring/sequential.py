"""Stop rules: end a load point once its targets are decided and its objective is known precisely.

Targets are decided by Wald's sequential probability ratio test (SPRT) on the share of good requests. Requests
served together are correlated, so the log likelihood ratio is divided by the variance ratio of their log
margins: the variance of batch means over that of means of independent values. Margins are used rather than
good or not good, because a run of good requests alone does not show the correlation.

Where all requests are far better than their targets the count of good requests is slow to decide, while the
margins lie many standard deviations below zero. So targets are also met where both the observed share and a
lower confidence bound on the share, with normally distributed margins, lie above the indifference band. The
same for misses would end a load point on its first requests, which are slower than those of a steady state.
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
"""With these, 1 of 330 decisions was wrong in 53 simulated worlds: docs/explanation/search.md."""
MIN_REQUESTS = 10
"""No decision before this many requests."""

PRIOR_VARIANCE_RATIO, PRIOR_BATCHES = 1.5, 4
"""The prior of the variance ratio, and its weight in batches. Chosen by hand."""

MARGIN_Z = 2.5
"""Standard errors between the estimate and the lower confidence bound of a normal share of good requests."""

REPEATED_LOOK_FACTOR = 1.3
"""Widening of an interval that is tested repeatedly: 1.3 makes of Student's 95% about 99%."""

MIN_NORMAL_REQUESTS = 20
"""No decision by a normal distribution of margins before this many requests: one in twenty may be an outlier."""

MIN_MARGIN_SD = 0.05
"""Lower bound on the standard deviation of margins: requests so far may be more alike than later ones."""

ROUNDING_VARIANCE = 1e-12
"""Variance of margins below which they differ by rounding errors alone."""

SLO_METRIC_NAMES = {"ttft": "ttft", "tpot": "tpot", "e2e": "latency"}
"""SLO metrics by the Metrics field of a latency objective."""

RELATIVE_PRECISION = 0.03
"""A window may end once the objective's 95% interval is at most this wide to each side, relative to the value."""

PRECISION_CHECK_GROWTH = 1.15
"""Growth of the window between two checks of the objective's precision."""

MAX_LOG_MARGIN = 4.0
"""Clipping limit of log margins, because an error is infinitely slow."""


@dataclass(frozen=True)
class WaldSprt:
    """Wald's SPRT of a share against `target`, with an indifference band of `band` on either side.

    Outside the band its error probability is at most `error_rate`. The band narrows where the target is
    close to 0 or 1.
    """

    target: float
    band: float = INDIFFERENCE_BAND
    error_rate: float = ERROR_RATE

    @property
    def indifference_bounds(self) -> tuple[float, float]:
        """The shares of the two hypotheses: targets missed, targets met."""
        band = min(self.band, (1 - self.target) / 2, self.target / 2)
        return self.target - band, self.target + band

    def log_likelihood_ratio(self, good_count: int, n: int) -> float:
        """Log likelihood ratio of the two hypotheses for independent requests; positive favours targets met."""
        missed, met = self.indifference_bounds
        return good_count * math.log(met / missed) + (n - good_count) * math.log((1 - met) / (1 - missed))

    def decide(self, margins: Sequence[float] | NDArray[np.float64]) -> Decision:
        """The decision on the log margins of requests in the order they were sent; above 0 is not good."""
        values = np.clip(np.asarray(margins, dtype=np.float64), -MAX_LOG_MARGIN, MAX_LOG_MARGIN)
        if len(values) < MIN_REQUESTS:
            return "undecided"
        ratio = variance_ratio(values)
        good_count = int((values <= 0).sum())
        evidence = self.log_likelihood_ratio(good_count, len(values)) / ratio
        if abs(evidence) >= math.log((1 - self.error_rate) / self.error_rate):
            return "meets" if evidence > 0 else "misses"
        if len(values) < MIN_NORMAL_REQUESTS:
            return "undecided"
        _, high = self.indifference_bounds
        return (
            "meets" if min(good_count / len(values), normal_share_lower_bound(values, ratio)) >= high else "undecided"
        )


def normal_share_lower_bound(margins: NDArray[np.float64], ratio: float) -> float:
    """Lower confidence bound on the share below zero of normal margins with this variance ratio."""
    sd = max(float(margins.std(ddof=1)), MIN_MARGIN_SD)
    z = -float(margins.mean()) / sd
    return NormalDist().cdf(z - MARGIN_Z * math.sqrt((1 + z * z / 2) * ratio / len(margins)))


def variance_ratio(margins: NDArray[np.float64]) -> float:
    """The variance of batch means over that of means of independent values, shrunk to a prior; at least 1.

    There are about sqrt(n) batches of sqrt(n) values.
    """
    size = math.isqrt(len(margins))
    batches = margins[: len(margins) // size * size].reshape(-1, size)
    variance = float(batches.var(ddof=1))
    if variance < ROUNDING_VARIANCE:
        return 1.0
    observed = size * float(batches.mean(axis=1).var(ddof=1)) / variance
    weight = len(batches) - 1
    return max(1.0, (weight * observed + PRIOR_BATCHES * PRIOR_VARIANCE_RATIO) / (weight + PRIOR_BATCHES))


class StatementTest(Protocol):
    """A sequential test of one statement of the SLO."""

    def decide(self, records: Sequence[RequestRecord]) -> Decision:
        """The decision on the window's requests, in the order they were sent, up to the first unfinished one."""


class ShareTest:
    """Tests that at least a share of requests meets all of `terms`: the joint attainment, or one percentile."""

    def __init__(self, terms: Sequence[SloTerm], sprt: WaldSprt, *, open_loop: bool) -> None:
        self.terms = tuple(terms)
        self.sprt = sprt
        self.open_loop = open_loop
        self._margins: list[float] = []
        self._record_count = 0

    def decide(self, records: Sequence[RequestRecord]) -> Decision:
        """Decide by the SPRT; errors are infinitely slow, and requests without a term's metric are left out."""
        for record in records[self._record_count :]:
            failed = error_class(record) is not None
            margin = math.inf if failed else log_margin(record, self.terms, open_loop=self.open_loop)
            if margin is not None:
                self._margins.append(margin)
        self._record_count = len(records)
        return self.sprt.decide(self._margins)


class MeanTest:
    """Tests that a mean latency is at most its threshold, by an interval widened for repeated looks."""

    def __init__(self, term: SloTerm, *, open_loop: bool, in_flight: float) -> None:
        self.term = term
        self.open_loop = open_loop
        self.in_flight = in_flight

    def decide(self, records: Sequence[RequestRecord]) -> Decision:
        """Decide by batch means of the requests without an error."""
        successes = (record for record in records if error_class(record) is None)
        latencies = (request_metric(record, self.term.metric, open_loop=self.open_loop) for record in successes)
        values = [value for value in latencies if value is not None]
        if len(values) < MIN_REQUESTS:
            return "undecided"
        mean = BatchMeans(len(values), self.in_flight).mean(values)
        if mean.upper is None:
            return "undecided"
        half_width = REPEATED_LOOK_FACTOR * (mean.upper - mean.value)
        if mean.value + half_width <= self.term.threshold:
            return "meets"
        return "misses" if mean.value - half_width > self.term.threshold else "undecided"


class SequentialStopRule:
    """A stop rule: end the window once the targets are decided and the objective is known precisely.

    It uses the requests in the order they were sent, up to the first unfinished one: the requests finished
    by a given instant are biased towards the fast. Targets are met after `min_seconds` at the earliest, and
    missed after `min_seconds_before_miss`, so that throughput is known too; after `max_seconds` the window
    ends undecided. With `estimate` given, its interval must be narrow before targets are met, and the
    window ends at once where the load point can only be invalid. `has_token_target` says that a target is
    on TPOT or ITL.
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
        """Why to end the window, or None."""
        for record in records[self._record_count :]:
            self._finished_by_index[record.index] = record
        self._record_count = len(records)
        while (next_record := self._finished_by_index.pop(len(self._leading_records), None)) is not None:
            self._leading_records.append(next_record)
        if not self._leading_records:
            return None
        elapsed = self._leading_records[-1].scheduled - self._leading_records[0].scheduled
        reason = (
            self._decide(elapsed)
            if self._record_count >= self._next_decision_count or elapsed >= self.max_seconds
            else None
        )
        return reason or (TIME_LIMIT_REACHED if elapsed >= self.max_seconds else None)

    def _decide(self, elapsed: float) -> str | None:
        """Why to end the window after `elapsed` seconds, or None; next asked after 5% more requests."""
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
        """Whether targets on TPOT or ITL cannot be judged, because responses come in a single chunk."""
        successes = [record for record in self._leading_records if error_class(record) is None]
        without_tpot = sum(record.tpot is None for record in successes)
        return self.has_token_target and without_tpot > MAX_SHARE_WITHOUT_TPOT * len(successes) + 1

    def _check_precision(self, elapsed: float) -> bool:
        """Whether the objective's 95% interval was ever narrow enough, checked as the window grows by a factor."""
        if self.estimate is not None and not self._precision_reached and elapsed >= self._next_precision_check:
            self._next_precision_check = PRECISION_CHECK_GROWTH * elapsed
            estimate = self.estimate(self._leading_records)
            if estimate is not None and estimate.upper is not None and estimate.value > 0:
                half_width = max(estimate.upper - estimate.value, estimate.value - estimate.lower)
                self._precision_reached = half_width <= RELATIVE_PRECISION * estimate.value
        return self._precision_reached


def statement_tests(slo: Slo, *, open_loop: bool, in_flight: float) -> tuple[StatementTest, ...]:
    """A test for each statement of the SLO on latencies; minimums are judged after the window."""
    plain_terms = request_terms(slo)
    tests: list[StatementTest] = (
        [ShareTest(plain_terms, WaldSprt(slo.attainment), open_loop=open_loop)] if plain_terms else []
    )
    for term in slo.terms:
        if term.is_minimum or term.statistic == EACH_REQUEST:
            continue
        if term.quantile is not None:
            tests.append(ShareTest((term,), WaldSprt(term.quantile), open_loop=open_loop))
        else:
            tests.append(MeanTest(term, open_loop=open_loop, in_flight=in_flight))
    return tuple(tests)


def decision_stop_rule(slo: Slo, point: LoadPoint, *, min_seconds: float, max_seconds: float) -> SequentialStopRule:
    """The stop rule of a load point of which only the decision matters: targets met or missed."""
    open_loop = point.rate is not None
    tests = statement_tests(slo, open_loop=open_loop, in_flight=point.concurrency or 1)
    if not tests:
        return SequentialStopRule((), min_seconds=min_seconds, max_seconds=min_seconds)
    return SequentialStopRule(
        tests, min_seconds=min_seconds, min_seconds_before_miss=min_seconds / 2, max_seconds=max_seconds
    )


def precision_stop_rule(experiment: Experiment, point: LoadPoint) -> SequentialStopRule:
    """The stop rule of a load point of which the objective is to be known precisely too."""
    open_loop = point.rate is not None
    return SequentialStopRule(
        statement_tests(experiment.slo, open_loop=open_loop, in_flight=point.concurrency or 1),
        min_seconds=experiment.benchmark.duration,
        estimate=lambda records: estimate_objective(experiment, point, records),
        has_token_target=any(term.metric in ("tpot", "itl") for term in experiment.slo.terms),
    )


def estimate_objective(experiment: Experiment, point: LoadPoint, records: Sequence[RequestRecord]) -> Estimate | None:
    """Estimate the objective's metric from a window's requests: a mean latency, or tokens or requests per second.

    None where no request succeeded. The rate of an open loop is its arrival rate, known exactly.
    """
    metric = OBJECTIVES[experiment.optimization.objective].metric
    successes = [record for record in records if error_class(record) is None]
    if not successes:
        return None
    in_flight = point.concurrency or 1
    if metric in SLO_METRIC_NAMES:
        values = [request_metric(record, SLO_METRIC_NAMES[metric], open_loop=False) for record in successes]
        latencies = [value for value in values if value is not None]
        return BatchMeans(len(latencies), in_flight).mean(latencies) if latencies else None
    if point.concurrency is None:
        return Estimate(point.rate or 0.0, point.rate or 0.0, point.rate or 0.0)
    seconds = residence_times(successes)
    if not seconds.sum():
        return None
    amounts = request_amounts(successes, experiment.slo, open_loop=False)[metric]
    return BatchMeans(len(successes), in_flight).ratio(amounts, seconds).scaled(in_flight)
