"""The highest load that still meets the targets: bracketed, then bisected on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

PRECISION = 0.05
CLIFF = 0.5
"""A fall of the margin, between two loads that precision does not tell apart, that is a cliff."""

NOTHING = -2.0
"""The margin of a load at which no request was answered."""

MOST_LOADS = 30


@dataclass
class Tried:
    """What was seen at one load: the mean margin over `weight` requests, and whether its answer was clear."""

    margin: float
    weight: float
    clear: bool

    def add(self, margin: float, weight: float, clear: bool) -> None:
        """Pool another look at the same load."""
        total = self.weight + weight
        self.margin = (self.margin * self.weight + margin * weight) / total
        self.weight, self.clear = total, True


@dataclass
class Bracket:
    """Finds the highest load between `least` and `most` whose margin is not negative.

    `ask` gives the next load or None; `tell` takes what was seen there: a margin (0 and above
    meets the targets), the requests behind it, and whether the answer was clear. The first load is
    `start`; a step away from it multiplies by `step`, which is squared each time, up to 2. It ends when
    the highest load that meets and the lowest that misses differ by at most `precision`, or by 1
    where loads are whole, and the answer at the former was clear or has been seen twice.
    """

    least: float
    most: float
    start: float
    step: float = 2.0
    precision: float = PRECISION
    whole: bool = True
    tried: dict[float, Tried] = field(default_factory=dict)
    told: int = 0

    def ask(self) -> float | None:
        """The next load; None when the answer is known."""
        if not self.tried:
            return self._placed(self.start)
        if self.told >= MOST_LOADS:
            return None
        low, high = self.limits()
        if high is None:
            assert low is not None
            return self._confirmed(low) if low >= self.most else self._placed(low * self._factor())
        if low is None:
            return None if high <= self.least else self._placed(self._lower(high))
        if self._close(low, high):
            return self._confirmed(low)
        return self._between(low, high)

    def tell(self, load: float, margin: float, weight: float = 1.0, *, clear: bool = True) -> None:
        """Take note of what was seen at a load."""
        self.told += 1
        if load in self.tried:
            self.tried[load].add(margin, max(weight, 1.0), clear)
        else:
            self.tried[load] = Tried(margin, max(weight, 1.0), clear)

    def limits(self) -> tuple[float | None, float | None]:
        """The highest load that meets and the lowest that misses, by the fit over all loads tried."""
        loads = sorted(self.tried)
        fit = falling([self.tried[load].margin for load in loads], [self.tried[load].weight for load in loads])
        met = [load for load, value in zip(loads, fit, strict=True) if value >= 0]
        missed = [load for load, value in zip(loads, fit, strict=True) if value < 0]
        return (met[-1] if met else None), (missed[0] if missed else None)

    @property
    def reason(self) -> str:
        """Why there is no load left to ask for."""
        low, high = self.limits()
        if low is None and high is not None and self.tried[high].margin <= NOTHING:
            return "no request was answered"
        if low is None:
            return "even the lowest load misses the targets"
        if high is None:
            return "the highest load allowed meets the targets"
        if not self._close(low, high):
            return f"{MOST_LOADS} load points were not enough"
        fall = self.tried[low].margin - self.tried[high].margin
        return f"a cliff: the targets are missed by far at {high:g}" if fall >= CLIFF else "bracketed"

    def _lower(self, high: float) -> float:
        """A load below all that miss; the lowest at once where not a single request was answered."""
        return self.least if self.tried[high].margin <= NOTHING else high / self._factor()

    def _factor(self) -> float:
        """How far from the last load the next one is, while all loads tried give the same answer."""
        doublings = 2 ** min(len(self.tried) - 1, 10)
        return math.exp(min(math.log(self.step) * doublings, math.log(2)))

    def _confirmed(self, low: float) -> float | None:
        return None if self.tried[low].clear else low

    def _close(self, low: float, high: float) -> bool:
        return high <= low * (1 + self.precision) or (self.whole and high - low <= 1)

    def _between(self, low: float, high: float) -> float:
        middle = math.sqrt(low * high)
        return float(min(max(round(middle), math.floor(low) + 1), math.ceil(high) - 1)) if self.whole else middle

    def _placed(self, load: float) -> float:
        """A load inside the bounds that was not tried; whole where loads are."""
        if self.whole:
            load = float(round(load))
            up = all(value.margin >= 0 for value in self.tried.values())
            while load in self.tried:
                load += 1 if up else -1
        return min(max(load, self.least), self.most)


def falling(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The closest sequence that never rises, by weighted least squares: pool adjacent violators."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] < block[0]:
            mean, heavy, count = blocks.pop()
            total = heavy + block[1]
            block = ((mean * heavy + block[0] * block[1]) / total, total, count + block[2])
        blocks.append(block)
    return [mean for mean, _, count in blocks for _ in range(count)]
