"""One way to serve a load: its workers, their performance, and their cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from autotuner.planning.cost import cost_per_million_tokens
from autotuner.predict.hardware import GpuSpec
from autotuner.predict.layout import Layout
from autotuner.predict.performance import Performance


@dataclass(frozen=True, slots=True)
class WorkerPool:
    """`workers` servers of one layout on one GPU type, each with `batch` requests in flight on average."""

    gpu: GpuSpec
    layout: Layout
    workers: int
    batch: float

    @property
    def gpus(self) -> int:
        """GPUs of all workers."""
        return self.workers * self.layout.gpus

    def __str__(self) -> str:
        return f"{self.workers} x {self.layout}"


@dataclass(frozen=True, slots=True)
class ServingOption:
    """Workers, and their performance under a load.

    Aggregated where `prefill` is None; else its workers compute prompts and send their KV cache to
    the decode workers of `serving` in `transfer_seconds`. `budget` GPUs are paid for, maybe more
    than are used. `target_ratio` is the largest ratio of a mean latency to its target and `binding` which
    one, ttft or tpot; `source` is measured, interpolated or predicted.
    """

    serving: WorkerPool
    prefill: WorkerPool | None
    performance: Performance
    budget: int
    price: float | None
    target_ratio: float
    binding: str
    transfer_seconds: float
    source: str

    @property
    def mode(self) -> str:
        """Whether prefill and decode share workers; a value of `autotune predict rank --json`."""
        return "aggregated" if self.prefill is None else "disaggregated"

    @property
    def pools(self) -> tuple[WorkerPool, ...]:
        """All worker pools, prefill first."""
        return (self.serving,) if self.prefill is None else (self.prefill, self.serving)

    @property
    def worker_key(self) -> tuple[object, ...]:
        """Key that is equal for the same workers under another load."""
        return tuple((pool.gpu.name, pool.layout, pool.workers) for pool in self.pools)

    @property
    def gpus(self) -> int:
        """GPUs used."""
        return sum(pool.gpus for pool in self.pools)

    @property
    def in_flight(self) -> float:
        """Mean requests in flight over all workers."""
        return sum(pool.workers * pool.batch for pool in self.pools)

    @property
    def throughput_per_gpu(self) -> float:
        """Output tokens/s per GPU of the budget."""
        return self.performance.throughput / self.budget

    @property
    def meets_target(self) -> bool:
        return self.target_ratio <= 1

    @property
    def cost(self) -> float | None:
        """Price of a million output tokens; None where a GPU has no price."""
        return cost_per_million_tokens(self.price, self.performance.throughput)

    def __str__(self) -> str:
        if self.prefill is None:
            return f"{self.serving} on {self.serving.gpu.name}"
        gpus = {pool.gpu.name for pool in self.pools}
        if len(gpus) == 1:
            return f"prefill {self.prefill} + decode {self.serving} on {gpus.pop()}"
        return f"prefill {self.prefill} on {self.prefill.gpu.name} + decode {self.serving} on {self.serving.gpu.name}"


def pareto_frontier(options: Iterable[ServingOption]) -> list[ServingOption]:
    """Options that no other dominates in throughput per GPU and TPOT, by TPOT."""
    highest, frontier = 0.0, []
    for option in sorted(options, key=lambda o: (o.performance.tpot, -o.throughput_per_gpu, o.performance.ttft)):
        if option.throughput_per_gpu > highest:
            highest = option.throughput_per_gpu
            frontier.append(option)
    return frontier


def best_per_layout(options: Iterable[ServingOption]) -> list[ServingOption]:
    """The first of ranked options for each mode and layout that decodes: its best load and prefill workers."""
    best: dict[tuple[object, ...], ServingOption] = {}
    for option in options:
        best.setdefault((option.mode, option.serving.gpu.name, option.serving.layout), option)
    return list(best.values())
