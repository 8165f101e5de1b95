"""One way to serve a load: which workers, what requests see of them, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autotuner.predict.hardware import GpuSpec
from autotuner.predict.intervals import Interval
from autotuner.predict.layout import Layout

Prices = Mapping[str, float]
"""Price of one GPU for one hour, by the table's name of the GPU, in any one currency."""


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

    Aggregated where `prefill` is None; else prompts are computed by its workers and the KV cache
    is sent to `serving`, which takes `transfer` seconds. Throughput is output tokens/s. `budget`
    GPUs are paid for and may be more than are used. `excess` is the largest ratio of a time to
    its target and `binding` which one; `source` says measured, interpolated or predicted.
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
    excess: float = 0.0
    binding: str = ""
    price: float | None = None
    source: str = "predicted"

    @property
    def mode(self) -> str:
        """How prefill and decode share workers."""
        return "aggregated" if self.prefill is None else "split"

    @property
    def pools(self) -> tuple[WorkerPool, ...]:
        """All workers, prefill first."""
        return (self.serving,) if self.prefill is None else (self.prefill, self.serving)

    @property
    def worker_key(self) -> tuple[object, ...]:
        """What is equal for the same workers under another load."""
        return tuple((pool.gpu.name, pool.layout, pool.workers) for pool in self.pools)

    @property
    def gpus(self) -> int:
        """GPUs used."""
        return sum(pool.gpus for pool in self.pools)

    @property
    def in_flight(self) -> float:
        """Requests being served over all workers."""
        return sum(pool.workers * pool.batch for pool in self.pools)

    @property
    def throughput_per_gpu(self) -> float:
        """Output tokens/s per GPU of the budget."""
        return self.throughput / self.budget

    @property
    def interactivity(self) -> float:
        """Output tokens/s that one user sees."""
        return 1 / self.tpot

    @property
    def meets_target(self) -> bool:
        """Whether every target is met."""
        return self.excess <= 1

    @property
    def cost(self) -> float | None:
        """Price of a million output tokens; None where a GPU has no price."""
        return None if self.price is None else self.price / (self.throughput * 3600) * 1e6

    def __str__(self) -> str:
        if self.prefill is None:
            return f"{self.serving} on {self.serving.gpu.name}"
        where = {pool.gpu.name for pool in self.pools}
        if len(where) == 1:
            return f"prefill {self.prefill} + decode {self.serving} on {where.pop()}"
        return f"prefill {self.prefill} on {self.prefill.gpu.name} + decode {self.serving} on {self.serving.gpu.name}"


def layout_label(layout: Layout) -> str:
    """A layout in a word or two, as in `tp4 pp2`."""
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
    """Options that none beats in both throughput per GPU and time per token, by time per token."""
    best, kept = 0.0, []
    for option in sorted(options, key=lambda o: (o.tpot, -o.throughput_per_gpu, o.ttft)):
        if option.throughput_per_gpu > best:
            best = option.throughput_per_gpu
            kept.append(option)
    return kept


def best_per_layout(options: Iterable[ServingOption]) -> list[ServingOption]:
    """The first option of each layout that decodes, aggregated and split: in a ranking its best load and partner."""
    seen: dict[tuple[object, ...], ServingOption] = {}
    for option in options:
        seen.setdefault((option.mode, option.serving.gpu.name, option.serving.layout), option)
    return list(seen.values())
