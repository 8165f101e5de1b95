"""The fewest GPUs that sustain a request rate within latency targets: their type, layout, number and cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from autotuner.errors import AutotuneError, ConfigError
from autotuner.planning.disaggregation import (
    PREFILL_UTILIZATION,
    DecodeWorker,
    PrefillWorker,
    decode_worker,
    disaggregated_option,
    pareto_decode_workers,
    pareto_prefill_workers,
    prefill_worker,
)
from autotuner.planning.layouts import load_curves, planned_loads
from autotuner.planning.question import LatencyTarget, Question
from autotuner.planning.serving_option import ServingOption, WorkerPool
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.open_loop import OpenLoopModel
from autotuner.predict.predict import DoesNotFitError

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
    question: Question, gpus: Sequence[str], rate: float, total_gpus: int | None = None
) -> list[ServingOption]:
    """Ways to sustain `rate` requests/s of Poisson arrivals on each of the GPU types, best first.

    Best is the cheapest where every option has a price, else the one with the fewest GPUs. Options
    that exceed `total_gpus` come after those that do not, options that miss the target last,
    nearest first. A GPU type that cannot hold the model is left out; raises AutotuneError with the
    reason where none can.
    """
    if not rate > 0:
        raise ConfigError(f"The rate must be above 0, not {rate:g}.", remedy="Give it in requests per second.")
    options, errors = list[ServingOption](), list[AutotuneError]()
    for name in gpus:
        try:
            curves = _load_curves(question, name, total_gpus)
            decode_curves = _load_curves(question, question.decode_gpu, total_gpus) if question.decode_gpu else curves
        except AutotuneError as error:
            errors.append(error)
            continue
        if not question.decode_gpu:
            options += [_aggregated_option(question, curve, rate) for curve in curves]
        options += _disaggregated_options(question, curves, decode_curves, rate)
    if not options:
        raise errors[0] if errors else ConfigError("There is no GPU type to choose from.")
    by_cost = all(option.price is not None for option in options)
    ranked = sorted(options, key=partial(_sort_key, by_cost=by_cost, max_gpus=total_gpus))
    return list({option.worker_key: option for option in reversed(ranked)}.values())[::-1]


def _load_curves(question: Question, gpu: str, max_gpus: int | None) -> list[LoadCurve]:
    """Load curves of layouts of up to MAX_WORKER_GPUS on one GPU type; DoesNotFitError if none holds the model."""
    usual, largest = (min(gpus, max_gpus or gpus) for gpus in MAX_WORKER_GPUS)
    try:
        return load_curves(question, gpu, usual)
    except DoesNotFitError:
        return load_curves(question, gpu, largest)


def _sort_key(option: ServingOption, *, by_cost: bool, max_gpus: int | None) -> tuple[float, ...]:
    """Options that meet the target first, then by cost or GPUs; those that miss it last, nearest first.

    Misses of about the same ratio, within IDLE_TIME_MARGIN, count as equal, and fewer GPUs decide.
    """
    if not option.meets_target:
        return (2, math.ceil(math.log(option.target_ratio) / math.log(IDLE_TIME_MARGIN)), option.gpus)
    exceeds_budget = max_gpus is not None and option.gpus > max_gpus
    size = (option.price or 0.0, option.gpus) if by_cost else (option.gpus, option.price or 0.0)
    return (int(exceeds_budget), *size, option.performance.ttft + option.performance.tpot)


def _aggregated_option(question: Question, load_curve: LoadCurve, rate: float) -> ServingOption:
    """As many replicas of a deployment as sustain the rate within the target, or nearly idle where none meet it."""
    open_loop, deployment = OpenLoopModel(load_curve), load_curve.deployment
    replicas = max(1, math.ceil(rate / _max_rate_within(question.target, open_loop)))
    _, _, _, in_service = open_loop.mean_times(rate / replicas)
    pool = WorkerPool(deployment.gpu, deployment.layout, replicas, max(in_service, 0.0) * deployment.layout.dp)
    performance = open_loop.at_rate(rate / replicas).with_rates(rate * load_curve.traffic.osl, rate)
    return question.option(pool, performance)


def _max_rate_within(target: LatencyTarget, open_loop: OpenLoopModel) -> float:
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
    question: Question, curves: Sequence[LoadCurve], decode_curves: Sequence[LoadCurve], rate: float
) -> list[ServingOption]:
    """For each decode worker at each batch, the best option over the prefill workers."""
    prefills = pareto_prefill_workers([prefill_worker(curve) for curve in curves])
    decodes = pareto_decode_workers(
        [decode_worker(curve, load) for curve in decode_curves for load in planned_loads(curve)]
    )
    best = []
    for decode in decodes:
        options = [_smallest_disaggregated(question, prefill, decode, rate) for prefill in prefills]
        feasible = [option for option in options if option.meets_target]
        best.append(
            min(feasible, key=lambda o: (o.price or 0.0, o.gpus))
            if feasible
            else min(options, key=lambda o: o.target_ratio)
        )
    return best


def _smallest_disaggregated(
    question: Question, prefill: PrefillWorker, decode: DecodeWorker, rate: float
) -> ServingOption:
    """The fewest workers of both kinds for a rate, each decode worker with at most the batch of `decode`."""
    prefills, decodes = math.ceil(rate / (PREFILL_UTILIZATION * prefill.rate)), math.ceil(rate / decode.rate)
    option = disaggregated_option(question, prefill, decode, (prefills, decodes), rate)
    if option.binding == "ttft" and not option.meets_target:
        # at half the utilisation the queue for prefill is all but gone
        return disaggregated_option(question, prefill, decode, (2 * prefills, decodes), rate)
    return option
