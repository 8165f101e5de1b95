"""Open-loop prediction: requests in flight, queueing and saturation under Poisson arrivals."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

from autotuner.errors import NoFeasibleError
from autotuner.predict.intervals import Interval
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.performance import Performance
from autotuner.predict.predict import Prediction

LOADS_PER_REPLICA = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Requests per replica at which TPOT is predicted, with linear interpolation between; chosen by hand."""
BISECTION_STEPS = 40
"""Bisection steps to the fixed point; 40 reach the last digits of a float."""


class SaturatedError(NoFeasibleError):
    """Requests arrive faster than they can be served; `max_rate` is the sustainable rate in requests/s."""

    def __init__(self, rate: float, max_rate: float) -> None:
        super().__init__(
            f"The deployment saturates: {rate:g} requests/s arrive, it sustains {max_rate:.3g} at most.",
            why="Above that the queue grows without end.",
            remedy=f"Lower --rate, or let `autotune predict size --rate {rate:g}` find how many GPUs carry it.",
        )
        self.max_rate = max_rate


@dataclass(frozen=True, slots=True)
class OpenLoopPrediction(Performance):
    """Prediction of Poisson arrivals.

    `wait` is the part of TTFT spent queueing, `in_flight` the mean number of requests in the
    deployment, `max_rate` the largest sustainable rate in requests/s. Intervals are those of the
    engine's times carried through the queue; the upper bound is infinite where it saturates.
    `closed_loop` is the prediction with as many requests in flight.
    """

    wait: float
    in_flight: float
    max_rate: float
    closed_loop: Prediction


class OpenLoopModel:
    """A deployment under Poisson arrivals, from its times as a function of the requests in flight.

    By Little's law requests in flight are the rate times the time of each, which depends on the
    requests in flight: a fixed point. A Poisson arrival sees the mean number in flight (PASTA), so
    its batch is one more. Two queues precede the first token: for the prefill (M/D/1) and, near
    saturation, for a slot in the batch (as many servers as slots; Sakasegawa's approximation).
    """

    def __init__(self, load_curve: LoadCurve) -> None:
        """A deployment by one of its load curves; random arrivals do not run in lockstep, as a harness's may."""
        self.load_curve = LoadCurve(
            load_curve.deployment, load_curve.traffic, bundled_only=load_curve.bundled_only, harness=None
        )
        self.replicas = self.load_curve.deployment.layout.dp
        self.batch_slots = max(1.0, self.load_curve.max_concurrency / self.replicas)

    @cached_property
    def _tpot_curve(self) -> tuple[list[float], list[float]]:
        """Requests per replica, and TPOT in seconds at each."""
        loads = [float(load) for load in LOADS_PER_REPLICA if load < self.batch_slots] + [self.batch_slots]
        return loads, [self.load_curve.at_concurrency(load * self.replicas).tpot for load in loads]

    def tpot(self, batch: float) -> float:
        """TPOT in seconds with `batch` requests on each replica, interpolated."""
        loads, times = self._tpot_curve
        index = bisect_left(loads, batch)
        if index == 0 or index == len(loads):
            return times[min(index, len(loads) - 1)]
        share = (batch - loads[index - 1]) / (loads[index] - loads[index - 1])
        return times[index - 1] + share * (times[index] - times[index - 1])

    def service_seconds(self, other_requests: float) -> float:
        """Seconds from prefill to last token with this many other requests on the replica, without queueing."""
        tpot = self.tpot(min(1 + other_requests, self.batch_slots))
        return self._unqueued_ttft(tpot) + (self.load_curve.traffic.osl - 1) * tpot

    def _unqueued_ttft(self, tpot: float) -> float:
        """TTFT of a single request, and what an iteration takes longer at this TPOT."""
        single = self.load_curve.single_request
        return single.ttft + max(0.0, tpot - single.tpot)

    @cached_property
    def max_rate(self) -> float:
        """Largest sustainable rate in requests/s over all replicas: every batch slot taken, or always prefilling."""
        slot_rate = self.batch_slots / self.service_seconds(self.batch_slots)
        return min(slot_rate, 1 / (self.load_curve.prefill_seconds * self.replicas)) * self.replicas

    def mean_in_service(self, rate: float) -> float:
        """Mean requests in service on a replica at a rate over all replicas, which must be below `max_rate`.

        By bisection: in service is the rate times the seconds in service (Little's law), which grow with it.
        """
        replica_rate = rate / self.replicas
        lower, upper = 0.0, self.batch_slots
        for _ in range(BISECTION_STEPS):
            middle = (lower + upper) / 2
            if middle < replica_rate * self.service_seconds(middle):
                lower = middle
            else:
                upper = middle
        return upper

    def mean_wait(self, rate: float, in_service: float) -> float:
        """Mean seconds in the queues for prefill and for a batch slot; infinite where either has no spare capacity.

        `rate` is requests/s over all replicas, `in_service` the mean requests in service on one. Formulas of the
        queues are M/D/1 and, with as many servers as slots, Sakasegawa's for M/D/c.
        """
        prefill_seconds = self.load_curve.prefill_seconds * self.replicas  # on one replica
        prefill_utilization = rate / self.replicas * prefill_seconds
        slot_utilization = in_service / self.batch_slots
        if prefill_utilization >= 1 or slot_utilization >= 1:
            return math.inf
        prefill_wait = prefill_utilization * prefill_seconds / (2 * (1 - prefill_utilization))
        queue_probability: float = slot_utilization ** (math.sqrt(2 * (self.batch_slots + 1)) - 1)
        slot_seconds = self.service_seconds(in_service) / self.batch_slots
        return prefill_wait + slot_seconds * queue_probability / (2 * (1 - slot_utilization))

    def mean_times(self, rate: float) -> tuple[float, float, float, float]:
        """Mean TTFT, TPOT and wait (part of TTFT) in seconds, and mean requests in service per replica.

        The times are infinite from `max_rate` on.
        """
        if rate >= self.max_rate:
            return math.inf, math.inf, math.inf, self.batch_slots
        in_service = self.mean_in_service(rate)
        tpot, wait = self.tpot(min(1 + in_service, self.batch_slots)), self.mean_wait(rate, in_service)
        return self._unqueued_ttft(tpot) + wait, tpot, wait, in_service

    def at_rate(self, rate: float) -> OpenLoopPrediction:
        """The prediction at a rate in requests/s; raises SaturatedError if it cannot be sustained."""
        if rate >= self.max_rate:
            raise SaturatedError(rate, self.max_rate)
        ttft, tpot, wait, in_service = self.mean_times(rate)
        closed_loop = self.load_curve.at_concurrency(min(self.batch_slots, 1 + in_service) * self.replicas)
        lower, upper = (self._times_at_bound(rate, closed_loop, bound) for bound in (0, 1))
        return OpenLoopPrediction(
            ttft=ttft,
            tpot=tpot,
            ttft_interval=Interval(lower[0], upper[0]),
            tpot_interval=Interval(lower[1], upper[1]),
            throughput=rate * self.load_curve.traffic.osl,
            requests=rate,
            wait=wait,
            in_flight=rate * (ttft + (self.load_curve.traffic.osl - 1) * tpot),
            max_rate=self.max_rate,
            closed_loop=closed_loop,
        )

    def _times_at_bound(self, rate: float, closed_loop: Prediction, bound: int) -> tuple[float, float]:
        """TTFT and TPOT where the engine's times are at the lower (0) or upper (1) bound of their intervals.

        An engine whose times are k times the predicted ones is as busy at a rate as the predicted
        one at k times the rate.
        """
        tpot_ratio = closed_loop.tpot_interval[bound] / closed_loop.tpot
        ttft_ratio = closed_loop.ttft_interval[bound] / closed_loop.ttft
        ttft, tpot, wait, _ = self.mean_times(rate * tpot_ratio)
        if math.isinf(ttft):
            return math.inf, math.inf
        return (ttft - wait) * ttft_ratio + wait * tpot_ratio, tpot * tpot_ratio
