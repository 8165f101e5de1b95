"""The load beyond which more of it buys waiting rather than throughput."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

KNEE_SPACING = 0.2
"""How close, relative to each other, the loads around the knee come: the optimum is flat."""


@dataclass
class Knee:
    """Finds the concurrency of the greatest power, throughput over time in the system (Kleinrock 1979).

    There one per cent more requests in flight brings half a per cent more throughput; above it
    most of them wait. `ask` gives the next concurrency or None; `tell` takes requests/s and mean
    seconds in the system at it.
    """

    min_load: float
    max_load: float
    start: float
    power: dict[float, float] = field(default_factory=dict)
    request_rate: dict[float, float] = field(default_factory=dict)

    def ask(self) -> float | None:
        """The next load: up until power falls, down until it falls there too, then closer around the best."""
        if not self.power:
            return min(max(self.start, self.min_load), self.max_load)
        best = self.best_load
        below = [load for load in self.power if load < best]
        above = [load for load in self.power if load > best]
        if not above and best < self.max_load:
            return min(best * 2, self.max_load)
        if not below and best > self.min_load:
            return max(math.floor(best / 2), self.min_load)
        for near in sorted((max(below, default=best), min(above, default=best)), key=lambda load: -abs(load - best)):
            middle = float(round(math.sqrt(near * best)))
            if max(near, best) > min(near, best) * (1 + KNEE_SPACING) and middle not in self.power:
                return middle
        return None

    def tell(self, load: float, rate: float, seconds: float) -> None:
        """Take note of what was seen at a load."""
        self.request_rate[load] = rate
        self.power[load] = rate / seconds if seconds > 0 else 0.0

    @property
    def best_load(self) -> float:
        """The load of the greatest power."""
        return max(self.power, key=lambda load: (self.power[load], -load))

    @property
    def elasticity(self) -> float | None:
        """Per cent more throughput for one per cent more load, just above the best; None when nothing is above."""
        above = min((load for load in self.power if load > self.best_load), default=None)
        if above is None or self.request_rate[self.best_load] <= 0 or self.request_rate[above] <= 0:
            return None
        return math.log(self.request_rate[above] / self.request_rate[self.best_load]) / math.log(above / self.best_load)
