"""Every way to serve a load on so many GPUs, best first, and the nearest where none is good enough."""

from __future__ import annotations

from collections.abc import Iterator

from autotuner.errors import AutotuneError, NoFeasibleError
from autotuner.predict.disaggregated import decode_workers, judged, matched, option_of, prefill_worker, undominated
from autotuner.predict.hardware import Gpu
from autotuner.predict.hardware import gpu as find_gpu
from autotuner.predict.layout import Layout
from autotuner.predict.load_curve import Served
from autotuner.predict.measured_lookup import Memory
from autotuner.predict.predict import DoesNotFitError
from autotuner.predict.serving_option import Option, Pool, Prices, hourly, label
from autotuner.predict.shape import ModelShape, model_shape
from autotuner.predict.traffic import Software, Target, Traffic

CONCURRENCIES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
LARGEST = 64
"""GPUs of one worker up to which the smallest that fits is looked for."""


def layouts(shape: ModelShape, gpus: int, kind: Gpu | None = None) -> Iterator[Layout]:
    """Tensor, pipeline, data and expert parallelism over powers of two of GPUs, as engines run them.

    Tensor parallelism stays inside the links of a node of `kind`, where that is given; pipeline
    stages, or experts for a mixture, go beyond it.
    """
    near = kind.gpus_per_node if kind is not None and kind.inter_node < kind.intra_node else gpus
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


def served_layouts(
    model: str, gpu: Gpu, traffic: Traffic, software: Software, gpus: int, *, bundled_only: bool = False
) -> list[Served]:
    """Every layout on at most `gpus` GPUs that an engine runs and that fits.

    Raises the reason where there is none: how many GPUs the smallest that fits takes.
    """
    found, refused = list[Served](), list[AutotuneError]()
    shape = model_shape(model)
    for layout in layouts(shape, gpus, gpu):
        try:
            served = Served(software.on(model, gpu.name, layout), traffic, bundled_only=bundled_only)
            served.alone  # noqa: B018  refuses what does not fit
        except AutotuneError as error:
            refused.append(error)
        else:
            found.append(served)
    if not found:
        raise _reason(model, gpu, traffic, software, gpus, refused)
    return found


def _reason(
    model: str, gpu: Gpu, traffic: Traffic, software: Software, gpus: int, refused: list[AutotuneError]
) -> AutotuneError:
    """Why no layout works: the first reason that is not the memory's, else how much memory it takes."""
    for error in refused:
        if not isinstance(error, DoesNotFitError):
            return error
    for layout in layouts(model_shape(model), LARGEST, gpu):
        try:
            plan = software.on(model, gpu.name, layout).plan
            if layout.gpus > gpus and plan.sequences(traffic.isl + traffic.osl) >= 1:
                return DoesNotFitError(
                    f"'{model}' does not fit on {gpus} {gpu.name} GPU{'s' if gpus > 1 else ''}.",
                    why=f"The smallest layout that holds one request takes {layout.gpus} ({label(layout)}).",
                    remedy=f"Give --total-gpus {layout.gpus}, a smaller --dtype, or a --gpu with more memory.",
                )
        except AutotuneError:
            continue
    return refused[-1]


def options(
    model: str,
    gpu: str,
    *,
    traffic: Traffic,
    total_gpus: int = 8,
    software: Software | None = None,
    target: Target | None = None,
    decode_gpu: str | None = None,
    prices: Prices | None = None,
    bundled_only: bool = False,
) -> list[Option]:
    """All ways to use `total_gpus` GPUs at loads to 512 requests in flight per worker, best first.

    Aggregated: as many replicas of each layout as there are GPUs for. Split: for each pair of a
    prefill and a decode layout the numbers of workers that match each other's rate, the decode
    workers on `decode_gpu` where it is given. What meets the target comes first, by output
    tokens/s per GPU; the rest by how far it is off. What no engine runs or does not fit is left
    out; raises AutotuneError with the reason where nothing is left. `bundled_only` leaves out
    what was measured and calibrated on this machine.
    """
    how, wanted, priced = software or Software(), target or Target(), prices or {}
    kind = find_gpu(gpu)
    served = served_layouts(model, kind, traffic, how, total_gpus, bundled_only=bundled_only)
    found = [] if decode_gpu else [o for one in served for o in _loads(one, total_gpus, wanted, priced)]
    second = served
    if decode_gpu:
        there = find_gpu(decode_gpu)
        second = served_layouts(model, there, traffic, how, total_gpus, bundled_only=bundled_only)
    found += _splits(served, second, total_gpus, wanted, priced)
    if not found:
        raise NoFeasibleError(
            f"{total_gpus} GPU{'s' if total_gpus > 1 else ''} cannot be divided into prefill and decode workers.",
            remedy="Give more with --total-gpus, or leave --decode-gpu out.",
        )
    return sorted(found, key=rank)


def rank(option: Option) -> tuple[bool, float]:
    """What meets the target first, by throughput per GPU; the rest by how far it is off."""
    return (not option.meets, -option.per_gpu if option.meets else option.excess)


def _loads(served: Served, budget: int, target: Target, prices: Prices) -> list[Option]:
    found, of, memory = [], served.of, Memory(served)
    replicas = budget // of.layout.gpus
    for concurrency in CONCURRENCIES:
        if concurrency < of.layout.dp:
            continue
        if concurrency > served.most:
            break
        answer, pool = memory.closed(concurrency), Pool(of.gpu, of.layout, replicas, concurrency)
        at = answer.found
        option = Option(
            serving=pool,
            prefill=None,
            ttft=at.ttft,
            tpot=at.tpot,
            ttft_interval=at.ttft_interval,
            tpot_interval=at.tpot_interval,
            requests=at.requests * replicas,
            throughput=at.throughput * replicas,
            budget=budget,
            price=hourly((pool,), prices),
            source=answer.source,
        )
        found.append(judged(option, target))
    return found


def _splits(first: list[Served], second: list[Served], budget: int, target: Target, prices: Prices) -> list[Option]:
    prefills = undominated([prefill_worker(one) for one in first if one.of.layout.gpus < budget])
    found = []
    for one in second:
        if one.of.layout.gpus >= budget:
            continue
        for decode in decode_workers(one, CONCURRENCIES):
            for prefill in prefills:
                workers = matched(prefill, decode, budget)
                if workers is not None:
                    rate = workers[1] * decode.rate
                    found.append(option_of(prefill, decode, workers, rate, budget=budget, target=target, prices=prices))
    return found
