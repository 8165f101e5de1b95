"""Prefill and decode on workers of their own: what each carries, and the KV cache in between."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from autotuner.predict.intervals import Interval
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.serving_option import Prices, ServingOption, WorkerPool, hourly_price
from autotuner.predict.traffic import LatencyTarget

PREFILL_UTILIZATION = 0.9
"""Share of the time that prefill workers compute where their number is matched to the decode workers."""


@dataclass(frozen=True, slots=True)
class PrefillWorker:
    """Prompts on one worker: `latency` seconds of one alone, overhead included, and `rate` per second when busy."""

    load_curve: LoadCurve
    latency: float
    rate: float
    gpus: int
    kv_bytes_sent: float
    """KV bytes of a prompt that the fullest GPU sends."""
    interval_ratios: tuple[float, float]
    """Edges of the interval of its time over the time."""


@dataclass(frozen=True, slots=True)
class DecodeWorker:
    """`batch` requests decoding on one worker: seconds per token, and requests/s it completes."""

    load_curve: LoadCurve
    batch: int
    tpot: float
    rate: float
    gpus: int
    kv_bytes_received: float
    interval_ratios: tuple[float, float]


def prefill_worker(load_curve: LoadCurve) -> PrefillWorker:
    """What one worker that only prefills does."""
    alone = load_curve.single_request
    return PrefillWorker(
        load_curve=load_curve,
        latency=load_curve.ttft_overhead + sum(alone.prefill.values()),
        rate=1 / load_curve.prefill_seconds,
        gpus=load_curve.deployment.layout.gpus,
        kv_bytes_sent=_prompt_kv_bytes(load_curve),
        interval_ratios=(alone.ttft_interval.lower / alone.ttft, alone.ttft_interval.upper / alone.ttft),
    )


def decode_workers(load_curve: LoadCurve, batches: Iterable[int]) -> list[DecodeWorker]:
    """What one worker that only decodes does at each of these loads that its KV cache holds."""
    found = []
    for batch in batches:
        if batch < load_curve.deployment.layout.dp:
            continue
        if batch > load_curve.max_concurrency:
            break
        tpot, at = load_curve.decode_only_tpot(batch), load_curve.at_concurrency(batch)
        edges = (at.tpot_interval.lower / at.tpot, at.tpot_interval.upper / at.tpot)
        rate = batch / (max(1, load_curve.traffic.osl - 1) * tpot)
        found.append(
            DecodeWorker(
                load_curve, batch, tpot, rate, load_curve.deployment.layout.gpus, _prompt_kv_bytes(load_curve), edges
            )
        )
    return found


def _prompt_kv_bytes(load_curve: LoadCurve) -> float:
    plan = load_curve.deployment.memory_plan
    return load_curve.traffic.isl * plan.kv_bytes_per_token + plan.kv_bytes_per_sequence


def transfer_seconds(prefill: PrefillWorker, decode: DecodeWorker, gpus: int) -> float:
    """Seconds to send a prompt's KV cache from one worker to the other, `gpus` GPUs being used in all.

    Every GPU sends or receives its own share over its own link: inside a node where all GPUs of
    both pools stand in one, else the slower of the two sides' networks. Data-sheet bandwidth,
    no overlap with the prefill.
    """
    here, there = prefill.load_curve.deployment.gpu, decode.load_curve.deployment.gpu
    together = here.name == there.name
    link = here.link_bandwidth(gpus) if together else min(here.inter_node, there.inter_node)
    return max(prefill.kv_bytes_sent, decode.kv_bytes_received) / link


def pareto_prefill_workers(workers: Sequence[PrefillWorker]) -> list[PrefillWorker]:
    """Prefill workers that no other beats in latency, rate per GPU and size at once."""
    points = [(worker.latency, -worker.rate / worker.gpus, worker.gpus, worker.kv_bytes_sent) for worker in workers]
    return [workers[i] for i in _pareto_indices(points)]


def pareto_decode_workers(workers: Sequence[DecodeWorker]) -> list[DecodeWorker]:
    """Decode workers that no other beats in time per token, rate per GPU and size at once."""
    points = [(worker.tpot, -worker.rate / worker.gpus, worker.gpus) for worker in workers]
    return [workers[i] for i in _pareto_indices(points)]


def _pareto_indices(points: Sequence[tuple[float, ...]]) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(points)), key=points.__getitem__):
        if not any(all(a <= b for a, b in zip(points[j], points[i], strict=True)) for j in kept):
            kept.append(i)
    return kept


def match_workers(prefill: PrefillWorker, decode: DecodeWorker, budget: int) -> tuple[int, int] | None:
    """The most decode workers, with the prefill workers that keep up with them, on so many GPUs; None for none."""
    per_decode = decode.gpus + prefill.gpus * decode.rate / (PREFILL_UTILIZATION * prefill.rate)
    for workers in range(int(budget / per_decode), 0, -1):
        needed = math.ceil(workers * decode.rate / (PREFILL_UTILIZATION * prefill.rate))
        if needed * prefill.gpus + workers * decode.gpus <= budget:
            return needed, workers
    return None


def prefill_queue_seconds(prefill: PrefillWorker, workers: int, rate: float) -> float:
    """Mean seconds a prompt queues in front of `workers`: Poisson arrivals, constant service."""
    busy = rate / (workers * prefill.rate)
    if busy >= 1:
        return math.inf
    crowded: float = busy ** (math.sqrt(2 * (workers + 1)) - 1)
    return crowded / (prefill.rate * workers * 2 * (1 - busy))


def disaggregated_option(
    prefill: PrefillWorker,
    decode: DecodeWorker,
    workers: tuple[int, int],
    rate: float,
    *,
    budget: int,
    target: LatencyTarget,
    prices: Prices,
) -> ServingOption:
    """So many prefill and decode workers at a rate of requests/s over all of them."""
    first, second = workers
    osl = decode.load_curve.traffic.osl
    gpus = first * prefill.gpus + second * decode.gpus
    transfer = transfer_seconds(prefill, decode, gpus)
    wait = prefill_queue_seconds(prefill, first, rate)
    ttft = wait + prefill.latency + transfer
    pools = (
        WorkerPool(
            prefill.load_curve.deployment.gpu,
            prefill.load_curve.deployment.layout,
            first,
            rate / first * (wait + prefill.latency),
        ),
        WorkerPool(
            decode.load_curve.deployment.gpu,
            decode.load_curve.deployment.layout,
            second,
            rate / second * (osl - 1) * decode.tpot,
        ),
    )
    option = ServingOption(
        serving=pools[1],
        prefill=pools[0],
        ttft=ttft,
        tpot=decode.tpot,
        ttft_interval=Interval(*((wait + prefill.latency) * edge + transfer for edge in prefill.interval_ratios)),
        tpot_interval=Interval(*(decode.tpot * edge for edge in decode.interval_ratios)),
        requests=rate,
        throughput=rate * osl,
        budget=budget,
        transfer_seconds=transfer,
        price=hourly_price(pools, prices),
    )
    return with_excess(option, target)


def with_excess(option: ServingOption, target: LatencyTarget) -> ServingOption:
    """The option with how far it is from the target."""
    excess, binding = target.excess(option)
    return replace(option, excess=excess, binding=binding)
