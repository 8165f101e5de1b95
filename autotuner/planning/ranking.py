"""Which layout, and at which load: all of them on a budget of GPUs, aggregated and disaggregated, ranked."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.errors import NoFeasibleError
from autotuner.planning.disaggregation import (
    decode_worker,
    disaggregated_option,
    match_workers,
    pareto_prefill_workers,
    prefill_worker,
)
from autotuner.planning.layouts import load_curves, planned_loads
from autotuner.planning.question import Question
from autotuner.planning.serving_option import ServingOption, WorkerPool
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.measured_lookup import MeasuredLookup


def rank_options(question: Question, gpu: str, total_gpus: int) -> list[ServingOption]:
    """All ways to use `total_gpus` GPUs at loads to 512 requests in flight per worker, best first.

    Aggregated: as many replicas of each layout as there are GPUs for. Disaggregated: for each pair
    of a prefill and a decode layout the numbers of workers whose rates match. Options that meet the
    target come first, by output tokens/s per GPU, the others by how far they miss it. Layouts that
    no engine runs or that do not fit are left out; raises AutotuneError with the reason where none
    remains.
    """
    decode_curves = curves = load_curves(question, gpu, total_gpus)
    options = list[ServingOption]()
    if question.decode_gpu:
        decode_curves = load_curves(question, question.decode_gpu, total_gpus)
    else:
        options += [option for curve in curves for option in _aggregated_options(question, curve, total_gpus)]
    options += _disaggregated_options(question, curves, decode_curves, total_gpus)
    if not options:
        raise NoFeasibleError(
            f"{total_gpus} GPU{'s' if total_gpus > 1 else ''} cannot be divided into prefill and decode workers.",
            remedy="Give more with --total-gpus, or leave --decode-gpu out.",
        )
    return sorted(options, key=_sort_key)


def _sort_key(option: ServingOption) -> tuple[bool, float]:
    """Options that meet the target first, by throughput per GPU; the others by how far they miss it."""
    return (not option.meets_target, -option.throughput_per_gpu if option.meets_target else option.target_ratio)


def _aggregated_options(question: Question, load_curve: LoadCurve, budget: int) -> list[ServingOption]:
    """Replicas of one layout that use the `budget` of GPUs, an option for each concurrency per replica."""
    deployment, lookup = load_curve.deployment, MeasuredLookup(load_curve)
    replicas = budget // deployment.layout.gpus
    options = []
    for load in planned_loads(load_curve):
        pool, result = WorkerPool(deployment.gpu, deployment.layout, replicas, load), lookup.at_concurrency(load)
        prediction = result.prediction
        performance = prediction.with_rates(prediction.throughput * replicas, prediction.requests * replicas)
        options.append(question.option(pool, performance, budget=budget, source=result.source))
    return options


def _disaggregated_options(
    question: Question, curves: Sequence[LoadCurve], decode_curves: Sequence[LoadCurve], budget: int
) -> list[ServingOption]:
    """Prefill and decode workers of matching request rates within a `budget` of GPUs, at each decode batch."""
    prefills = pareto_prefill_workers([prefill_worker(curve) for curve in _leaving_gpus(curves, budget)])
    decodes = [
        decode_worker(curve, load) for curve in _leaving_gpus(decode_curves, budget) for load in planned_loads(curve)
    ]
    pairs = [(prefill, decode, match_workers(prefill, decode, budget)) for decode in decodes for prefill in prefills]
    return [
        disaggregated_option(question, prefill, decode, workers, workers[1] * decode.rate, budget)
        for prefill, decode, workers in pairs
        if workers is not None
    ]


def _leaving_gpus(curves: Sequence[LoadCurve], budget: int) -> list[LoadCurve]:
    """Curves of the layouts that leave GPUs for a second worker."""
    return [curve for curve in curves if curve.deployment.layout.gpus < budget]
