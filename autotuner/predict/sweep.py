"""All layouts and loads on a budget of GPUs, aggregated and disaggregated, ranked."""

from __future__ import annotations

from collections.abc import Iterator

from autotuner.errors import AutotuneError, NoFeasibleError
from autotuner.predict.disaggregated import (
    decode_workers,
    disaggregated_option,
    match_workers,
    pareto_prefill_workers,
    prefill_worker,
    with_target_ratio,
)
from autotuner.predict.hardware import GpuSpec, find_gpu
from autotuner.predict.layout import Layout
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.measured_lookup import MeasuredLookup
from autotuner.predict.predict import DoesNotFitError
from autotuner.predict.serving_option import Prices, ServingOption, WorkerPool, hourly_price, layout_label
from autotuner.predict.shape import ModelShape, model_shape
from autotuner.predict.traffic import LatencyTarget, Software, Traffic

CONCURRENCIES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Requests in flight per worker that are ranked, to engines' usual limit; chosen by hand, 1.25 to 2 apart."""
MAX_SEARCHED_GPUS = 64
"""Most GPUs of one worker tried to say how many a model takes; the largest of the measured rows."""


def layouts(shape: ModelShape, gpus: int, gpu: GpuSpec | None = None) -> Iterator[Layout]:
    """Tensor, pipeline, data and expert parallelism over powers of two of GPUs, as engines run them.

    Tensor parallelism stays within a node of `gpu`, where that is given and its network is slower;
    pipeline stages, or the experts of a mixture, span nodes.
    """
    max_tp = gpu.gpus_per_node if gpu is not None and gpu.inter_node < gpu.intra_node else gpus
    size = 1
    while size <= gpus:
        for tp in (2**power for power in range(size.bit_length()) if 2**power <= max_tp):
            groups = size // tp
            yield Layout(tp=tp, pp=groups)
            if shape.experts and groups > 1:
                yield Layout(tp=tp, dp=groups, ep=size)
            elif shape.experts and size > 1:
                yield Layout(tp=tp, ep=size)
        size *= 2


def load_curves(
    model: str, gpu: GpuSpec, traffic: Traffic, software: Software, gpus: int, *, bundled_only: bool = False
) -> list[LoadCurve]:
    """Load curves of every layout on at most `gpus` GPUs that an engine runs and that fits.

    Raises AutotuneError where there is none, with the GPUs of the smallest layout that fits.
    """
    curves, errors = list[LoadCurve](), list[AutotuneError]()
    for layout in layouts(model_shape(model), gpus, gpu):
        try:
            curve = LoadCurve(software.deploy(model, gpu.name, layout), traffic, bundled_only=bundled_only)
            curve.single_request  # noqa: B018  raises for what does not fit
        except AutotuneError as error:
            errors.append(error)
        else:
            curves.append(curve)
    if not curves:
        raise _unfit_reason(model, gpu, traffic, software, gpus, errors)
    return curves


def _unfit_reason(
    model: str, gpu: GpuSpec, traffic: Traffic, software: Software, gpus: int, errors: list[AutotuneError]
) -> AutotuneError:
    """Why no layout works: the first error that is not of memory, else how many GPUs it takes."""
    for error in errors:
        if not isinstance(error, DoesNotFitError):
            return error
    for layout in layouts(model_shape(model), MAX_SEARCHED_GPUS, gpu):
        try:
            memory_plan = software.deploy(model, gpu.name, layout).memory_plan
            if layout.gpus > gpus and memory_plan.sequence_capacity(traffic.isl + traffic.osl) >= 1:
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

    Aggregated: as many replicas of each layout as there are GPUs for. Disaggregated: for each pair
    of a prefill and a decode layout the numbers of workers whose rates match, the decode workers on
    `decode_gpu` where it is given. Options that meet the target come first, by output tokens/s per
    GPU, the others by how far they miss it. Layouts that no engine runs or that do not fit are left
    out; raises AutotuneError with the reason where none remains. `bundled_only` ignores what was
    measured and calibrated on this machine.
    """
    software, target, prices = software or Software(), target or LatencyTarget(), prices or {}
    curves = load_curves(model, find_gpu(gpu), traffic, software, total_gpus, bundled_only=bundled_only)
    options, decode_curves = list[ServingOption](), curves
    if decode_gpu:
        decode_spec = find_gpu(decode_gpu)
        decode_curves = load_curves(model, decode_spec, traffic, software, total_gpus, bundled_only=bundled_only)
    else:
        options += [option for curve in curves for option in _aggregated_options(curve, total_gpus, target, prices)]
    options += _disaggregated_options(curves, decode_curves, total_gpus, target, prices)
    if not options:
        raise NoFeasibleError(
            f"{total_gpus} GPU{'s' if total_gpus > 1 else ''} cannot be divided into prefill and decode workers.",
            remedy="Give more with --total-gpus, or leave --decode-gpu out.",
        )
    return sorted(options, key=sort_key)


def sort_key(option: ServingOption) -> tuple[bool, float]:
    """Options that meet the target first, by throughput per GPU; the others by how far they miss it."""
    return (not option.meets_target, -option.throughput_per_gpu if option.meets_target else option.target_ratio)


def _aggregated_options(
    load_curve: LoadCurve, budget: int, target: LatencyTarget, prices: Prices
) -> list[ServingOption]:
    """Replicas of one layout that use the `budget` of GPUs, an option for each concurrency per replica."""
    options, deployment, lookup = [], load_curve.deployment, MeasuredLookup(load_curve)
    layout = deployment.layout
    replicas = budget // layout.gpus
    for concurrency in CONCURRENCIES:
        if concurrency < layout.dp:
            continue
        if concurrency > load_curve.max_concurrency:
            break
        result, pool = lookup.at_concurrency(concurrency), WorkerPool(deployment.gpu, layout, replicas, concurrency)
        prediction = result.prediction
        option = ServingOption(
            serving=pool,
            prefill=None,
            ttft=prediction.ttft,
            tpot=prediction.tpot,
            ttft_interval=prediction.ttft_interval,
            tpot_interval=prediction.tpot_interval,
            requests=prediction.requests * replicas,
            throughput=prediction.throughput * replicas,
            budget=budget,
            price=hourly_price((pool,), prices),
            source=result.source,
        )
        options.append(with_target_ratio(option, target))
    return options


def _disaggregated_options(
    curves: list[LoadCurve], decode_curves: list[LoadCurve], budget: int, target: LatencyTarget, prices: Prices
) -> list[ServingOption]:
    """Prefill and decode workers of matching request rates within a `budget` of GPUs, at each decode batch."""
    prefills = pareto_prefill_workers(
        [prefill_worker(curve) for curve in curves if curve.deployment.layout.gpus < budget]
    )
    options = []
    for curve in decode_curves:
        if curve.deployment.layout.gpus >= budget:
            continue
        for decode in decode_workers(curve, CONCURRENCIES):
            for prefill in prefills:
                workers = match_workers(prefill, decode, budget)
                if workers is not None:
                    rate = workers[1] * decode.rate
                    options.append(
                        disaggregated_option(
                            prefill, decode, workers, rate, budget=budget, target=target, prices=prices
                        )
                    )
    return options
