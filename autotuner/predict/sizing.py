"""The fewest GPUs that carry a rate of requests within the targets: type, layout, number and cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from autotuner.errors import AutotuneError, ConfigError
from autotuner.predict.disaggregated import (
    PREFILL_UTILIZATION,
    DecodeWorker,
    PrefillWorker,
    decode_workers,
    disaggregated_option,
    pareto_decode_workers,
    pareto_prefill_workers,
    prefill_worker,
    with_excess,
)
from autotuner.predict.hardware import find_gpu as find_gpu
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.open_loop import OpenLoopModel
from autotuner.predict.predict import DoesNotFitError
from autotuner.predict.serving_option import Prices, ServingOption, WorkerPool, hourly_price
from autotuner.predict.sweep import CONCURRENCIES, load_curves
from autotuner.predict.traffic import LatencyTarget, Software, Traffic

MAX_WORKER_GPUS = (16, 64)
"""GPUs of one worker at most; the second where the model fits on no fewer."""
IDLE_TIME_MARGIN = 1.05
"""How far above the times of an idle worker the nearest answer may be where no target can be met."""
MAX_UTILIZATION = 0.95
"""Share of the highest sustainable rate that a worker is planned for at most."""
BISECTION_STEPS = 12


def fewest_gpus(
    model: str,
    gpus: Sequence[str],
    *,
    rate: float,
    traffic: Traffic,
    software: Software | None = None,
    target: LatencyTarget | None = None,
    decode_gpu: str | None = None,
    prices: Prices | None = None,
    total_gpus: int | None = None,
    bundled_only: bool = False,
) -> list[ServingOption]:
    """Ways to carry `rate` requests/s, arriving by chance, on each of the GPU types, best first.

    Best is the cheapest where every option has a price, else the one with the fewest GPUs; what
    misses the target, or takes more than `total_gpus`, comes after all that does not, nearest
    first. A GPU type that cannot hold the model is left out; raises AutotuneError with the reason
    where none can. `bundled_only` leaves out what was calibrated on this machine.
    """
    if not rate > 0:
        raise ConfigError(f"The rate must be above 0, not {rate:g}.", remedy="Give it in requests per second.")
    how, wanted, priced = software or Software(), target or LatencyTarget(), prices or {}
    found, refused = list[ServingOption](), list[AutotuneError]()
    for name in gpus:
        try:
            fitting = partial(_load_curves, model, traffic, how, total_gpus, bundled_only)
            served = fitting(name)
            second = fitting(decode_gpu) if decode_gpu else served
        except AutotuneError as error:
            refused.append(error)
            continue
        if not decode_gpu:
            found += [_aggregated_option(one, rate, wanted, priced) for one in served]
        found += _disaggregated_options(served, second, rate, wanted, priced)
    if not found:
        raise refused[0] if refused else ConfigError("There is no GPU type to choose from.")
    by_cost = all(option.price is not None for option in found)
    ranked = sorted(found, key=partial(_sort_key, by_cost=by_cost, max_gpus=total_gpus))
    return list({option.worker_key: option for option in reversed(ranked)}.values())[::-1]


def _load_curves(
    model: str, traffic: Traffic, software: Software, max_gpus: int | None, bundled_only: bool, gpu: str
) -> list[LoadCurve]:
    few, many = MAX_WORKER_GPUS
    fitting = partial(load_curves, model, find_gpu(gpu), traffic, software, bundled_only=bundled_only)
    try:
        return fitting(min(few, max_gpus or few))
    except DoesNotFitError:
        return fitting(min(many, max_gpus or many))


def _sort_key(option: ServingOption, *, by_cost: bool, max_gpus: int | None) -> tuple[float, ...]:
    if not option.meets_target:
        return (2, math.ceil(math.log(option.excess) / math.log(IDLE_TIME_MARGIN)), option.gpus)
    beyond = max_gpus is not None and option.gpus > max_gpus
    size = (option.price or 0.0, option.gpus) if by_cost else (option.gpus, option.price or 0.0)
    return (int(beyond), *size, option.ttft + option.tpot)


def _aggregated_option(load_curve: LoadCurve, rate: float, target: LatencyTarget, prices: Prices) -> ServingOption:
    """As many replicas of a deployment as carry the rate within the target; one request at a time where none do."""
    service, of = OpenLoopModel(load_curve), load_curve.deployment
    each = _max_rate_within(service, target)
    replicas = max(1, math.ceil(rate / each))
    ttft, tpot, _, others = service.mean_times(rate / replicas)
    pool = WorkerPool(of.gpu, of.layout, replicas, max(others, 0.0) * of.layout.dp)
    at = service.at_rate(rate / replicas)
    option = ServingOption(
        serving=pool,
        prefill=None,
        ttft=ttft,
        tpot=tpot,
        ttft_interval=at.ttft_interval,
        tpot_interval=at.tpot_interval,
        requests=rate,
        throughput=rate * load_curve.traffic.osl,
        budget=pool.gpus,
        price=hourly_price((pool,), prices),
    )
    return with_excess(option, target)


def _max_rate_within(service: OpenLoopModel, target: LatencyTarget) -> float:
    """The largest rate at which one deployment meets the target; where none does, what idle times can be."""
    idle = service.load_curve.single_request
    first = math.inf if target.ttft is None else max(target.ttft, IDLE_TIME_MARGIN * idle.ttft)
    each = math.inf if target.tpot is None else max(target.tpot, IDLE_TIME_MARGIN * idle.tpot)

    def meets(rate: float) -> bool:
        ttft, tpot, _, _ = service.mean_times(rate)
        return ttft <= first and tpot <= each and math.isfinite(ttft)

    low, high = 0.0, MAX_UTILIZATION * service.max_rate
    if meets(high):
        return high
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low or high


def _disaggregated_options(
    first: Sequence[LoadCurve], second: Sequence[LoadCurve], rate: float, target: LatencyTarget, prices: Prices
) -> list[ServingOption]:
    """For each decode worker at each load the prefill workers with which the fewest GPUs do."""
    prefills = pareto_prefill_workers([prefill_worker(one) for one in first])
    decodes = pareto_decode_workers([worker for one in second for worker in decode_workers(one, CONCURRENCIES)])
    found = []
    for decode in decodes:
        options = [_smallest_disaggregated(prefill, decode, rate, target, prices) for prefill in prefills]
        meeting = [option for option in options if option.meets_target]
        found.append(
            min(meeting, key=lambda o: (o.price or 0.0, o.gpus)) if meeting else min(options, key=lambda o: o.excess)
        )
    return found


def _smallest_disaggregated(
    prefill: PrefillWorker, decode: DecodeWorker, rate: float, target: LatencyTarget, prices: Prices
) -> ServingOption:
    """Enough workers of both kinds for a rate, decoding no more at once than `decode` does."""
    workers = (math.ceil(rate / (PREFILL_UTILIZATION * prefill.rate)), math.ceil(rate / decode.rate))
    gpus = workers[0] * prefill.gpus + workers[1] * decode.gpus
    option = disaggregated_option(prefill, decode, workers, rate, budget=gpus, target=target, prices=prices)
    if option.binding == "ttft" and not option.meets_target:
        roomier = (2 * workers[0], workers[1])  # half as busy: what queues in front of prefill is all but gone
        gpus += workers[0] * prefill.gpus
        return disaggregated_option(prefill, decode, roomier, rate, budget=gpus, target=target, prices=prices)
    return replace(option, budget=gpus)
