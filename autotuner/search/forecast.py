"""What the closed form lets one expect of each candidate, in the terms a search compares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

from autotuner.core import Candidate, LoadPoint
from autotuner.predict.efficiencies import AS_FITTED, KINDS, Costs
from autotuner.predict.predict import Prediction
from autotuner.scoring.objective import OBJECTIVES
from autotuner.search.capacity import Range
from autotuner.search.knee import Knee
from autotuner.search.problem import Problem
from autotuner.search.surrogate import Figure
from autotuner.workload import scenarios

NEAR_SATURATION = 0.8
"""Share of the requests a server can hold above which a predicted TTFT is not believed."""

TTFT_DOUBT = 1.25
"""By what factor a TTFT may be lower than its prediction at the level that was measured, when a target asks for it.

Held-out predictions of TTFT are off by 27% in the median (docs/explanation/prediction.md). A candidate that is wrongly
taken to meet its targets costs one launch, one that is wrongly taken to miss them is never found.
"""

PRECISION = 0.03
DOUBTED = 0.5
"""What is left of the utility of a candidate that is predicted to meet the targets nowhere."""


STEEPEST = 3.0
"""The largest slope believed: beyond it lies an edge, where targets are met or not."""

SPEEDUPS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Logs of how much faster everything would have to be, tried for what is expected to miss the targets."""

CHANGE = 0.2
"""The log of the factor by which a kind of operators is made slower and faster, to see what depends on it."""


@dataclass(frozen=True)
class Expectation:
    """The expected utility, and by scenario the expected capacity where capacities are searched.

    `meets` says that some load of every scenario is expected to meet the targets.
    """

    utility: float
    loads: Mapping[str, float]
    meets: bool = True


class Prior:
    """Predictions of a problem's candidates, each made once.

    `ttft_level` is what predicted TTFTs are multiplied by where they are held against a target.
    """

    kinds = tuple(KINDS)

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.experiment = problem.experiment
        self.objective = OBJECTIVES[problem.experiment.optimization.objective]
        self.ttft_level = 1.0
        self._known: dict[tuple[str, Costs], Expectation | None] = {}

    def set_ttft_level(self, level: float) -> None:
        """Expect all TTFTs to be off by this factor from now on."""
        self.ttft_level = level
        self._known.clear()

    def expect(self, candidate: Candidate, costs: Costs = AS_FITTED) -> Expectation | None:
        """What to expect of a candidate; None where the predictor has no answer on some scenario."""
        key = candidate.key, costs
        if key not in self._known:
            self._known[key] = self._expect(candidate, costs)
        return self._known[key]

    def utility(self, candidate: Candidate) -> Figure | None:
        """The expected utility and what it depends on.

        Of a candidate that is expected to miss the targets everywhere, it is what it would have if
        all costs were as much lower as it takes to meet them, less for how far off that is.
        """
        expected = self.expect(candidate)
        if expected is None or expected.meets:
            return self._figure(candidate, "utility", lambda costs: self._utility(candidate, costs))
        for off in SPEEDUPS:
            faster = self.expect(candidate, Costs(*[math.exp(-off)] * len(KINDS)))
            if faster is not None and faster.meets:
                each = -STEEPEST / len(KINDS) ** 0.5
                return Figure(candidate, "utility", math.log(faster.utility) - STEEPEST * off, (each,) * len(KINDS))
        return Figure(candidate, "utility", math.log(expected.utility), (0.0,) * len(KINDS))

    def at(self, candidate: Candidate, point: LoadPoint) -> tuple[Figure, Figure] | None:
        """TPOT and requests/s expected at a load point, and what they depend on."""

        @cache
        def answer(costs: Costs) -> Prediction | None:
            return self.problem.predict(candidate, point, costs)

        def figure(name: Literal["tpot", "requests"]) -> Figure | None:
            return self._figure(candidate, name, lambda costs: getattr(answer(costs), name, None))

        tpot, requests = figure("tpot"), figure("requests")
        return (tpot, requests) if tpot and requests else None

    def _utility(self, candidate: Candidate, costs: Costs) -> float | None:
        found = self.expect(candidate, costs)
        return found.utility if found else None

    def _figure(self, candidate: Candidate, name: str, answer: Callable[[Costs], float | None]) -> Figure | None:
        value = answer(AS_FITTED)
        if not value:
            return None
        slopes = []
        for kind in KINDS:
            slower, faster = (answer(Costs(**{kind: math.exp(change)})) or value for change in (CHANGE, -CHANGE))
            slopes.append(max(-STEEPEST, min(STEEPEST, math.log(slower / faster) / (2 * CHANGE))))
        return Figure(candidate, name, math.log(value), tuple(slopes))

    def _expect(self, candidate: Candidate, costs: Costs) -> Expectation | None:
        found: dict[str, tuple[float, float]] = {}
        meets = True
        for scenario, (_, output) in self._scenarios.items():
            asked = Asked(self, candidate, scenario, output, costs)
            if self.experiment.benchmark.find_capacity:
                best = asked.at_capacity()
            elif self.objective.at_equal_load:
                best = asked.over_all()
            else:
                best = asked.at_best()
            if best is None:
                return None
            found[scenario] = best
            meets = meets and not asked.missed
        utilities = [math.log(utility) for _, utility in found.values()]
        loads = {name: load for name, (load, _) in found.items()}
        return Expectation(math.exp(math.fsum(utilities) / len(utilities)), loads, meets)

    @cached_property
    def _scenarios(self) -> dict[str, tuple[float, float]]:
        return {name: scenarios.parse(name).mean for name in self.experiment.benchmark.traffic_scenarios}


@dataclass
class Asked:
    """One candidate on one scenario; answers are (load, utility), None where nothing can be said."""

    prior: Prior
    candidate: Candidate
    scenario: str
    output: float
    costs: Costs = AS_FITTED
    missed: bool = False

    def at_capacity(self) -> tuple[float, float] | None:
        """At the highest load that is predicted to meet the targets, at the knee without any."""
        loads = Range.of(self.prior.experiment)
        first = self._at(loads.point(self.scenario, loads.least))
        if first is None:
            return None
        if not self.prior.experiment.slo.terms and not loads.rates:
            return self._at_knee(loads)
        if not first[0]:
            self.missed = True
            return loads.least, first[1] * DOUBTED
        low, best, high = loads.least, first[1], loads.least
        most = min(loads.most, max(loads.least, self._held)) if not loads.rates else loads.most
        while high < most:
            high = min(2 * high, most)
            seen = self._at(loads.point(self.scenario, high))
            if seen is None or not seen[0]:
                break
            low, best = high, seen[1]
        while high > low * (1 + PRECISION):
            middle = math.sqrt(low * high) if loads.rates else round(math.sqrt(low * high))
            if not low < middle < high:
                break
            seen = self._at(loads.point(self.scenario, middle))
            if seen is not None and seen[0]:
                low, best = middle, seen[1]
            else:
                high = middle
        return low, best

    @cached_property
    def _held(self) -> float:
        """The requests it runs at once; what waits beyond them adds nothing, and its TTFT is not believed."""
        point = LoadPoint(self.scenario, concurrency=1)
        found, given = self._predicted(point), self.candidate.parameters
        allowed, replicas = given.get("max-running-requests"), given.get("dp-size") or 1
        held = float(math.floor(found.running)) if found else math.inf
        return min(held, int(allowed) * int(replicas)) if allowed else held

    def _at_knee(self, loads: Range) -> tuple[float, float] | None:
        knee, utility = Knee(loads.least, loads.most, loads.least), {}
        while (load := knee.ask()) is not None:
            point = loads.point(self.scenario, load)
            found, seen = self._predicted(point), self._at(point)
            if found is None or seen is None:
                return None
            utility[load] = seen[1]
            knee.tell(load, found.requests, self._latency(found))
        return knee.best, utility[knee.best]

    def over_all(self) -> tuple[float, float] | None:
        """Over all load points of the experiment: the geometric mean."""
        seen = self._seen()
        if seen is None:
            return None
        return 0.0, math.exp(math.fsum(math.log(utility) for _, utility in seen) / len(seen))

    def at_best(self) -> tuple[float, float] | None:
        """At the load point where it does best of those predicted to meet the targets."""
        seen = self._seen()
        if seen is None:
            return None
        held = [utility for holds, utility in seen if holds]
        return 0.0, max(held) if held else DOUBTED * seen[0][1]

    def _seen(self) -> list[tuple[bool, float]] | None:
        points = self.prior.experiment.workload().load_points
        seen = [self._at(point) for point in points if point.scenario == self.scenario]
        known = [answer for answer in seen if answer is not None]
        return known if len(known) == len(seen) else None

    def _at(self, point: LoadPoint) -> tuple[bool, float] | None:
        """Whether the targets are met at a load point, and its utility."""
        found = self._predicted(point)
        value = self._value(found) if found else None
        if found is None or not value:
            return None
        return self._holds(found, point), self.prior.objective.utility(value)

    def _predicted(self, point: LoadPoint) -> Prediction | None:
        return self.prior.problem.predict(self.candidate, point, self.costs)

    def _value(self, found: Prediction) -> float | None:
        experiment, name = self.prior.experiment, self.prior.objective.name
        gpus, price = self.candidate.gpus, experiment.hardware.price_per_gpu_hour
        prompt, output = self.prior._scenarios[self.scenario]
        if name == "maximize_goodput":
            return found.requests
        if name == "maximize_throughput":
            return found.requests * (prompt + output) / gpus
        if name == "minimize_cost":
            seconds = gpus * 1e6 / found.throughput if found.throughput else None
            return seconds if price is None or seconds is None else seconds * price / 3600
        return {"minimize_ttft": found.ttft, "minimize_tpot": found.tpot}.get(name, self._latency(found))

    def _latency(self, found: Prediction) -> float:
        return found.ttft + max(0.0, self.output - 1) * found.tpot

    def _holds(self, found: Prediction, point: LoadPoint) -> bool:
        """Whether every latency target is met on average; of TTFT nothing is believed near saturation."""
        in_flight = point.concurrency or (point.rate or 0.0) * self._latency(found)
        queued = in_flight > NEAR_SATURATION * self._held
        decoding = max(0.0, self.output - 1) * found.tpot
        ttft = 0.0 if queued else found.ttft * self.prior.ttft_level / TTFT_DOUBT
        values = {"tpot": found.tpot, "itl": found.tpot, "ttft": ttft, "latency": decoding + ttft}
        terms = self.prior.experiment.slo.terms
        return all(values[term.metric] <= term.threshold for term in terms if term.metric in values)
