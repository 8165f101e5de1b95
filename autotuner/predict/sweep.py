"""Every way to serve a load on so many GPUs, best first, and the nearest where none is good enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autotuner.errors import AutotuneError, NoFeasibleError
from autotuner.predict.deployment import Deployment, deployment
from autotuner.predict.layout import Layout
from autotuner.predict.predict import Prediction, closed_loop
from autotuner.predict.shape import ModelShape, model_shape

CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Target:
    """Latency targets in seconds; None is no target."""

    ttft: float | None = None
    tpot: float | None = None

    def excess(self, found: Prediction) -> tuple[float, str]:
        """The largest ratio of a time to its target, and which one it is; 0 without targets."""
        ratios = [
            (time / target, name)
            for name, time, target in (("ttft", found.ttft, self.ttft), ("tpot", found.tpot, self.tpot))
            if target is not None
        ]
        return max(ratios, default=(0.0, ""))


@dataclass(frozen=True, slots=True)
class Option:
    """One layout at one load, `replicas` times; throughput is output tokens/s per GPU."""

    layout: Layout
    replicas: int
    concurrency: int
    prediction: Prediction
    excess: float
    binding: str

    @property
    def per_gpu(self) -> float:
        """Output tokens/s per GPU."""
        return self.prediction.throughput / self.prediction.gpus


def layouts(shape: ModelShape, gpus: int) -> Iterator[Layout]:
    """Tensor, data and expert parallelism over powers of two of GPUs, as engines run them."""
    size = 1
    while size <= gpus:
        yield Layout(tp=size)
        if shape.experts and size > 1:
            yield Layout(tp=size, ep=size)
            yield Layout(dp=size, ep=size)
        size *= 2


def options(
    model: str,
    gpu: str,
    *,
    isl: int,
    osl: int,
    total_gpus: int = 8,
    engine: str = "vllm",
    dtype: str | None = None,
    kv_dtype: str | None = None,
    target: Target | None = None,
) -> list[Option]:
    """All layouts on at most `total_gpus` GPUs at loads to 512 per replica, best first.

    What meets the target comes first, by throughput per GPU; the rest by how far it is off.
    What no engine runs or does not fit is left out. Raises the reason where nothing is left.
    """
    wanted, found, reason = target or Target(), list[Option](), NoFeasibleError("There is no layout to try.")
    refused: AutotuneError = reason
    for layout in layouts(model_shape(model), total_gpus):
        try:
            of = deployment(model, gpu, layout, dtype, dtype, kv_dtype, engine)
            found += _loads(of, isl, osl, total_gpus // layout.gpus, wanted)
        except AutotuneError as error:
            refused = error
    if not found:
        raise refused
    return sorted(found, key=lambda o: (o.excess > 1, o.excess if o.excess > 1 else -o.per_gpu))


def _loads(of: Deployment, isl: int, osl: int, replicas: int, target: Target) -> list[Option]:
    found = []
    for concurrency in CONCURRENCIES:
        if concurrency < of.layout.dp:
            continue
        prediction = closed_loop(of, isl=isl, osl=osl, concurrency=concurrency)
        if concurrency > max(1.0, prediction.running):
            break
        excess, binding = target.excess(prediction)
        found.append(Option(of.layout, replicas, concurrency, prediction, excess, binding))
    return found


def frontier(found: list[Option]) -> list[Option]:
    """Options that none beats in both throughput per GPU and time per token, by time per token."""
    best, kept = 0.0, []
    for option in sorted(found, key=lambda o: (o.prediction.tpot, -o.per_gpu)):
        if option.per_gpu > best:
            best = option.per_gpu
            kept.append(option)
    return kept
