"""Every way to serve a load on so many GPUs, best first, and the nearest where none is good enough."""

from __future__ import annotations

from collections.abc import Iterator

from autotuner.errors import AutotuneError, NoFeasibleError
from autotuner.predict.disaggregated import (
    decode_workers,
    disaggregated_option,
    match_workers,
    pareto_prefill_workers,
    prefill_worker,
    with_excess,
)
from autotuner.predict.hardware import GpuSpec
from autotuner.predict.hardware import find_gpu as find_gpu
from autotuner.predict.layout import Layout
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.measured_lookup import MeasuredLookup
from autotuner.predict.predict import DoesNotFitError
from autotuner.predict.serving_option import Prices, ServingOption, WorkerPool, hourly_price, layout_label
from autotuner.predict.shape import ModelShape, model_shape
from autotuner.predict.traffic import LatencyTarget, Software, Traffic

CONCURRENCIES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
MAX_SEARCHED_GPUS = 64
"""GPUs of one worker up to which the smallest that fits is looked for."""


def layouts(shape: ModelShape, gpus: int, gpu: GpuSpec | None = None) -> Iterator[Layout]:
    """Tensor, pipeline, data and expert parallelism over powers of two of GPUs, as engines run them.

    Tensor parallelism stays inside the links of a node of `kind`, where that is given; pipeline
    stages, or experts for a mixture, go beyond it.
    """
    near = gpu.gpus_per_node if gpu is not None and gpu.inter_node < gpu.intra_node else gpus
    size = 1
    while size <= gpus:
        for tp in (2**power for power in range(size.bit_length()) if 2**power <= near):
            rest = size // tp
            yield Layout(tp=tp, pp=rest)
            if shape.experts and rest > 1:
                yield Layout(tp=tp, dp=rest, ep=size)
            elif shape.experts and size > 1:
                yield Layout(tp=tp, ep=size)
        size *= 2


def load_curves(
    model: str, gpu: GpuSpec, traffic: Traffic, software: Software, gpus: int, *, bundled_only: bool = False
) -> list[LoadCurve]:
    """Every layout on at most `gpus` GPUs that an engine runs and that fits.

    Raises the reason where there is none: how many GPUs the smallest that fits takes.
    """
    found, refused = list[LoadCurve](), list[AutotuneError]()
    shape = model_shape(model)
    for layout in layouts(shape, gpus, gpu):
        try:
            served = LoadCurve(software.deploy(model, gpu.name, layout), traffic, bundled_only=bundled_only)
            served.single_request  # noqa: B018  refuses what does not fit
        except AutotuneError as error:
            refused.append(error)
        else:
            found.append(served)
    if not found:
        raise _unfit_reason(model, gpu, traffic, software, gpus, refused)
    return found


def _unfit_reason(
    model: str, gpu: GpuSpec, traffic: Traffic, software: Software, gpus: int, errors: list[AutotuneError]
) -> AutotuneError:
    """Why no layout works: the first reason that is not the memory's, else how much memory it takes."""
    for error in errors:
        if not isinstance(error, DoesNotFitError):
            return error
    for layout in layouts(model_shape(model), MAX_SEARCHED_GPUS, gpu):
        try:
            plan = software.deploy(model, gpu.name, layout).memory_plan
            if layout.gpus > gpus and plan.sequence_capacity(traffic.isl + traffic.osl) >= 1:
                return DoesNotFitError(
                    f"'{model}' does not fit on {gpus} {gpu.name} GPU{'s' if gpus > 1 else ''}.",
                    why=f"The smallest layout that holds one request takes {layout.gpus} ({layout_label(layout)}).",
                    remedy=f"Give --total-gpus {layout.gpus}, a smaller --dtype, or a --gpu with more memory.",
                )
        except AutotuneError:
            continue
    return errors[-1]


def rank_options(
    model: str,
    gpu: str,
    *,
    traffic: Traffic,
    total_gpus: int = 8,
    software: Software | None = None,
    target: LatencyTarget | None = None,
    decode_gpu: str | None = None,
    prices: Prices | None = None,
    bundled_only: bool = False,
) -> list[ServingOption]:
    """All ways to use `total_gpus` GPUs at loads to 512 requests in flight per worker, best first.

    Aggregated: as many replicas of each layout as there are GPUs for. Split: for each pair of a
    prefill and a decode layout the numbers of workers that match each other's rate, the decode
    workers on `decode_gpu` where it is given. What meets the target comes first, by output
    tokens/s per GPU; the rest by how far it is off. What no engine runs or does not fit is left
    out; raises AutotuneError with the reason where nothing is left. `bundled_only` leaves out
    what was measured and calibrated on this machine.
    """
    how, wanted, priced = software or Software(), target or LatencyTarget(), prices or {}
    kind = find_gpu(gpu)
    served = load_curves(model, kind, traffic, how, total_gpus, bundled_only=bundled_only)
    found = [] if decode_gpu else [o for one in served for o in _aggregated_options(one, total_gpus, wanted, priced)]
    second = served
    if decode_gpu:
        there = find_gpu(decode_gpu)
        second = load_curves(model, there, traffic, how, total_gpus, bundled_only=bundled_only)
    found += _disaggregated_options(served, second, total_gpus, wanted, priced)
    if not found:
        raise NoFeasibleError(
            f"{total_gpus} GPU{'s' if total_gpus > 1 else ''} cannot be divided into prefill and decode workers.",
            remedy="Give more with --total-gpus, or leave --decode-gpu out.",
        )
    return sorted(found, key=sort_key)


def sort_key(option: ServingOption) -> tuple[bool, float]:
    """What meets the target first, by throughput per GPU; the rest by how far it is off."""
    return (not option.meets_target, -option.throughput_per_gpu if option.meets_target else option.excess)


def _aggregated_options(
    load_curve: LoadCurve, budget: int, target: LatencyTarget, prices: Prices
) -> list[ServingOption]:
    found, of, memory = [], load_curve.deployment, MeasuredLookup(load_curve)
    replicas = budget // of.layout.gpus
    for concurrency in CONCURRENCIES:
        if concurrency < of.layout.dp:
            continue
        if concurrency > load_curve.max_concurrency:
            break
        answer, pool = memory.at_concurrency(concurrency), WorkerPool(of.gpu, of.layout, replicas, concurrency)
        at = answer.prediction
        option = ServingOption(
            serving=pool,
            prefill=None,
            ttft=at.ttft,
            tpot=at.tpot,
            ttft_interval=at.ttft_interval,
            tpot_interval=at.tpot_interval,
            requests=at.requests * replicas,
            throughput=at.throughput * replicas,
            budget=budget,
            price=hourly_price((pool,), prices),
            source=answer.source,
        )
        found.append(with_excess(option, target))
    return found


def _disaggregated_options(
    first: list[LoadCurve], second: list[LoadCurve], budget: int, target: LatencyTarget, prices: Prices
) -> list[ServingOption]:
    prefills = pareto_prefill_workers([prefill_worker(one) for one in first if one.deployment.layout.gpus < budget])
    found = []
    for one in second:
        if one.deployment.layout.gpus >= budget:
            continue
        for decode in decode_workers(one, CONCURRENCIES):
            for prefill in prefills:
                workers = match_workers(prefill, decode, budget)
                if workers is not None:
                    rate = workers[1] * decode.rate
                    found.append(
                        disaggregated_option(
                            prefill, decode, workers, rate, budget=budget, target=target, prices=prices
                        )
                    )
    return found
