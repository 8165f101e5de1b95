"""The highest load that still meets the targets: bracketed, then narrowed down on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

LOAD_PRECISION = 0.05
CLIFF_LOG_RATIO = math.log(1.5)
"""The slack by which the lowest load that misses is beyond a cliff: a figure half as much again as its target."""

NO_ANSWER_MARGIN = -2.0
"""The margin of a load at which no request was answered."""

MAX_LOAD_POINTS = 30
MAX_STEP_FACTOR = 4.0
"""The longest step away from a load, as a factor, where its slack says how far."""

INITIAL_SLACK_SLOPE = 0.6
"""How much slack a log unit of load is taken to cost at first: times grow more slowly than the load."""


@dataclass
class LoadObservation:
    """What was seen at one load: the mean margin over `weight` requests, and whether its answer was clear.

    `slack` is the log of how many times slower it could have been; None where that is not known.
    """

    margin: float
    weight: float
    is_conclusive: bool
    slack: float | None = None

    def add(self, margin: float, weight: float, is_conclusive: bool) -> None:
        """Pool another look at the same load."""
        total = self.weight + weight
        self.margin = (self.margin * self.weight + margin * weight) / total
        self.weight, self.is_conclusive = total, True


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

    min_load: float
    max_load: float
    start: float
    step: float = 2.0
    precision: float = LOAD_PRECISION
    is_integer: bool = True
    observations: dict[float, LoadObservation] = field(default_factory=dict)
    load_history: list[float] = field(default_factory=list)

    def ask(self) -> float | None:
        """The next load; None when the answer is known."""
        if not self.observations:
            return self._untried_load(self.start)
        if len(self.load_history) >= MAX_LOAD_POINTS:
            return None
        low, high = self.limits()
        if high is None:
            assert low is not None
            return self._load_to_confirm(low) if low >= self.max_load else self._untried_load(self._load_above(low))
        if low is None:
            return None if high <= self.min_load else self._untried_load(self._load_below(high))
        if self._is_closed(low, high):
            return self._load_to_confirm(low)
        return self._load_between(low, high)

    def tell(
        self, load: float, margin: float, weight: float = 1.0, *, is_conclusive: bool = True, slack: float | None = None
    ) -> None:
        """Take note of what was seen at a load."""
        self.load_history.append(load)
        if load in self.observations:
            self.observations[load].add(margin, max(weight, 1.0), is_conclusive)
        else:
            self.observations[load] = LoadObservation(margin, max(weight, 1.0), is_conclusive, slack)

    def limits(self) -> tuple[float | None, float | None]:
        """The highest load that meets and the lowest that misses, by the fit over all loads tried."""
        loads = sorted(self.observations)
        fit = decreasing_fit(
            [self.observations[load].margin for load in loads], [self.observations[load].weight for load in loads]
        )
        met = [load for load, value in zip(loads, fit, strict=True) if value >= 0]
        missed = [load for load, value in zip(loads, fit, strict=True) if value < 0]
        return (met[-1] if met else None), (missed[0] if missed else None)

    @property
    def end_reason(self) -> str:
        """Why there is no load left to ask for."""
        low, high = self.limits()
        if low is None and high is not None and self.observations[high].margin <= NO_ANSWER_MARGIN:
            return "no request was answered"
        if low is None:
            return "even the lowest load misses the targets"
        if high is None:
            return "the highest load allowed meets the targets"
        if not self._is_closed(low, high):
            return f"{MAX_LOAD_POINTS} load points were not enough"
        beyond = self.observations[high].slack
        if beyond is None or beyond > -CLIFF_LOG_RATIO:
            return "bracketed"
        return f"a cliff: at {high:g} a figure is {math.exp(-beyond):.2g} times its target"

    def _load_above(self, low: float) -> float:
        """A load above all that meet."""
        slack = self.observations[low].slack
        return low * (self._expansion_step() if slack is None or slack <= 0 else self._slack_step(low, slack))

    def _load_below(self, high: float) -> float:
        """A load below all that miss; the lowest at once where not a single request was answered."""
        seen = self.observations[high]
        if seen.margin <= NO_ANSWER_MARGIN:
            return self.min_load
        return high / (
            self._expansion_step() if seen.slack is None or seen.slack >= 0 else self._slack_step(high, -seen.slack)
        )

    def _slack_step(self, load: float, slack: float) -> float:
        """The factor to the load at which the slack is used up, by how it changed since the load before."""
        slope = INITIAL_SLACK_SLOPE
        before = [other for other, seen in self.observations.items() if other != load and seen.slack is not None]
        if before:
            other = min(before, key=lambda tried: abs(math.log(tried / load)))
            change = abs((self.observations[other].slack or 0.0) - (self.observations[load].slack or 0.0))
            slope = max(change / abs(math.log(other / load)), INITIAL_SLACK_SLOPE / 3)
        return math.exp(min(max(slack / slope, math.log(1 + self.precision)), math.log(MAX_STEP_FACTOR)))

    def _expansion_step(self) -> float:
        """How far from the last load the next one is, while all loads tried give the same answer."""
        doublings = 2 ** min(len(self.observations) - 1, 10)
        return math.exp(min(math.log(self.step) * doublings, math.log(2)))

    def _load_to_confirm(self, low: float) -> float | None:
        """The load to look at once more; one second look is all, for where it is not clear the edge is near."""
        return None if self.observations[low].is_conclusive or len(self.load_history) > len(self.observations) else low

    def _is_closed(self, low: float, high: float) -> bool:
        return high <= low * (1 + self.precision) or (self.is_integer and high - low <= 1)

    def _load_between(self, low: float, high: float) -> float:
        """Where the slack reaches 0 by interpolation, or the middle; at a distance at which the bracket can close."""
        middle, edge = math.sqrt(low * high), self._interpolated_edge(low, high)
        if edge is not None:
            near = 1 + self.precision
            if edge <= low * near:
                middle = math.floor(low * near) if self.is_integer else low * near
            elif edge >= high / near:
                middle = math.ceil(high / near) if self.is_integer else high / near
            else:
                middle = edge / math.sqrt(near)
        return float(min(max(round(middle), math.floor(low) + 1), math.ceil(high) - 1)) if self.is_integer else middle

    def _interpolated_edge(self, low: float, high: float) -> float | None:
        left, right = self.observations[low].slack, self.observations[high].slack
        if left is None or right is None or left <= 0 or right >= 0:
            return None
        # as in the Illinois method: an end that stays while the other one moves counts for less
        stayed = 0.5 ** max(0, self._consecutive_moves(low) - 1)
        left, right = (left, right * stayed) if self.load_history[-1] == low else (left * stayed, right)
        share: float = left / (left - right)
        return low * math.exp(share * math.log(high / low))

    def _consecutive_moves(self, low: float) -> int:
        """How often, up to now, the end that moved last has moved in a row."""
        met = self.load_history[-1] <= low
        count = 0
        for load in reversed(self.load_history):
            if (load <= low) != met:
                break
            count += 1
        return count

    def _untried_load(self, load: float) -> float:
        """A load inside the bounds that was not tried; whole where loads are."""
        if self.is_integer:
            load = float(round(load))
            up = all(value.margin >= 0 for value in self.observations.values())
            while load in self.observations:
                load += 1 if up else -1
        return min(max(load, self.min_load), self.max_load)


def decreasing_fit(values: Sequence[float], weights: Sequence[float]) -> list[float]:
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
