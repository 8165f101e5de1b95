"""Phase 6: how many prefill and decode workers a load needs under a GPU budget, with the arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from autotuner.errors import NoFeasibleError, pluralize
from autotuner.profiling.fitting import ItlSurface, TtftCurve
from autotuner.profiling.planner_profile import PlannerProfile
from autotuner.profiling.points import DecodePoint, PrefillPoint

MAX_PREFILL_UTILIZATION = 0.95
"""Beyond it the queue for prefill has no steady state worth planning with."""
MAX_WORKERS = 10_000
FIXED_POINT_STEPS = 60
"""Damped steps after which requests in flight and ITL, each of which depends on the other, agree."""


@dataclass(frozen=True)
class WorkerCurves:
    """Fitted curves of a profile: of a prefill worker of `prefill_gpus` GPUs and a decode worker of `decode_gpus`."""

    profile: PlannerProfile
    prefill_gpus: int
    decode_gpus: int

    @cached_property
    def ttft_curve(self) -> TtftCurve:
        return TtftCurve.fit(self.prefill_points)

    @cached_property
    def itl_surface(self) -> ItlSurface:
        return ItlSurface.fit(self.decode_points)

    @cached_property
    def prefill_points(self) -> list[PrefillPoint]:
        """The prefill points in seconds."""
        profile = self.profile
        rows = zip(profile.prefill_isl, profile.prefill_ttft / 1000, profile.prefill_thpt_per_gpu, strict=True)
        return [PrefillPoint(int(isl), t, (t, t), (t,), throughput, "measured") for isl, t, throughput in rows]

    @cached_property
    def decode_points(self) -> list[DecodePoint]:
        """The decode points in seconds."""
        profile = self.profile
        arrays = (profile.requests, profile.x_kv_usage, profile.y_context_length, profile.z_itl / 1000)
        return [
            DecodePoint(
                prompt_tokens=int(context),
                output_tokens=2 * round(context - int(context)),
                concurrency=max(1, int(requests)),
                kv_usage=usage,
                itl=itl,
                interval=(itl, itl),
                throughput_per_gpu=throughput,
                running=int(requests),
                cached_share=None,
                preemptions=None,
                consistency=1.0,
                source="measured",
            )
            for requests, usage, context, itl, throughput in zip(*arrays, profile.z_thpt_per_gpu, strict=True)
        ]

    def ttft(self, isl: float) -> float:
        """Seconds of a single prompt."""
        return float(self.ttft_curve(isl)[0])

    def itl(self, requests: float, context_length: float) -> float:
        """Seconds per output token with this many requests in flight on one worker."""
        return float(self.itl_surface(requests, context_length)[0])

    @cached_property
    def prefill_streams(self) -> int:
        """Prompts that one prefill worker computes side by side: its data-parallel attention replicas."""
        profile = self.profile
        side_by_side = (
            profile.prefill_thpt_per_gpu * self.prefill_gpus * profile.prefill_ttft / 1000 / profile.prefill_isl
        )
        return max(1, round(float(sorted(side_by_side)[len(side_by_side) // 2])))

    def most_requests(self, isl: float, osl: float) -> int:
        """The most requests of this length that a decode worker was measured with or has KV cache for; at least 1."""
        return max(1, min(int(self.profile.max_kv_tokens // (isl + osl)), int(self.profile.requests.max())))

    def requests_within(self, itl: float, isl: float, osl: float) -> int:
        """The most requests in flight whose ITL is within the target, 1 where even one is not."""
        low, high = 1, self.most_requests(isl, osl)
        while low < high:
            middle = (low + high + 1) // 2
            if self.itl(middle, isl + osl / 2) <= itl:
                low = middle
            else:
                high = middle - 1
        return low


@dataclass(frozen=True)
class PlannedLoad:
    """The load that workers are planned for: requests/s, tokens, and targets in seconds."""

    rate: float
    isl: float
    osl: float
    ttft: float
    itl: float
    max_gpus: int | None = None


@dataclass(frozen=True)
class ServingPlan:
    """Numbers of workers for a load, and what is expected of them; times in seconds.

    `prefill_wait` is the mean queueing time of Poisson arrivals, `requests_per_worker` the requests in flight on each
    decode worker, `served_rate` the requests/s that the workers sustain within the targets, less than the load's where
    the GPU budget is short.
    """

    load: PlannedLoad
    prefill_workers: int
    decode_workers: int
    prefill_gpus: int
    decode_gpus: int
    ttft: float
    prefill_wait: float
    prefill_utilization: float
    itl: float
    requests_per_worker: float
    prefill_rate_per_worker: float
    decode_rate_per_worker: float
    served_rate: float

    @property
    def gpus(self) -> int:
        """GPUs of all workers."""
        return self.prefill_workers * self.prefill_gpus + self.decode_workers * self.decode_gpus

    @property
    def is_short(self) -> bool:
        """Whether the GPU budget does not sustain the load."""
        return self.served_rate < self.load.rate * 0.999

    @property
    def missed_targets(self) -> tuple[str, ...]:
        """The latency targets that one idle worker misses already, which no number of workers mends."""
        missed = [("TTFT", self.ttft, self.load.ttft), ("ITL", self.itl, self.load.itl)]
        return tuple(name for name, value, target in missed if value > target)


def plan_workers(curves: WorkerCurves, load: PlannedLoad) -> ServingPlan:
    """The fewest workers that sustain the load within both targets, as far as the GPU budget goes.

    NoFeasibleError if the budget holds not one worker of each kind.
    """
    prefill_gpus, decode_gpus = curves.prefill_gpus, curves.decode_gpus
    if load.max_gpus is not None and load.max_gpus < prefill_gpus + decode_gpus:
        raise NoFeasibleError(
            f"{pluralize(load.max_gpus, 'GPU')} cannot hold a prefill and a decode worker.",
            why=f"A prefill worker has {pluralize(prefill_gpus, 'GPU')}, a decode worker {decode_gpus}.",
            remedy=f"Give at least --total-gpus {prefill_gpus + decode_gpus}, or profile smaller workers.",
        )
    decode_rate = _decode_rate(curves, load)
    prefills = _prefill_workers(curves, load, load.rate)
    decodes = max(1, math.ceil(load.rate / decode_rate - 1e-9))
    served = load.rate
    if load.max_gpus is not None and prefills * prefill_gpus + decodes * decode_gpus > load.max_gpus:
        prefills, decodes, served = _within_budget(curves, load, load.max_gpus, decode_rate)
    return _plan(curves, load, (prefills, decodes), served, decode_rate)


def _plan(
    curves: WorkerCurves, load: PlannedLoad, workers: tuple[int, int], served: float, decode_rate: float
) -> ServingPlan:
    prefills, decodes = workers
    ttft, streams = curves.ttft(load.isl), curves.prefill_streams
    requests = _requests_in_flight(curves, load, served / decodes)
    return ServingPlan(
        load=load,
        prefill_workers=prefills,
        decode_workers=decodes,
        prefill_gpus=curves.prefill_gpus,
        decode_gpus=curves.decode_gpus,
        ttft=ttft,
        prefill_wait=queue_seconds(prefills * streams, ttft, served),
        prefill_utilization=served * ttft / (prefills * streams),
        itl=curves.itl(requests, load.isl + load.osl / 2),
        requests_per_worker=requests,
        prefill_rate_per_worker=streams / ttft,
        decode_rate_per_worker=decode_rate,
        served_rate=served,
    )


def queue_seconds(servers: int, service_seconds: float, rate: float) -> float:
    """Mean seconds in an M/D/c queue, by Sakasegawa's approximation (1977); infinite from full utilisation on."""
    utilization = rate * service_seconds / servers
    if utilization >= 1:
        return math.inf
    busy_probability: float = utilization ** (math.sqrt(2 * (servers + 1)) - 1)
    return busy_probability * service_seconds / (2 * servers * (1 - utilization))


def _prefill_workers(curves: WorkerCurves, load: PlannedLoad, rate: float) -> int:
    """The fewest prefill workers whose queue keeps TTFT within its target, or is all but empty where none can."""
    ttft, streams = curves.ttft(load.isl), curves.prefill_streams
    workers = max(1, math.ceil(rate * ttft / (MAX_PREFILL_UTILIZATION * streams) - 1e-9))
    slack = max(load.ttft - ttft, 0.05 * ttft)
    while queue_seconds(workers * streams, ttft, rate) > slack and workers < MAX_WORKERS:
        workers += 1
    return workers


def _decode_rate(curves: WorkerCurves, load: PlannedLoad) -> float:
    """Requests/s that one decode worker completes within the ITL target."""
    requests = curves.requests_within(load.itl, load.isl, load.osl)
    return requests / (load.osl * curves.itl(requests, load.isl + load.osl / 2))


def _requests_in_flight(curves: WorkerCurves, load: PlannedLoad, rate: float) -> float:
    """Mean requests in flight on a decode worker at a rate, by Little's law with the ITL of just as many."""
    most = float(curves.most_requests(load.isl, load.osl))
    requests = 1.0
    for _ in range(FIXED_POINT_STEPS):
        occupied = rate * load.osl * curves.itl(max(requests, 1e-9), load.isl + load.osl / 2)
        requests = (requests + min(most, occupied)) / 2
    return requests


def _within_budget(
    curves: WorkerCurves, load: PlannedLoad, max_gpus: int, decode_rate: float
) -> tuple[int, int, float]:
    """(Prefill workers, decode workers, requests/s) with the highest rate that the budget sustains."""
    best = (1, 1, 0.0)
    ttft, streams = curves.ttft(load.isl), curves.prefill_streams
    for prefills in range(1, (max_gpus - curves.decode_gpus) // curves.prefill_gpus + 1):
        decodes = (max_gpus - prefills * curves.prefill_gpus) // curves.decode_gpus
        most = min(load.rate, decodes * decode_rate, MAX_PREFILL_UTILIZATION * prefills * streams / ttft)
        low, high = 0.0, most
        if _prefill_workers(curves, load, most) <= prefills:
            low = most
        else:
            for _ in range(30):
                middle = (low + high) / 2
                if _prefill_workers(curves, load, middle) <= prefills:
                    low = middle
                else:
                    high = middle
        if low > best[2]:
            best = (prefills, max(1, math.ceil(low / decode_rate - 1e-9)), low)
    return best


def rate_of_concurrency(curves: WorkerCurves, load: PlannedLoad, concurrency: float) -> float:
    """Requests/s of this many requests in flight over the deployment at the latency targets, by Little's law."""
    return concurrency / (min(load.ttft, curves.ttft(load.isl)) + load.osl * load.itl)
