"""Root finding for the highest load that meets the targets: bracket, then interpolate on a log scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

LOAD_PRECISION = 0.05
"""Relative width of a finished bracket; chosen by hand."""

CLIFF_LOG_RATIO = math.log(1.5)
"""A metric this far beyond its target at the lowest infeasible load is called a cliff; chosen by hand."""

NO_ANSWER_MARGIN = -2.0
"""Margin of a load at which no request was answered: below every margin that can be measured, which is -1 to 1."""

MAX_LOAD_POINTS = 30
"""Against cycling when results contradict each other; without noise 18 suffice (tests/search/test_bracket.py)."""

MAX_STEP_FACTOR = 4.0
"""Largest ratio of successive loads while extrapolating from the slack; chosen by hand."""

INITIAL_SLACK_SLOPE = 0.6
"""Assumed d(slack) / d(log load) before two loads are known: latency grows more slowly than load; chosen by hand."""


@dataclass
class LoadObservation:
    """Mean margin over `weight` requests at one load, and the log slack, None where unknown.

    `is_conclusive`: the requests sufficed to decide whether the targets are met, or the load was measured twice.
    """

    margin: float
    weight: float
    is_conclusive: bool
    slack: float | None = None

    def add(self, margin: float, weight: float, is_conclusive: bool) -> None:
        """Pool a second measurement of the same load."""
        total = self.weight + weight
        self.margin = (self.margin * self.weight + margin * weight) / total
        self.weight, self.is_conclusive = total, True


@dataclass
class Bracket:
    """Finds the highest load between `min_load` and `max_load` whose margin is not negative.

    Usage is ask/tell. A margin of 0 or more meets the targets; the slack (log of the factor by which
    latencies could have been longer) only places the next load, it decides nothing. The search starts at
    `start` and moves by the step the slack predicts, else by `step`, squared each time up to a factor of 2.
    It ends when the highest feasible and the lowest infeasible load are within `precision`, or 1 apart for
    integer loads, and the feasible one is conclusive or was measured twice.
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
        """The next load; None when the search is finished."""
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
        """Record a measurement of `weight` requests at a load."""
        self.load_history.append(load)
        if load in self.observations:
            self.observations[load].add(margin, max(weight, 1.0), is_conclusive)
        else:
            self.observations[load] = LoadObservation(margin, max(weight, 1.0), is_conclusive, slack)

    def limits(self) -> tuple[float | None, float | None]:
        """The highest feasible and the lowest infeasible load, by isotonic regression of the margin over all loads."""
        loads = sorted(self.observations)
        observations = [self.observations[load] for load in loads]
        fit = decreasing_fit([one.margin for one in observations], [one.weight for one in observations])
        feasible = [load for load, value in zip(loads, fit, strict=True) if value >= 0]
        infeasible = [load for load, value in zip(loads, fit, strict=True) if value < 0]
        return (feasible[-1] if feasible else None), (infeasible[0] if infeasible else None)

    @property
    def end_reason(self) -> str:
        """Why the search is finished."""
        low, high = self.limits()
        if low is None and high is not None and self.observations[high].margin <= NO_ANSWER_MARGIN:
            return "no request was answered"
        if low is None:
            return "even the lowest load misses the targets"
        if high is None:
            return "the highest load allowed meets the targets"
        if not self._is_closed(low, high):
            return f"{MAX_LOAD_POINTS} load points were not enough"
        slack = self.observations[high].slack
        if slack is None or slack > -CLIFF_LOG_RATIO:
            return "bracketed"
        return f"a cliff: at {high:g} a metric is {math.exp(-slack):.2g}x its target"

    def _load_above(self, low: float) -> float:
        slack = self.observations[low].slack
        return low * (self._expansion_step() if slack is None or slack <= 0 else self._slack_step(low, slack))

    def _load_below(self, high: float) -> float:
        """A load below the lowest infeasible one; `min_load` at once when no request was answered."""
        observation = self.observations[high]
        if observation.margin <= NO_ANSWER_MARGIN:
            return self.min_load
        slack = observation.slack
        return high / (self._expansion_step() if slack is None or slack >= 0 else self._slack_step(high, -slack))

    def _slack_step(self, load: float, slack: float) -> float:
        """Factor to the load where `slack` reaches 0, extrapolated from the slope to the nearest other load."""
        slope = INITIAL_SLACK_SLOPE
        others = [other for other, one in self.observations.items() if other != load and one.slack is not None]
        if others:
            nearest = min(others, key=lambda other: abs(math.log(other / load)))
            change = abs((self.observations[nearest].slack or 0.0) - (self.observations[load].slack or 0.0))
            slope = max(change / abs(math.log(nearest / load)), INITIAL_SLACK_SLOPE / 3)
        return math.exp(min(max(slack / slope, math.log(1 + self.precision)), math.log(MAX_STEP_FACTOR)))

    def _expansion_step(self) -> float:
        """Factor to the next load while all loads so far are feasible, or all infeasible."""
        doublings = 2 ** min(len(self.observations) - 1, 10)
        return math.exp(min(math.log(self.step) * doublings, math.log(2)))

    def _load_to_confirm(self, low: float) -> float | None:
        """The feasible load, to be measured again; only one load is repeated, as an unclear result is near the edge."""
        return None if self.observations[low].is_conclusive or len(self.load_history) > len(self.observations) else low

    def _is_closed(self, low: float, high: float) -> bool:
        return high <= low * (1 + self.precision) or (self.is_integer and high - low <= 1)

    def _load_between(self, low: float, high: float) -> float:
        """The root of the slack, shifted so that the bracket can close around it; without one the geometric mean."""
        load, root = math.sqrt(low * high), self._interpolated_root(low, high)
        if root is not None:
            width = 1 + self.precision
            if root <= low * width:
                load = math.floor(low * width) if self.is_integer else low * width
            elif root >= high / width:
                load = math.ceil(high / width) if self.is_integer else high / width
            else:
                load = root / math.sqrt(width)
        return float(min(max(round(load), math.floor(low) + 1), math.ceil(high) - 1)) if self.is_integer else load

    def _interpolated_root(self, low: float, high: float) -> float | None:
        """The load at which the slack is 0, by regula falsi in log load; None unless the slack changes sign."""
        low_slack, high_slack = self.observations[low].slack, self.observations[high].slack
        if low_slack is None or high_slack is None or low_slack <= 0 or high_slack >= 0:
            return None
        # the Illinois variant: halve the value at the end that stays while the other one moves
        shrink = 0.5 ** max(0, self._consecutive_moves(low) - 1)
        if self.load_history[-1] == low:
            high_slack *= shrink
        else:
            low_slack *= shrink
        fraction: float = low_slack / (low_slack - high_slack)
        return low * math.exp(fraction * math.log(high / low))

    def _consecutive_moves(self, low: float) -> int:
        """How many of the latest loads in a row moved the same end of the bracket."""
        lower_end_moved = self.load_history[-1] <= low
        count = 0
        for load in reversed(self.load_history):
            if (load <= low) != lower_end_moved:
                break
            count += 1
        return count

    def _untried_load(self, load: float) -> float:
        """The load clipped to the bounds; rounded, and moved past loads already measured, when loads are integers."""
        if self.is_integer:
            load = float(round(load))
            all_feasible = all(one.margin >= 0 for one in self.observations.values())
            while load in self.observations:
                load += 1 if all_feasible else -1
        return min(max(load, self.min_load), self.max_load)


def decreasing_fit(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Non-increasing isotonic regression by weighted least squares (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] < block[0]:
            mean, block_weight, count = blocks.pop()
            total = block_weight + block[1]
            block = ((mean * block_weight + block[0] * block[1]) / total, total, count + block[2])
        blocks.append(block)
    return [mean for mean, _, count in blocks for _ in range(count)]
