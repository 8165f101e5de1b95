"""What GPUs and tokens cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from autotuner.predict.hardware import GpuSpec, find_gpu

Prices = Mapping[str, float]
"""Price of one GPU for one hour by the name of its type in the table of GPUs, in any one currency."""


def prices_by_gpu(prices: Prices) -> Prices:
    """Prices by the names of the table, from those by any name that a GPU type is known under."""
    return {find_gpu(name).name: price for name, price in prices.items()}


def hourly_price(gpu_counts: Iterable[tuple[GpuSpec, int]], prices: Prices) -> float | None:
    """The price of these numbers of GPUs for one hour; None where one is unknown."""
    total = 0.0
    for gpu, count in gpu_counts:
        price = prices.get(gpu.name, gpu.price)
        if price is None:
            return None
        total += price * count
    return total


def cost_per_million_tokens(price: float | None, throughput: float) -> float | None:
    """The cost of a million output tokens at a price per hour and a throughput in output tokens/s."""
    return None if price is None else price / (throughput * 3600) * 1e6
