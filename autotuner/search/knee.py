"""The load beyond which more of it buys waiting rather than throughput."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

SPACING = 0.2
"""How close, relative to each other, the loads around the knee come: the optimum is flat."""


@dataclass
class Knee:
    """Finds the concurrency of the greatest power, throughput over time in the system (Kleinrock 1979).

    There one per cent more requests in flight brings half a per cent more throughput; above it
    most of them wait. `ask` gives the next concurrency or None; `tell` takes requests/s and mean
    seconds in the system at it.
    """

    least: float
    most: float
    start: float
    power: dict[float, float] = field(default_factory=dict)
    rate: dict[float, float] = field(default_factory=dict)

    def ask(self) -> float | None:
        """The next load: up until power falls, down until it falls there too, then closer around the best."""
        if not self.power:
            return min(max(self.start, self.least), self.most)
        best = self.best
        below = [load for load in self.power if load < best]
        above = [load for load in self.power if load > best]
        if not above and best < self.most:
            return min(best * 2, self.most)
        if not below and best > self.least:
            return max(math.floor(best / 2), self.least)
        for near in sorted((max(below, default=best), min(above, default=best)), key=lambda load: -abs(load - best)):
            middle = float(round(math.sqrt(near * best)))
            if max(near, best) > min(near, best) * (1 + SPACING) and middle not in self.power:
                return middle
        return None

    def tell(self, load: float, rate: float, seconds: float) -> None:
        """Take note of what was seen at a load."""
        self.rate[load] = rate
        self.power[load] = rate / seconds if seconds > 0 else 0.0

    @property
    def best(self) -> float:
        """The load of the greatest power."""
        return max(self.power, key=lambda load: (self.power[load], -load))

    @property
    def gain(self) -> float | None:
        """Per cent more throughput for one per cent more load, just above the best; None when nothing is above."""
        above = min((load for load in self.power if load > self.best), default=None)
        if above is None or self.rate[self.best] <= 0 or self.rate[above] <= 0:
            return None
        return math.log(self.rate[above] / self.rate[self.best]) / math.log(above / self.best)
