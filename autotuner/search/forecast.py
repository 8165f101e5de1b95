"""What the closed form lets one expect of each candidate, in the terms a search compares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

from autotuner.core import Candidate, LoadPoint
from autotuner.predict.efficiencies import COST_KINDS, UNIT_COSTS, CostFactors
from autotuner.predict.predict import Prediction
from autotuner.scoring.objective import OBJECTIVES
from autotuner.search.capacity import LoadRange
from autotuner.search.knee import Knee
from autotuner.search.problem import Problem
from autotuner.search.surrogate import PredictedFigure
from autotuner.workload import scenarios

SATURATION_SHARE = 0.8
"""Share of the requests a server can hold above which a predicted TTFT is not believed."""

TTFT_TOLERANCE_FACTOR = 1.25
"""By what factor a TTFT may be lower than its prediction at the level that was measured, when a target asks for it.

Held-out predictions of TTFT are off by 27% in the median (docs/explanation/prediction.md). A candidate that is wrongly
taken to meet its targets costs one launch, one that is wrongly taken to miss them is never found.
"""

CAPACITY_PRECISION = 0.03
INFEASIBLE_UTILITY_FACTOR = 0.5
"""What is left of the utility of a candidate that is predicted to meet the targets nowhere."""


MAX_COST_SLOPE = 3.0
"""The largest slope believed: beyond it lies an edge, where targets are met or not."""

LOG_SPEEDUPS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Logs of how much faster everything would have to be, tried for what is expected to miss the targets."""

LOG_COST_STEP = 0.2
"""The log of the factor by which a kind of operators is made slower and faster, to see what depends on it."""


@dataclass(frozen=True)
class CandidateForecast:
    """The expected utility, and by scenario the expected capacity where capacities are searched.

    `meets` says that some load of every scenario is expected to meet the targets.
    """

    utility: float
    capacities: Mapping[str, float]
    meets_targets: bool = True


class Forecasts:
    """Predictions of a problem's candidates, each made once.

    `ttft_level` is what predicted TTFTs are multiplied by where they are held against a target.
    """

    operator_kinds = tuple(COST_KINDS)

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.experiment = problem.experiment
        self.objective = OBJECTIVES[problem.experiment.optimization.objective]
        self.ttft_factor = 1.0
        self._cache: dict[tuple[str, CostFactors], CandidateForecast | None] = {}

    def set_ttft_factor(self, factor: float) -> None:
        """Expect all TTFTs to be off by this factor from now on."""
        self.ttft_factor = factor
        self._cache.clear()

    def forecast(self, candidate: Candidate, costs: CostFactors = UNIT_COSTS) -> CandidateForecast | None:
        """What to expect of a candidate; None where the predictor has no answer on some scenario."""
        key = candidate.key, costs
        if key not in self._cache:
            self._cache[key] = self._compute_forecast(candidate, costs)
        return self._cache[key]

    def utility_figure(self, candidate: Candidate) -> PredictedFigure | None:
        """The expected utility and what it depends on.

        Of a candidate that is expected to miss the targets everywhere, it is what it would have if
        all costs were as much lower as it takes to meet them, less for how far off that is.
        """
        expected = self.forecast(candidate)
        if expected is None or expected.meets_targets:
            return self._figure_with_slopes(
                candidate, "utility", lambda costs: self._forecast_utility(candidate, costs)
            )
        for off in LOG_SPEEDUPS:
            faster = self.forecast(candidate, CostFactors(*[math.exp(-off)] * len(COST_KINDS)))
            if faster is not None and faster.meets_targets:
                each = -MAX_COST_SLOPE / len(COST_KINDS) ** 0.5
                return PredictedFigure(
                    candidate, "utility", math.log(faster.utility) - MAX_COST_SLOPE * off, (each,) * len(COST_KINDS)
                )
        return PredictedFigure(candidate, "utility", math.log(expected.utility), (0.0,) * len(COST_KINDS))

    def load_point_figures(
        self, candidate: Candidate, point: LoadPoint
    ) -> tuple[PredictedFigure, PredictedFigure] | None:
        """TPOT and requests/s expected at a load point, and what they depend on."""

        @cache
        def answer(costs: CostFactors) -> Prediction | None:
            return self.problem.predict(candidate, point, costs)

        def figure(name: Literal["tpot", "requests"]) -> PredictedFigure | None:
            return self._figure_with_slopes(candidate, name, lambda costs: getattr(answer(costs), name, None))

        tpot, requests = figure("tpot"), figure("requests")
        return (tpot, requests) if tpot and requests else None

    def _forecast_utility(self, candidate: Candidate, costs: CostFactors) -> float | None:
        found = self.forecast(candidate, costs)
        return found.utility if found else None

    def _figure_with_slopes(
        self, candidate: Candidate, metric: str, evaluate: Callable[[CostFactors], float | None]
    ) -> PredictedFigure | None:
        value = evaluate(UNIT_COSTS)
        if not value:
            return None
        slopes = []
        for kind in COST_KINDS:
            slower, faster = (
                evaluate(CostFactors(**{kind: math.exp(change)})) or value for change in (LOG_COST_STEP, -LOG_COST_STEP)
            )
            slopes.append(max(-MAX_COST_SLOPE, min(MAX_COST_SLOPE, math.log(slower / faster) / (2 * LOG_COST_STEP))))
        return PredictedFigure(candidate, metric, math.log(value), tuple(slopes))

    def _compute_forecast(self, candidate: Candidate, costs: CostFactors) -> CandidateForecast | None:
        found: dict[str, tuple[float, float]] = {}
        meets = True
        for scenario, (_, output) in self.mean_lengths.items():
            asked = ScenarioForecast(self, candidate, scenario, output, costs)
            if self.experiment.benchmark.find_capacity:
                best = asked.at_capacity()
            elif self.objective.at_equal_load:
                best = asked.over_all_points()
            else:
                best = asked.at_best_point()
            if best is None:
                return None
            found[scenario] = best
            meets = meets and not asked.misses_targets
        utilities = [math.log(utility) for _, utility in found.values()]
        loads = {name: load for name, (load, _) in found.items()}
        return CandidateForecast(math.exp(math.fsum(utilities) / len(utilities)), loads, meets)

    @cached_property
    def mean_lengths(self) -> dict[str, tuple[float, float]]:
        return {name: scenarios.parse(name).mean_lengths for name in self.experiment.benchmark.traffic_scenarios}


@dataclass
class ScenarioForecast:
    """One candidate on one scenario; answers are (load, utility), None where nothing can be said."""

    forecasts: Forecasts
    candidate: Candidate
    scenario: str
    output_tokens: float
    costs: CostFactors = UNIT_COSTS
    misses_targets: bool = False

    def at_capacity(self) -> tuple[float, float] | None:
        """At the highest load that is predicted to meet the targets, at the knee without any."""
        loads = LoadRange.from_experiment(self.forecasts.experiment)
        first = self._point_forecast(loads.load_point(self.scenario, loads.minimum))
        if first is None:
            return None
        if not self.forecasts.experiment.slo.terms and not loads.is_rate:
            return self._at_knee(loads)
        if not first[0]:
            self.misses_targets = True
            return loads.minimum, first[1] * INFEASIBLE_UTILITY_FACTOR
        low, best, high = loads.minimum, first[1], loads.minimum
        most = min(loads.maximum, max(loads.minimum, self._max_running)) if not loads.is_rate else loads.maximum
        while high < most:
            high = min(2 * high, most)
            seen = self._point_forecast(loads.load_point(self.scenario, high))
            if seen is None or not seen[0]:
                break
            low, best = high, seen[1]
        while high > low * (1 + CAPACITY_PRECISION):
            middle = math.sqrt(low * high) if loads.is_rate else round(math.sqrt(low * high))
            if not low < middle < high:
                break
            seen = self._point_forecast(loads.load_point(self.scenario, middle))
            if seen is not None and seen[0]:
                low, best = middle, seen[1]
            else:
                high = middle
        return low, best

    @cached_property
    def _max_running(self) -> float:
        """The requests it runs at once; what waits beyond them adds nothing, and its TTFT is not believed."""
        point = LoadPoint(self.scenario, concurrency=1)
        found, given = self._predict(point), self.candidate.parameters
        allowed, replicas = given.get("max-running-requests"), given.get("dp-size") or 1
        held = float(math.floor(found.max_in_flight)) if found else math.inf
        return min(held, int(allowed) * int(replicas)) if allowed else held

    def _at_knee(self, load_range: LoadRange) -> tuple[float, float] | None:
        knee, utility = Knee(load_range.minimum, load_range.maximum, load_range.minimum), {}
        while (load := knee.ask()) is not None:
            point = load_range.load_point(self.scenario, load)
            found, seen = self._predict(point), self._point_forecast(point)
            if found is None or seen is None:
                return None
            utility[load] = seen[1]
            knee.tell(load, found.requests, self._e2e_seconds(found))
        return knee.best_load, utility[knee.best_load]

    def over_all_points(self) -> tuple[float, float] | None:
        """Over all load points of the experiment: the geometric mean."""
        seen = self._point_forecasts()
        if seen is None:
            return None
        return 0.0, math.exp(math.fsum(math.log(utility) for _, utility in seen) / len(seen))

    def at_best_point(self) -> tuple[float, float] | None:
        """At the load point where it does best of those predicted to meet the targets."""
        seen = self._point_forecasts()
        if seen is None:
            return None
        held = [utility for holds, utility in seen if holds]
        return 0.0, max(held) if held else INFEASIBLE_UTILITY_FACTOR * seen[0][1]

    def _point_forecasts(self) -> list[tuple[bool, float]] | None:
        points = self.forecasts.experiment.workload().load_points
        seen = [self._point_forecast(point) for point in points if point.scenario == self.scenario]
        known = [answer for answer in seen if answer is not None]
        return known if len(known) == len(seen) else None

    def _point_forecast(self, point: LoadPoint) -> tuple[bool, float] | None:
        """Whether the targets are met at a load point, and its utility."""
        found = self._predict(point)
        value = self._objective_value(found) if found else None
        if found is None or not value:
            return None
        return self._meets_targets(found, point), self.forecasts.objective.utility(value)

    def _predict(self, point: LoadPoint) -> Prediction | None:
        return self.forecasts.problem.predict(self.candidate, point, self.costs)

    def _objective_value(self, prediction: Prediction) -> float | None:
        experiment, name = self.forecasts.experiment, self.forecasts.objective.name
        gpus, price = self.candidate.gpus, experiment.hardware.price_per_gpu_hour
        prompt, output = self.forecasts.mean_lengths[self.scenario]
        if name == "maximize_goodput":
            return prediction.requests
        if name == "maximize_throughput":
            return prediction.requests * (prompt + output) / gpus
        if name == "minimize_cost":
            seconds = gpus * 1e6 / prediction.throughput if prediction.throughput else None
            return seconds if price is None or seconds is None else seconds * price / 3600
        return {"minimize_ttft": prediction.ttft, "minimize_tpot": prediction.tpot}.get(
            name, self._e2e_seconds(prediction)
        )

    def _e2e_seconds(self, prediction: Prediction) -> float:
        return prediction.ttft + max(0.0, self.output_tokens - 1) * prediction.tpot

    def _meets_targets(self, prediction: Prediction, point: LoadPoint) -> bool:
        """Whether every latency target is met on average; of TTFT nothing is believed near saturation."""
        in_flight = point.concurrency or (point.rate or 0.0) * self._e2e_seconds(prediction)
        queued = in_flight > SATURATION_SHARE * self._max_running
        decoding = max(0.0, self.output_tokens - 1) * prediction.tpot
        ttft = 0.0 if queued else prediction.ttft * self.forecasts.ttft_factor / TTFT_TOLERANCE_FACTOR
        values = {"tpot": prediction.tpot, "itl": prediction.tpot, "ttft": ttft, "latency": decoding + ttft}
        terms = self.forecasts.experiment.slo.terms
        return all(values[term.metric] <= term.threshold for term in terms if term.metric in values)
