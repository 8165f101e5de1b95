"""One way to serve a load: its workers, their predicted latency and throughput, and their cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autotuner.predict.hardware import GpuSpec
from autotuner.predict.intervals import Interval
from autotuner.predict.layout import Layout

Prices = Mapping[str, float]
"""Price of one GPU for one hour by the name of its type in the table of GPUs, in any one currency."""


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
        return f"{self.workers} x {layout_label(self.layout)}"


@dataclass(frozen=True, slots=True)
class ServingOption:
    """Workers and their load; times are means in seconds, `requests` requests/s over all workers.

    Aggregated where `prefill` is None; else its workers compute prompts and send their KV cache to
    the decode workers of `serving` in `transfer_seconds`. `throughput` is output tokens/s. `budget`
    GPUs are paid for, maybe more than are used. `target_ratio` is the largest ratio of a time to its
    target and `binding` which one, ttft or tpot; `source` is measured, interpolated or predicted.
    """

    serving: WorkerPool
    prefill: WorkerPool | None
    ttft: float
    tpot: float
    ttft_interval: Interval
    tpot_interval: Interval
    requests: float
    throughput: float
    budget: int
    transfer_seconds: float = 0.0
    target_ratio: float = 0.0
    binding: str = ""
    price: float | None = None
    source: str = "predicted"

    @property
    def mode(self) -> str:
        """Whether prefill and decode share workers; a value of `autotune predict --json`."""
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
        return self.throughput / self.budget

    @property
    def interactivity(self) -> float:
        """Output tokens/s per user."""
        return 1 / self.tpot

    @property
    def meets_target(self) -> bool:
        return self.target_ratio <= 1

    @property
    def cost(self) -> float | None:
        """Price of a million output tokens; None where a GPU has no price."""
        return None if self.price is None else self.price / (self.throughput * 3600) * 1e6

    def __str__(self) -> str:
        if self.prefill is None:
            return f"{self.serving} on {self.serving.gpu.name}"
        gpus = {pool.gpu.name for pool in self.pools}
        if len(gpus) == 1:
            return f"prefill {self.prefill} + decode {self.serving} on {gpus.pop()}"
        return f"prefill {self.prefill} on {self.prefill.gpu.name} + decode {self.serving} on {self.serving.gpu.name}"


def layout_label(layout: Layout) -> str:
    """A layout in short, as in `tp4 pp2`."""
    sizes = (("dp", layout.dp), ("tp", layout.tp), ("pp", layout.pp))
    words = [f"{name}{size}" for name, size in sizes if size > 1]
    if layout.ep_size > 1:
        words.append(f"ep{layout.ep_size}")
    return " ".join(words) or "tp1"


def hourly_price(pools: Iterable[WorkerPool], prices: Prices) -> float | None:
    """The price of all workers for one hour; None where one is unknown."""
    total = 0.0
    for pool in pools:
        price = prices.get(pool.gpu.name, pool.gpu.price)
        if price is None:
            return None
        total += price * pool.gpus
    return total


def pareto_frontier(options: Iterable[ServingOption]) -> list[ServingOption]:
    """Options that no other dominates in throughput per GPU and TPOT, by TPOT."""
    highest, frontier = 0.0, []
    for option in sorted(options, key=lambda o: (o.tpot, -o.throughput_per_gpu, o.ttft)):
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
