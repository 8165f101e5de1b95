"""Disaggregated (P/D) serving: prefill workers, decode workers, rate matching, and the KV transfer between them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from autotuner.predict.intervals import Interval
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.serving_option import Prices, ServingOption, WorkerPool, hourly_price
from autotuner.predict.traffic import LatencyTarget

PREFILL_UTILIZATION = 0.9
"""Highest utilisation of prefill workers when matched to decode workers, so that their queue stays short.

Chosen by hand.
"""


@dataclass(frozen=True, slots=True)
class PrefillWorker:
    """One prefill worker: `latency` seconds of a single prompt, overhead included, and prompts/s when busy."""

    load_curve: LoadCurve
    latency: float
    rate: float
    gpus: int
    kv_bytes_sent: float
    """KV cache bytes of a prompt on the fullest GPU."""
    interval_ratios: tuple[float, float]
    """Bounds of the 80% interval over the mean."""


@dataclass(frozen=True, slots=True)
class DecodeWorker:
    """One decode worker with `batch` requests: seconds per token, and requests/s it completes."""

    load_curve: LoadCurve
    batch: int
    tpot: float
    rate: float
    gpus: int
    kv_bytes_received: float
    interval_ratios: tuple[float, float]


def prefill_worker(load_curve: LoadCurve) -> PrefillWorker:
    """The prefill worker of a load curve's deployment."""
    single = load_curve.single_request
    return PrefillWorker(
        load_curve=load_curve,
        latency=load_curve.ttft_overhead + sum(single.prefill.values()),
        rate=1 / load_curve.prefill_seconds,
        gpus=load_curve.deployment.layout.gpus,
        kv_bytes_sent=_prompt_kv_bytes(load_curve),
        interval_ratios=(single.ttft_interval.lower / single.ttft, single.ttft_interval.upper / single.ttft),
    )


def decode_workers(load_curve: LoadCurve, batches: Iterable[int]) -> list[DecodeWorker]:
    """The decode worker of a load curve's deployment at each of these batches that its KV cache holds."""
    workers, layout, kv_bytes = [], load_curve.deployment.layout, _prompt_kv_bytes(load_curve)
    for batch in batches:
        if batch < layout.dp:
            continue
        if batch > load_curve.max_concurrency:
            break
        tpot, mixed = load_curve.decode_only_tpot(batch), load_curve.at_concurrency(batch)
        ratios = (mixed.tpot_interval.lower / mixed.tpot, mixed.tpot_interval.upper / mixed.tpot)
        rate = batch / (max(1, load_curve.traffic.osl - 1) * tpot)
        workers.append(DecodeWorker(load_curve, batch, tpot, rate, layout.gpus, kv_bytes, ratios))
    return workers


def _prompt_kv_bytes(load_curve: LoadCurve) -> float:
    memory_plan = load_curve.deployment.memory_plan
    return load_curve.traffic.isl * memory_plan.kv_bytes_per_token + memory_plan.kv_bytes_per_sequence


def transfer_seconds(prefill: PrefillWorker, decode: DecodeWorker, gpus: int) -> float:
    """Seconds to send a prompt's KV cache from a prefill to a decode worker, of `gpus` GPUs in both pools.

    Every GPU sends or receives its own share over its own link: within a node where both pools fit
    into one, else over the slower of the two networks. Data-sheet bandwidth, no overlap with the
    prefill.
    """
    source, destination = prefill.load_curve.deployment.gpu, decode.load_curve.deployment.gpu
    if source.name == destination.name:
        bandwidth = source.link_bandwidth(gpus)
    else:
        bandwidth = min(source.inter_node, destination.inter_node)
    return max(prefill.kv_bytes_sent, decode.kv_bytes_received) / bandwidth


def pareto_prefill_workers(workers: Sequence[PrefillWorker]) -> list[PrefillWorker]:
    """Prefill workers that no other dominates in latency, rate per GPU, GPUs and KV bytes to send."""
    points = [(worker.latency, -worker.rate / worker.gpus, worker.gpus, worker.kv_bytes_sent) for worker in workers]
    return [workers[i] for i in _pareto_indices(points)]


def pareto_decode_workers(workers: Sequence[DecodeWorker]) -> list[DecodeWorker]:
    """Decode workers that no other dominates in TPOT, rate per GPU and GPUs."""
    points = [(worker.tpot, -worker.rate / worker.gpus, worker.gpus) for worker in workers]
    return [workers[i] for i in _pareto_indices(points)]


def _pareto_indices(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Indices of the points that no other is at most equal to in every coordinate; less is better."""
    indices: list[int] = []
    for i in sorted(range(len(points)), key=points.__getitem__):
        if not any(all(a <= b for a, b in zip(points[j], points[i], strict=True)) for j in indices):
            indices.append(i)
    return indices


def match_workers(prefill: PrefillWorker, decode: DecodeWorker, budget: int) -> tuple[int, int] | None:
    """Numbers of prefill and decode workers: the most decode workers, and the prefill workers that keep up with them.

    None where not one of each fits into a budget of GPUs.
    """
    gpus_per_decode = decode.gpus + prefill.gpus * decode.rate / (PREFILL_UTILIZATION * prefill.rate)
    for decodes in range(int(budget / gpus_per_decode), 0, -1):
        prefills = math.ceil(decodes * decode.rate / (PREFILL_UTILIZATION * prefill.rate))
        if prefills * prefill.gpus + decodes * decode.gpus <= budget:
            return prefills, decodes
    return None


def prefill_queue_seconds(prefill: PrefillWorker, workers: int, rate: float) -> float:
    """Mean seconds a prompt queues in an M/D/c queue of `workers`, by Sakasegawa's approximation (1977)."""
    utilization = rate / (workers * prefill.rate)
    if utilization >= 1:
        return math.inf
    queue_probability: float = utilization ** (math.sqrt(2 * (workers + 1)) - 1)
    return queue_probability / (prefill.rate * workers * 2 * (1 - utilization))


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
    """The option of (prefill, decode) `workers` at a rate of requests/s over all of them."""
    prefills, decodes = workers
    osl = decode.load_curve.traffic.osl
    transfer = transfer_seconds(prefill, decode, prefills * prefill.gpus + decodes * decode.gpus)
    wait = prefill_queue_seconds(prefill, prefills, rate)
    ttft = wait + prefill.latency + transfer
    source, destination = prefill.load_curve.deployment, decode.load_curve.deployment
    pools = (
        WorkerPool(source.gpu, source.layout, prefills, rate / prefills * (wait + prefill.latency)),
        WorkerPool(destination.gpu, destination.layout, decodes, rate / decodes * (osl - 1) * decode.tpot),
    )
    option = ServingOption(
        serving=pools[1],
        prefill=pools[0],
        ttft=ttft,
        tpot=decode.tpot,
        ttft_interval=Interval(*((wait + prefill.latency) * ratio + transfer for ratio in prefill.interval_ratios)),
        tpot_interval=Interval(*(decode.tpot * ratio for ratio in decode.interval_ratios)),
        requests=rate,
        throughput=rate * osl,
        budget=budget,
        transfer_seconds=transfer,
        price=hourly_price(pools, prices),
    )
    return with_target_ratio(option, target)


def with_target_ratio(option: ServingOption, target: LatencyTarget) -> ServingOption:
    """The option with its largest ratio of a latency to its target."""
    target_ratio, binding = target.largest_ratio(option)
    return replace(option, target_ratio=target_ratio, binding=binding)
