"""The knee of a throughput-latency curve: beyond it more load adds waiting rather than throughput."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

KNEE_SPACING = 0.2
"""Relative distance of the last loads around the knee; chosen by hand, as power is flat at its maximum."""


@dataclass
class Knee:
    """Finds the concurrency of greatest power, throughput divided by time in the system (Kleinrock 1979).

    There 1% more requests in flight bring 0.5% more throughput; above it most of the added ones wait. Usage is
    ask/tell: `ask` returns the next concurrency or None, `tell` takes its requests/s and mean seconds in the system.
    """

    min_load: float
    max_load: float
    start: float
    rate_per_latency: dict[float, float] = field(default_factory=dict)
    """Kleinrock's power at each load, in 1/s²."""
    request_rate: dict[float, float] = field(default_factory=dict)

    def ask(self) -> float | None:
        """The next load: double, then halve, until the power falls on both sides, then bisect around the best."""
        if not self.rate_per_latency:
            return min(max(self.start, self.min_load), self.max_load)
        best = self.best_load
        below = [load for load in self.rate_per_latency if load < best]
        above = [load for load in self.rate_per_latency if load > best]
        if not above and best < self.max_load:
            return min(best * 2, self.max_load)
        if not below and best > self.min_load:
            return max(math.floor(best / 2), self.min_load)
        neighbors = (max(below, default=best), min(above, default=best))
        for neighbor in sorted(neighbors, key=lambda load: -abs(load - best)):
            middle = float(round(math.sqrt(neighbor * best)))
            if max(neighbor, best) > min(neighbor, best) * (1 + KNEE_SPACING) and middle not in self.rate_per_latency:
                return middle
        return None

    def tell(self, load: float, rate: float, seconds: float) -> None:
        self.request_rate[load] = rate
        self.rate_per_latency[load] = rate / seconds if seconds > 0 else 0.0

    @property
    def best_load(self) -> float:
        return max(self.rate_per_latency, key=lambda load: (self.rate_per_latency[load], -load))

    @property
    def elasticity(self) -> float | None:
        """Per cent of throughput gained per 1% of load just above the knee; None without a measurement there."""
        above = min((load for load in self.rate_per_latency if load > self.best_load), default=None)
        if above is None or self.request_rate[self.best_load] <= 0 or self.request_rate[above] <= 0:
            return None
        return math.log(self.request_rate[above] / self.request_rate[self.best_load]) / math.log(above / self.best_load)
