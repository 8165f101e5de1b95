"""Disaggregated (P/D) serving: prefill workers, decode workers, rate matching, and the KV transfer between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.planning.question import Question
from autotuner.planning.serving_option import ServingOption, WorkerPool
from autotuner.predict.intervals import Interval
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.performance import Performance

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
        latency=single.ttft,
        rate=1 / load_curve.prefill_seconds,
        gpus=load_curve.deployment.layout.gpus,
        kv_bytes_sent=_prompt_kv_bytes(load_curve),
        interval_ratios=(single.ttft_interval.lower / single.ttft, single.ttft_interval.upper / single.ttft),
    )


def decode_worker(load_curve: LoadCurve, batch: int) -> DecodeWorker:
    """The decode worker of a load curve's deployment with this many requests."""
    tpot, mixed = load_curve.decode_only_tpot(batch), load_curve.at_concurrency(batch)
    return DecodeWorker(
        load_curve=load_curve,
        batch=batch,
        tpot=tpot,
        rate=batch / (max(1, load_curve.traffic.osl - 1) * tpot),
        gpus=load_curve.deployment.layout.gpus,
        kv_bytes_received=_prompt_kv_bytes(load_curve),
        interval_ratios=(mixed.tpot_interval.lower / mixed.tpot, mixed.tpot_interval.upper / mixed.tpot),
    )


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
    question: Question,
    prefill: PrefillWorker,
    decode: DecodeWorker,
    workers: tuple[int, int],
    rate: float,
    budget: int | None = None,
) -> ServingOption:
    """The option of (prefill, decode) `workers` at a rate of requests/s over all of them."""
    prefills, decodes = workers
    osl = decode.load_curve.traffic.osl
    transfer = transfer_seconds(prefill, decode, prefills * prefill.gpus + decodes * decode.gpus)
    wait = prefill_queue_seconds(prefill, prefills, rate)
    source, destination = prefill.load_curve.deployment, decode.load_curve.deployment
    performance = Performance(
        ttft=wait + prefill.latency + transfer,
        tpot=decode.tpot,
        ttft_interval=Interval(*((wait + prefill.latency) * ratio + transfer for ratio in prefill.interval_ratios)),
        tpot_interval=Interval(*(decode.tpot * ratio for ratio in decode.interval_ratios)),
        throughput=rate * osl,
        requests=rate,
    )
    return question.option(
        WorkerPool(destination.gpu, destination.layout, decodes, rate / decodes * (osl - 1) * decode.tpot),
        performance,
        prefill=WorkerPool(source.gpu, source.layout, prefills, rate / prefills * (wait + prefill.latency)),
        budget=budget,
        transfer_seconds=transfer,
    )
