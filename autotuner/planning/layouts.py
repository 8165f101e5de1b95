"""The layouts of a model on a number of GPUs, and the load curve of each that fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autotuner.errors import AutotuneError
from autotuner.planning.question import Question
from autotuner.predict.hardware import GpuSpec, find_gpu
from autotuner.predict.layout import Layout
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.predict import DoesNotFitError
from autotuner.predict.shape import ModelShape, model_shape

CONCURRENCIES = (*range(1, 8), *range(8, 16, 2), *range(16, 32, 4), *range(32, 64, 8), *range(64, 128, 16))
CONCURRENCIES += (*range(128, 256, 32), *range(256, 513, 64))
"""Requests in flight per worker that are planned for, to engines' usual limit; chosen by hand, 1.14 to 2 apart.

Pools of prefill and decode workers meet a target in finer steps, their numbers: coarser loads favour them.
"""
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


def load_curves(question: Question, gpu_name: str, gpus: int) -> list[LoadCurve]:
    """Load curves of every layout on at most `gpus` GPUs that an engine runs and that fits.

    Raises AutotuneError if there is none, with the GPUs of the smallest layout that fits.
    """
    gpu, curves, errors = find_gpu(gpu_name), list[LoadCurve](), list[AutotuneError]()
    for layout in layouts(model_shape(question.model), gpus, gpu):
        try:
            curve = question.load_curve(gpu.name, layout)
            curve.single_request  # noqa: B018  raises for what does not fit
        except AutotuneError as error:
            errors.append(error)
        else:
            curves.append(curve)
    if not curves:
        raise _unfit_reason(question, gpu, gpus, errors)
    return curves


def _unfit_reason(question: Question, gpu: GpuSpec, gpus: int, errors: Sequence[AutotuneError]) -> AutotuneError:
    """Why no layout works: the first error that is not of memory, else how many GPUs it takes."""
    for error in errors:
        if not isinstance(error, DoesNotFitError):
            return error
    tokens = question.traffic.isl + question.traffic.osl
    for layout in layouts(model_shape(question.model), MAX_SEARCHED_GPUS, gpu):
        try:
            memory_plan = question.load_curve(gpu.name, layout).deployment.memory_plan
        except AutotuneError:
            continue
        if layout.gpus > gpus and memory_plan.sequence_capacity(tokens) >= 1:
            return DoesNotFitError(
                f"'{question.model}' does not fit on {gpus} {gpu.name} GPU{'s' if gpus > 1 else ''}.",
                why=f"The smallest layout that holds one request takes {layout.gpus} ({layout}).",
                remedy=f"Give --total-gpus {layout.gpus}, a smaller --dtype, or a --gpu with more memory.",
            )
    return errors[-1]


def planned_loads(load_curve: LoadCurve) -> list[int]:
    """The CONCURRENCIES that give every replica a request, and that its KV cache holds."""
    return [load for load in CONCURRENCIES if load_curve.deployment.layout.dp <= load <= load_curve.max_concurrency]
