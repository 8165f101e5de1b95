"""The highest load that still meets the targets: bracketed, then narrowed down on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

PRECISION = 0.05
CLIFF = math.log(1.5)
"""The slack by which the lowest load that misses is beyond a cliff: a figure half as much again as its target."""

NOTHING = -2.0
"""The margin of a load at which no request was answered."""

MOST_LOADS = 30
FARTHEST = 4.0
"""The longest step away from a load, as a factor, where its slack says how far."""

SLOPE = 0.6
"""How much slack a log unit of load is taken to cost at first: times grow more slowly than the load."""


@dataclass
class Tried:
    """What was seen at one load: the mean margin over `weight` requests, and whether its answer was clear.

    `slack` is the log of how many times slower it could have been; None where that is not known.
    """

    margin: float
    weight: float
    clear: bool
    slack: float | None = None

    def add(self, margin: float, weight: float, clear: bool) -> None:
        """Pool another look at the same load."""
        total = self.weight + weight
        self.margin = (self.margin * self.weight + margin * weight) / total
        self.weight, self.clear = total, True


@dataclass
class Bracket:
    """Finds the highest load between `least` and `most` whose margin is not negative.

    `ask` gives the next load or None; `tell` takes what was seen there: a margin (0 and above
    meets the targets), the requests behind it, whether the answer was clear, and the slack, which
    places the next load but decides nothing. The first load is `start`; a step away from it
    multiplies by what the slack says or by `step`, which is squared each time, up to 2. It ends when
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
    order: list[float] = field(default_factory=list)

    def ask(self) -> float | None:
        """The next load; None when the answer is known."""
        if not self.tried:
            return self._placed(self.start)
        if len(self.order) >= MOST_LOADS:
            return None
        low, high = self.limits()
        if high is None:
            assert low is not None
            return self._confirmed(low) if low >= self.most else self._placed(self._higher(low))
        if low is None:
            return None if high <= self.least else self._placed(self._lower(high))
        if self._close(low, high):
            return self._confirmed(low)
        return self._between(low, high)

    def tell(
        self, load: float, margin: float, weight: float = 1.0, *, clear: bool = True, slack: float | None = None
    ) -> None:
        """Take note of what was seen at a load."""
        self.order.append(load)
        if load in self.tried:
            self.tried[load].add(margin, max(weight, 1.0), clear)
        else:
            self.tried[load] = Tried(margin, max(weight, 1.0), clear, slack)

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
        beyond = self.tried[high].slack
        if beyond is None or beyond > -CLIFF:
            return "bracketed"
        return f"a cliff: at {high:g} a figure is {math.exp(-beyond):.2g} times its target"

    def _higher(self, low: float) -> float:
        """A load above all that meet."""
        slack = self.tried[low].slack
        return low * (self._factor() if slack is None or slack <= 0 else self._far(low, slack))

    def _lower(self, high: float) -> float:
        """A load below all that miss; the lowest at once where not a single request was answered."""
        seen = self.tried[high]
        if seen.margin <= NOTHING:
            return self.least
        return high / (self._factor() if seen.slack is None or seen.slack >= 0 else self._far(high, -seen.slack))

    def _far(self, load: float, slack: float) -> float:
        """The factor to the load at which the slack is used up, by how it changed since the load before."""
        slope = SLOPE
        before = [other for other, seen in self.tried.items() if other != load and seen.slack is not None]
        if before:
            other = min(before, key=lambda tried: abs(math.log(tried / load)))
            change = abs((self.tried[other].slack or 0.0) - (self.tried[load].slack or 0.0))
            slope = max(change / abs(math.log(other / load)), SLOPE / 3)
        return math.exp(min(max(slack / slope, math.log(1 + self.precision)), math.log(FARTHEST)))

    def _factor(self) -> float:
        """How far from the last load the next one is, while all loads tried give the same answer."""
        doublings = 2 ** min(len(self.tried) - 1, 10)
        return math.exp(min(math.log(self.step) * doublings, math.log(2)))

    def _confirmed(self, low: float) -> float | None:
        """The load to look at once more; one second look is all, for where it is not clear the edge is near."""
        return None if self.tried[low].clear or len(self.order) > len(self.tried) else low

    def _close(self, low: float, high: float) -> bool:
        return high <= low * (1 + self.precision) or (self.whole and high - low <= 1)

    def _between(self, low: float, high: float) -> float:
        """Where the slack reaches 0 by interpolation, or the middle; at a distance at which the bracket can close."""
        middle, edge = math.sqrt(low * high), self._edge(low, high)
        if edge is not None:
            near = 1 + self.precision
            if edge <= low * near:
                middle = math.floor(low * near) if self.whole else low * near
            elif edge >= high / near:
                middle = math.ceil(high / near) if self.whole else high / near
            else:
                middle = edge / math.sqrt(near)
        return float(min(max(round(middle), math.floor(low) + 1), math.ceil(high) - 1)) if self.whole else middle

    def _edge(self, low: float, high: float) -> float | None:
        left, right = self.tried[low].slack, self.tried[high].slack
        if left is None or right is None or left <= 0 or right >= 0:
            return None
        # as in the Illinois method: an end that stays while the other one moves counts for less
        stayed = 0.5 ** max(0, self._moves(low) - 1)
        left, right = (left, right * stayed) if self.order[-1] == low else (left * stayed, right)
        share: float = left / (left - right)
        return low * math.exp(share * math.log(high / low))

    def _moves(self, low: float) -> int:
        """How often, up to now, the end that moved last has moved in a row."""
        met = self.order[-1] <= low
        count = 0
        for load in reversed(self.order):
            if (load <= low) != met:
                break
            count += 1
        return count

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
