"""The fewest GPUs that sustain a request rate within latency targets: their type, layout, number and cost."""

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
    with_target_ratio,
)
from autotuner.predict.hardware import find_gpu
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.open_loop import OpenLoopModel
from autotuner.predict.predict import DoesNotFitError
from autotuner.predict.serving_option import Prices, ServingOption, WorkerPool, hourly_price
from autotuner.predict.sweep import CONCURRENCIES, load_curves
from autotuner.predict.traffic import LatencyTarget, Software, Traffic

MAX_WORKER_GPUS = (16, 64)
"""Most GPUs of one worker: two nodes of 8; the second where the model fits on no fewer."""
IDLE_TIME_MARGIN = 1.05
"""Times of an idle worker that count as reachable where no target can be met; chosen by hand."""
MAX_UTILIZATION = 0.95
"""Share of the sustainable rate that a worker is planned for at most; beyond it the queueing model is off by half.

docs/reference/figures.md: at 95% TTFT is off by up to 55% against the simulated scheduler, to 80% by 17%.
"""
BISECTION_STEPS = 12
"""Find a rate to 1/4096 of the sustainable one."""


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
    """Ways to sustain `rate` requests/s of Poisson arrivals on each of the GPU types, best first.

    Best is the cheapest where every option has a price, else the one with the fewest GPUs. Options
    that exceed `total_gpus` come after those that do not, options that miss the target last,
    nearest first. A GPU type that cannot hold the model is left out; raises AutotuneError with the
    reason where none can. `bundled_only` ignores what was calibrated on this machine.
    """
    if not rate > 0:
        raise ConfigError(f"The rate must be above 0, not {rate:g}.", remedy="Give it in requests per second.")
    software, target, prices = software or Software(), target or LatencyTarget(), prices or {}
    options, errors = list[ServingOption](), list[AutotuneError]()
    curves_on = partial(_load_curves, model, traffic, software, total_gpus, bundled_only)
    for name in gpus:
        try:
            curves = curves_on(name)
            decode_curves = curves_on(decode_gpu) if decode_gpu else curves
        except AutotuneError as error:
            errors.append(error)
            continue
        if not decode_gpu:
            options += [_aggregated_option(curve, rate, target, prices) for curve in curves]
        options += _disaggregated_options(curves, decode_curves, rate, target, prices)
    if not options:
        raise errors[0] if errors else ConfigError("There is no GPU type to choose from.")
    by_cost = all(option.price is not None for option in options)
    ranked = sorted(options, key=partial(_sort_key, by_cost=by_cost, max_gpus=total_gpus))
    return list({option.worker_key: option for option in reversed(ranked)}.values())[::-1]


def _load_curves(
    model: str, traffic: Traffic, software: Software, max_gpus: int | None, bundled_only: bool, gpu: str
) -> list[LoadCurve]:
    """Load curves of layouts of up to MAX_WORKER_GPUS on one GPU type; DoesNotFitError where none holds the model."""
    usual, largest = MAX_WORKER_GPUS
    curves_up_to = partial(load_curves, model, find_gpu(gpu), traffic, software, bundled_only=bundled_only)
    try:
        return curves_up_to(min(usual, max_gpus or usual))
    except DoesNotFitError:
        return curves_up_to(min(largest, max_gpus or largest))


def _sort_key(option: ServingOption, *, by_cost: bool, max_gpus: int | None) -> tuple[float, ...]:
    """Options that meet the target first, then by cost or GPUs; those that miss it last, nearest first.

    Misses of about the same ratio, within IDLE_TIME_MARGIN, count as equal, and fewer GPUs decide.
    """
    if not option.meets_target:
        return (2, math.ceil(math.log(option.target_ratio) / math.log(IDLE_TIME_MARGIN)), option.gpus)
    exceeds_budget = max_gpus is not None and option.gpus > max_gpus
    size = (option.price or 0.0, option.gpus) if by_cost else (option.gpus, option.price or 0.0)
    return (int(exceeds_budget), *size, option.ttft + option.tpot)


def _aggregated_option(load_curve: LoadCurve, rate: float, target: LatencyTarget, prices: Prices) -> ServingOption:
    """As many replicas of a deployment as sustain the rate within the target, or nearly idle where none meet it."""
    open_loop, deployment = OpenLoopModel(load_curve), load_curve.deployment
    replicas = max(1, math.ceil(rate / _max_rate_within(open_loop, target)))
    ttft, tpot, _, in_service = open_loop.mean_times(rate / replicas)
    pool = WorkerPool(deployment.gpu, deployment.layout, replicas, max(in_service, 0.0) * deployment.layout.dp)
    prediction = open_loop.at_rate(rate / replicas)
    option = ServingOption(
        serving=pool,
        prefill=None,
        ttft=ttft,
        tpot=tpot,
        ttft_interval=prediction.ttft_interval,
        tpot_interval=prediction.tpot_interval,
        requests=rate,
        throughput=rate * load_curve.traffic.osl,
        budget=pool.gpus,
        price=hourly_price((pool,), prices),
    )
    return with_target_ratio(option, target)


def _max_rate_within(open_loop: OpenLoopModel, target: LatencyTarget) -> float:
    """Largest rate in requests/s at which one deployment meets the target, no time asked below nearly idle ones."""
    idle = open_loop.load_curve.single_request
    max_ttft = math.inf if target.ttft is None else max(target.ttft, IDLE_TIME_MARGIN * idle.ttft)
    max_tpot = math.inf if target.tpot is None else max(target.tpot, IDLE_TIME_MARGIN * idle.tpot)

    def meets_target(rate: float) -> bool:
        ttft, tpot, _, _ = open_loop.mean_times(rate)
        return ttft <= max_ttft and tpot <= max_tpot and math.isfinite(ttft)

    lower, upper = 0.0, MAX_UTILIZATION * open_loop.max_rate
    if meets_target(upper):
        return upper
    for _ in range(BISECTION_STEPS):
        middle = (lower + upper) / 2
        lower, upper = (middle, upper) if meets_target(middle) else (lower, middle)
    return lower or upper


def _disaggregated_options(
    curves: Sequence[LoadCurve], decode_curves: Sequence[LoadCurve], rate: float, target: LatencyTarget, prices: Prices
) -> list[ServingOption]:
    """For each decode worker at each batch, the best option over the prefill workers."""
    prefills = pareto_prefill_workers([prefill_worker(curve) for curve in curves])
    decodes = pareto_decode_workers(
        [worker for curve in decode_curves for worker in decode_workers(curve, CONCURRENCIES)]
    )
    best = []
    for decode in decodes:
        options = [_smallest_disaggregated(prefill, decode, rate, target, prices) for prefill in prefills]
        feasible = [option for option in options if option.meets_target]
        best.append(
            min(feasible, key=lambda o: (o.price or 0.0, o.gpus))
            if feasible
            else min(options, key=lambda o: o.target_ratio)
        )
    return best


def _smallest_disaggregated(
    prefill: PrefillWorker, decode: DecodeWorker, rate: float, target: LatencyTarget, prices: Prices
) -> ServingOption:
    """The fewest workers of both kinds for a rate, each decode worker with at most the batch of `decode`."""
    workers = (math.ceil(rate / (PREFILL_UTILIZATION * prefill.rate)), math.ceil(rate / decode.rate))
    gpus = workers[0] * prefill.gpus + workers[1] * decode.gpus
    option = disaggregated_option(prefill, decode, workers, rate, budget=gpus, target=target, prices=prices)
    if option.binding == "ttft" and not option.meets_target:
        doubled = (2 * workers[0], workers[1])  # at half the utilisation the queue for prefill is all but gone
        gpus += workers[0] * prefill.gpus
        return disaggregated_option(prefill, decode, doubled, rate, budget=gpus, target=target, prices=prices)
    return replace(option, budget=gpus)
