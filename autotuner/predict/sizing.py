"""The fewest GPUs that carry a rate of requests within the targets: type, layout, number and cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from autotuner.errors import AutotuneError, ConfigError
from autotuner.predict.disaggregated import (
    BUSY,
    DecodeWorker,
    PrefillWorker,
    decode_workers,
    judged,
    option_of,
    prefill_worker,
    undominated,
    undominated_decode,
)
from autotuner.predict.hardware import gpu as find_gpu
from autotuner.predict.load_curve import Served
from autotuner.predict.open_loop import OpenService
from autotuner.predict.predict import DoesNotFitError
from autotuner.predict.serving_option import Option, Pool, Prices, hourly
from autotuner.predict.sweep import CONCURRENCIES, served_layouts
from autotuner.predict.traffic import Software, Target, Traffic

WORKER_GPUS = (16, 64)
"""GPUs of one worker at most; the second where the model fits on no fewer."""
NEAREST = 1.05
"""How far above the times of an idle worker the nearest answer may be where no target can be met."""
FULL = 0.95
"""Share of the highest sustainable rate that a worker is planned for at most."""
HALVINGS = 12


def fewest_gpus(
    model: str,
    gpus: Sequence[str],
    *,
    rate: float,
    traffic: Traffic,
    software: Software | None = None,
    target: Target | None = None,
    decode_gpu: str | None = None,
    prices: Prices | None = None,
    total_gpus: int | None = None,
    bundled_only: bool = False,
) -> list[Option]:
    """Ways to carry `rate` requests/s, arriving by chance, on each of the GPU types, best first.

    Best is the cheapest where every option has a price, else the one with the fewest GPUs; what
    misses the target, or takes more than `total_gpus`, comes after all that does not, nearest
    first. A GPU type that cannot hold the model is left out; raises AutotuneError with the reason
    where none can. `bundled_only` leaves out what was calibrated on this machine.
    """
    if not rate > 0:
        raise ConfigError(f"The rate must be above 0, not {rate:g}.", remedy="Give it in requests per second.")
    how, wanted, priced = software or Software(), target or Target(), prices or {}
    found, refused = list[Option](), list[AutotuneError]()
    for name in gpus:
        try:
            fitting = partial(_workers, model, traffic, how, total_gpus, bundled_only)
            served = fitting(name)
            second = fitting(decode_gpu) if decode_gpu else served
        except AutotuneError as error:
            refused.append(error)
            continue
        if not decode_gpu:
            found += [_replicas(one, rate, wanted, priced) for one in served]
        found += _splits(served, second, rate, wanted, priced)
    if not found:
        raise refused[0] if refused else ConfigError("There is no GPU type to choose from.")
    by_cost = all(option.price is not None for option in found)
    ranked = sorted(found, key=partial(_rank, by_cost=by_cost, most=total_gpus))
    return list({option.workers: option for option in reversed(ranked)}.values())[::-1]


def _workers(
    model: str, traffic: Traffic, software: Software, most: int | None, bundled_only: bool, gpu: str
) -> list[Served]:
    few, many = WORKER_GPUS
    fitting = partial(served_layouts, model, find_gpu(gpu), traffic, software, bundled_only=bundled_only)
    try:
        return fitting(min(few, most or few))
    except DoesNotFitError:
        return fitting(min(many, most or many))


def _rank(option: Option, *, by_cost: bool, most: int | None) -> tuple[float, ...]:
    if not option.meets:
        return (2, math.ceil(math.log(option.excess) / math.log(NEAREST)), option.gpus)
    beyond = most is not None and option.gpus > most
    size = (option.price or 0.0, option.gpus) if by_cost else (option.gpus, option.price or 0.0)
    return (int(beyond), *size, option.ttft + option.tpot)


def _replicas(served: Served, rate: float, target: Target, prices: Prices) -> Option:
    """As many replicas of a deployment as carry the rate within the target; one request at a time where none do."""
    service, of = OpenService(served), served.of
    each = _most_within(service, target)
    replicas = max(1, math.ceil(rate / each))
    ttft, tpot, _, others = service.times(rate / replicas)
    pool = Pool(of.gpu, of.layout, replicas, max(others, 0.0) * of.layout.dp)
    at = service.at(rate / replicas)
    option = Option(
        serving=pool,
        prefill=None,
        ttft=ttft,
        tpot=tpot,
        ttft_interval=at.ttft_interval,
        tpot_interval=at.tpot_interval,
        requests=rate,
        throughput=rate * served.traffic.osl,
        budget=pool.gpus,
        price=hourly((pool,), prices),
    )
    return judged(option, target)


def _most_within(service: OpenService, target: Target) -> float:
    """The largest rate at which one deployment meets the target; where none does, what idle times can be."""
    idle = service.served.alone
    first = math.inf if target.ttft is None else max(target.ttft, NEAREST * idle.ttft)
    each = math.inf if target.tpot is None else max(target.tpot, NEAREST * idle.tpot)

    def meets(rate: float) -> bool:
        ttft, tpot, _, _ = service.times(rate)
        return ttft <= first and tpot <= each and math.isfinite(ttft)

    low, high = 0.0, FULL * service.highest
    if meets(high):
        return high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low or high


def _splits(
    first: Sequence[Served], second: Sequence[Served], rate: float, target: Target, prices: Prices
) -> list[Option]:
    """For each decode worker at each load the prefill workers with which the fewest GPUs do."""
    prefills = undominated([prefill_worker(one) for one in first])
    decodes = undominated_decode([worker for one in second for worker in decode_workers(one, CONCURRENCIES)])
    found = []
    for decode in decodes:
        options = [_enough(prefill, decode, rate, target, prices) for prefill in prefills]
        meeting = [option for option in options if option.meets]
        found.append(
            min(meeting, key=lambda o: (o.price or 0.0, o.gpus)) if meeting else min(options, key=lambda o: o.excess)
        )
    return found


def _enough(prefill: PrefillWorker, decode: DecodeWorker, rate: float, target: Target, prices: Prices) -> Option:
    """Enough workers of both kinds for a rate, decoding no more at once than `decode` does."""
    workers = (math.ceil(rate / (BUSY * prefill.rate)), math.ceil(rate / decode.rate))
    gpus = workers[0] * prefill.gpus + workers[1] * decode.gpus
    option = option_of(prefill, decode, workers, rate, budget=gpus, target=target, prices=prices)
    if option.binding == "ttft" and not option.meets:
        roomier = (2 * workers[0], workers[1])  # half as busy: what queues in front of prefill is all but gone
        gpus += workers[0] * prefill.gpus
        return option_of(prefill, decode, roomier, rate, budget=gpus, target=target, prices=prices)
    return replace(option, budget=gpus)
