"""Prefill and decode on workers of their own: what each carries, and the KV cache in between."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from autotuner.predict.intervals import Interval
from autotuner.predict.load_curve import Served
from autotuner.predict.serving_option import Option, Pool, Prices, hourly
from autotuner.predict.traffic import Target

BUSY = 0.9
"""Share of the time that prefill workers compute where their number is matched to the decode workers."""


@dataclass(frozen=True, slots=True)
class PrefillWorker:
    """Prompts on one worker: `latency` seconds of one alone, overhead included, and `rate` per second when busy."""

    served: Served
    latency: float
    rate: float
    gpus: int
    sent: float
    """KV bytes of a prompt that the fullest GPU sends."""
    edges: tuple[float, float]
    """Edges of the interval of its time over the time."""


@dataclass(frozen=True, slots=True)
class DecodeWorker:
    """`batch` requests decoding on one worker: seconds per token, and requests/s it completes."""

    served: Served
    batch: int
    tpot: float
    rate: float
    gpus: int
    received: float
    edges: tuple[float, float]


def prefill_worker(served: Served) -> PrefillWorker:
    """What one worker that only prefills does."""
    alone = served.alone
    return PrefillWorker(
        served=served,
        latency=served.overhead + sum(alone.prefill.values()),
        rate=1 / served.prefill_seconds,
        gpus=served.of.layout.gpus,
        sent=_cached_bytes(served),
        edges=(alone.ttft_interval.low / alone.ttft, alone.ttft_interval.high / alone.ttft),
    )


def decode_workers(served: Served, batches: Iterable[int]) -> list[DecodeWorker]:
    """What one worker that only decodes does at each of these loads that its KV cache holds."""
    found = []
    for batch in batches:
        if batch < served.of.layout.dp:
            continue
        if batch > served.most:
            break
        tpot, at = served.decode_only(batch), served.closed(batch)
        edges = (at.tpot_interval.low / at.tpot, at.tpot_interval.high / at.tpot)
        rate = batch / (max(1, served.traffic.osl - 1) * tpot)
        found.append(DecodeWorker(served, batch, tpot, rate, served.of.layout.gpus, _cached_bytes(served), edges))
    return found


def _cached_bytes(served: Served) -> float:
    plan = served.of.plan
    return served.traffic.isl * plan.kv_bytes_per_token + plan.kv_bytes_per_sequence


def transfer_seconds(prefill: PrefillWorker, decode: DecodeWorker, gpus: int) -> float:
    """Seconds to send a prompt's KV cache from one worker to the other, `gpus` GPUs being used in all.

    Every GPU sends or receives its own share over its own link: inside a node where all GPUs of
    both pools stand in one, else the slower of the two sides' networks. Data-sheet bandwidth,
    no overlap with the prefill.
    """
    here, there = prefill.served.of.gpu, decode.served.of.gpu
    together = here.name == there.name
    link = here.link(gpus) if together else min(here.inter_node, there.inter_node)
    return max(prefill.sent, decode.received) / link


def undominated(workers: Sequence[PrefillWorker]) -> list[PrefillWorker]:
    """Prefill workers that no other beats in latency, rate per GPU and size at once."""
    points = [(worker.latency, -worker.rate / worker.gpus, worker.gpus, worker.sent) for worker in workers]
    return [workers[i] for i in _minimal(points)]


def undominated_decode(workers: Sequence[DecodeWorker]) -> list[DecodeWorker]:
    """Decode workers that no other beats in time per token, rate per GPU and size at once."""
    points = [(worker.tpot, -worker.rate / worker.gpus, worker.gpus) for worker in workers]
    return [workers[i] for i in _minimal(points)]


def _minimal(points: Sequence[tuple[float, ...]]) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(points)), key=points.__getitem__):
        if not any(all(a <= b for a, b in zip(points[j], points[i], strict=True)) for j in kept):
            kept.append(i)
    return kept


def matched(prefill: PrefillWorker, decode: DecodeWorker, budget: int) -> tuple[int, int] | None:
    """The most decode workers, with the prefill workers that keep up with them, on so many GPUs; None for none."""
    per_decode = decode.gpus + prefill.gpus * decode.rate / (BUSY * prefill.rate)
    for workers in range(int(budget / per_decode), 0, -1):
        needed = math.ceil(workers * decode.rate / (BUSY * prefill.rate))
        if needed * prefill.gpus + workers * decode.gpus <= budget:
            return needed, workers
    return None


def wait_for_prefill(prefill: PrefillWorker, workers: int, rate: float) -> float:
    """Mean seconds a prompt queues in front of `workers`: Poisson arrivals, constant service."""
    busy = rate / (workers * prefill.rate)
    if busy >= 1:
        return math.inf
    crowded: float = busy ** (math.sqrt(2 * (workers + 1)) - 1)
    return crowded / (prefill.rate * workers * 2 * (1 - busy))


def option_of(
    prefill: PrefillWorker,
    decode: DecodeWorker,
    workers: tuple[int, int],
    rate: float,
    *,
    budget: int,
    target: Target,
    prices: Prices,
) -> Option:
    """So many prefill and decode workers at a rate of requests/s over all of them."""
    first, second = workers
    osl = decode.served.traffic.osl
    gpus = first * prefill.gpus + second * decode.gpus
    transfer = transfer_seconds(prefill, decode, gpus)
    wait = wait_for_prefill(prefill, first, rate)
    ttft = wait + prefill.latency + transfer
    pools = (
        Pool(prefill.served.of.gpu, prefill.served.of.layout, first, rate / first * (wait + prefill.latency)),
        Pool(decode.served.of.gpu, decode.served.of.layout, second, rate / second * (osl - 1) * decode.tpot),
    )
    option = Option(
        serving=pools[1],
        prefill=pools[0],
        ttft=ttft,
        tpot=decode.tpot,
        ttft_interval=Interval(*((wait + prefill.latency) * edge + transfer for edge in prefill.edges)),
        tpot_interval=Interval(*(decode.tpot * edge for edge in decode.edges)),
        requests=rate,
        throughput=rate * osl,
        budget=budget,
        transfer=transfer,
        price=hourly(pools, prices),
    )
    return judged(option, target)


def judged(option: Option, target: Target) -> Option:
    """The option with how far it is from the target."""
    excess, binding = target.excess(option)
    return replace(option, excess=excess, binding=binding)
