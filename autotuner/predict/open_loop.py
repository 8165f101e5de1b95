"""Requests that arrive at a rate: how many are in flight, how long they wait, and when they pile up."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

from autotuner.errors import NoFeasibleError
from autotuner.predict.intervals import Interval
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.predict import Prediction

LOADS_PER_REPLICA = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Requests per replica at which a deployment's times are computed; between them they are straight lines."""
BISECTION_STEPS = 40
"""Halvings of the fixed point."""


class SaturatedError(NoFeasibleError):
    """Requests arrive faster than they can be served; `highest` is the rate that can, in requests/s."""

    def __init__(self, rate: float, max_rate: float) -> None:
        super().__init__(
            f"The deployment saturates: {rate:g} requests/s arrive, it sustains {max_rate:.3g} at most.",
            why="Above that the queue grows without end.",
            remedy=f"Lower --rate, or let --target-rate {rate:g} find how many GPUs carry it.",
        )
        self.max_rate = max_rate


@dataclass(frozen=True, slots=True)
class OpenLoopPrediction:
    """What requests see that arrive at `rate` per second in all; times are means in seconds.

    `wait` is the part of TTFT spent queueing, `in_flight` the mean number of requests in the
    deployment, `highest` the largest rate that does not pile up. Intervals cover 80% for the
    times of the engine, carried through the queue: where the slow end saturates the upper edge
    is infinite. `closed` is the closed loop with as many requests in flight.
    """

    rate: float
    ttft: float
    tpot: float
    ttft_interval: Interval
    tpot_interval: Interval
    wait: float
    in_flight: float
    max_rate: float
    throughput: float
    closed_loop: Prediction


class OpenLoopModel:
    """A deployment's times as a function of the requests in flight, for arrivals by chance.

    Little's law closes the circle: requests in flight are the rate times the time each takes,
    which depends on the requests in flight. A Poisson arrival finds as many as there are on
    average, so its batch is one more. Two queues stand before the first token: for the prefill
    (one server, constant service) and, near saturation, for a place in the batch (as many
    servers as places; Sakasegawa's approximation).
    """

    def __init__(self, load_curve: LoadCurve) -> None:
        self.load_curve = load_curve
        self.replicas = load_curve.deployment.layout.dp
        self.batch_slots = max(1.0, load_curve.max_concurrency / self.replicas)

    @cached_property
    def _tpot_curve(self) -> tuple[list[float], list[float]]:
        """Requests per replica, and the seconds between their tokens."""
        loads = [float(load) for load in LOADS_PER_REPLICA if load < self.batch_slots] + [self.batch_slots]
        return loads, [self.load_curve.at_concurrency(load * self.replicas).tpot for load in loads]

    def tpot(self, batch: float) -> float:
        """Seconds between tokens with so many requests on each replica."""
        loads, times = self._tpot_curve
        place = bisect_left(loads, batch)
        if place == 0 or place == len(loads):
            return times[min(place, len(loads) - 1)]
        share = (batch - loads[place - 1]) / (loads[place] - loads[place - 1])
        return times[place - 1] + share * (times[place] - times[place - 1])

    def service_seconds(self, other_requests: float) -> float:
        """Seconds a request is served for with so many others beside it, waiting left out."""
        tpot = self.tpot(min(1 + other_requests, self.batch_slots))
        return self._unqueued_ttft(tpot) + (self.load_curve.traffic.osl - 1) * tpot

    def _unqueued_ttft(self, tpot: float) -> float:
        """TTFT without a queue: alone, and an iteration of those who decode already."""
        alone = self.load_curve.single_request
        return alone.ttft + max(0.0, tpot - alone.tpot)

    @cached_property
    def max_rate(self) -> float:
        """The largest sustainable rate in requests/s, over all replicas: all places taken, or prefill all the time."""
        full = self.batch_slots / self.service_seconds(self.batch_slots)
        return min(full, 1 / (self.load_curve.prefill_seconds * self.replicas)) * self.replicas

    def mean_in_service(self, rate: float) -> float:
        """Mean requests in service on a replica at a rate over all replicas, which must be below `highest`."""
        each = rate / self.replicas
        low, high = 0.0, self.batch_slots
        for _ in range(BISECTION_STEPS):
            middle = (low + high) / 2
            if middle < each * self.service_seconds(middle):
                low = middle
            else:
                high = middle
        return high

    def mean_wait(self, rate: float, in_service: float) -> float:
        """Mean seconds before a request's own prefill begins."""
        each = rate / self.replicas
        prefill = self.load_curve.prefill_seconds * self.replicas
        busy, taken = each * prefill, in_service / self.batch_slots
        if busy >= 1 or taken >= 1:
            return math.inf
        for_prefill = busy * prefill / (2 * (1 - busy))
        crowded: float = taken ** (math.sqrt(2 * (self.batch_slots + 1)) - 1)
        for_place = self.service_seconds(in_service) / self.batch_slots * crowded / (2 * (1 - taken))
        return for_prefill + for_place

    def mean_times(self, rate: float) -> tuple[float, float, float, float]:
        """TTFT, TPOT, the wait in TTFT (all means in seconds), and requests in service per replica.

        Infinite where the rate cannot be sustained.
        """
        if rate >= self.max_rate:
            return math.inf, math.inf, math.inf, self.batch_slots
        others = self.mean_in_service(rate)
        tpot, wait = self.tpot(min(1 + others, self.batch_slots)), self.mean_wait(rate, others)
        return self._unqueued_ttft(tpot) + wait, tpot, wait, others

    def at_rate(self, rate: float) -> OpenLoopPrediction:
        """What requests see at a rate; SaturatedError where it cannot be sustained."""
        if rate >= self.max_rate:
            raise SaturatedError(rate, self.max_rate)
        ttft, tpot, wait, others = self.mean_times(rate)
        closed = self.load_curve.at_concurrency(min(self.batch_slots, 1 + others) * self.replicas)
        return OpenLoopPrediction(
            rate=rate,
            ttft=ttft,
            tpot=tpot,
            ttft_interval=Interval(self._times_at_bound(rate, closed, 0)[0], self._times_at_bound(rate, closed, 1)[0]),
            tpot_interval=Interval(self._times_at_bound(rate, closed, 0)[1], self._times_at_bound(rate, closed, 1)[1]),
            wait=wait,
            in_flight=rate * (ttft + (self.load_curve.traffic.osl - 1) * tpot),
            max_rate=self.max_rate,
            throughput=rate * self.load_curve.traffic.osl,
            closed_loop=closed,
        )

    def _times_at_bound(self, rate: float, closed: Prediction, bound: int) -> tuple[float, float]:
        """TTFT and TPOT where the engine's times are at this edge of their intervals.

        An engine that takes k times as long at a rate is as busy as one as predicted at k times
        the rate.
        """
        slower = closed.tpot_interval[bound] / closed.tpot
        first = closed.ttft_interval[bound] / closed.ttft
        ttft, tpot, wait, _ = self.mean_times(rate * slower)
        if math.isinf(ttft):
            return math.inf, math.inf
        return (ttft - wait) * first + wait * slower, tpot * slower
