"""Predicted utility and capacity of each candidate, before and between measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

from autotuner.core import Candidate, LoadPoint
from autotuner.predict.efficiencies import COST_KINDS, UNIT_COSTS, CostFactors
from autotuner.predict.predict import Prediction
from autotuner.scoring.objective import OBJECTIVES, PredictedMetrics
from autotuner.search.capacity import LoadRange
from autotuner.search.knee import Knee
from autotuner.search.problem import Problem
from autotuner.search.surrogate import PredictedMetric
from autotuner.workload import scenarios

SATURATION_SHARE = 0.8
"""Share of the requests a server can run at once above which a predicted TTFT is ignored; chosen by hand."""

TTFT_TOLERANCE_FACTOR = 1.25
"""Factor by which a recalibrated TTFT prediction may exceed its target and still count as meeting it.

Held-out predictions of TTFT are off by 30% in the median (docs/explanation/prediction.md). A candidate wrongly taken
to meet its targets costs one launch; one wrongly taken to miss them is never launched.
"""

CAPACITY_PRECISION = 0.03
"""Relative width at which the bisection of a predicted capacity ends; by hand, below its error and LOAD_PRECISION."""

INFEASIBLE_UTILITY_FACTOR = 0.5
"""Discount on the utility of a candidate that meets its targets at no load; chosen by hand."""

MAX_COST_SLOPE = 3.0
"""Clip of a sensitivity: steeper ones come from a cliff where targets are met or missed; chosen by hand."""

LOG_SPEEDUPS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Log factors by which all costs are lowered, in turn, until a candidate meets its targets; chosen by hand."""

LOG_COST_STEP = 0.2
"""Step in log cost of the central difference that gives a sensitivity; by hand, the size of COST_PRIOR_SD."""


@dataclass(frozen=True)
class CandidateForecast:
    """Predicted utility, and the predicted capacity by scenario where capacities are searched.

    `meets_targets`: on every scenario some load is predicted to meet them.
    """

    utility: float
    capacities: Mapping[str, float]
    meets_targets: bool = True


class Forecasts:
    """Cached forecasts of a problem's candidates.

    `ttft_factor` multiplies predicted TTFTs before they are compared with a target.
    """

    operator_kinds = tuple(COST_KINDS)

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.experiment = problem.experiment
        self.objective = OBJECTIVES[problem.experiment.optimization.objective]
        self.ttft_factor = 1.0
        self._cache: dict[tuple[str, CostFactors], CandidateForecast | None] = {}

    def set_ttft_factor(self, factor: float) -> None:
        """Recalibrate TTFT predictions, and drop the forecasts that used the old factor."""
        self.ttft_factor = factor
        self._cache.clear()

    def forecast(self, candidate: Candidate, costs: CostFactors = UNIT_COSTS) -> CandidateForecast | None:
        """Forecast with operator costs scaled by `costs`; None if some scenario cannot be predicted."""
        key = candidate.key, costs
        if key not in self._cache:
            self._cache[key] = self._compute_forecast(candidate, costs)
        return self._cache[key]

    def utility_prediction(self, candidate: Candidate) -> PredictedMetric | None:
        """Predicted log utility with its sensitivities to operator costs.

        A candidate predicted to miss its targets gets the utility it would have with all costs lowered until it
        meets them, minus MAX_COST_SLOPE times the log of that reduction.
        """
        forecast = self.forecast(candidate)
        if forecast is None or forecast.meets_targets:
            return self._prediction_with_slopes(candidate, "utility", lambda costs: self._utility_at(candidate, costs))
        for log_speedup in LOG_SPEEDUPS:
            faster = self.forecast(candidate, CostFactors(*[math.exp(-log_speedup)] * len(COST_KINDS)))
            if faster is not None and faster.meets_targets:
                log_utility = math.log(faster.utility) - MAX_COST_SLOPE * log_speedup
                slopes = (-MAX_COST_SLOPE / len(COST_KINDS) ** 0.5,) * len(COST_KINDS)
                return PredictedMetric(candidate, "utility", log_utility, slopes)
        return PredictedMetric(candidate, "utility", math.log(forecast.utility), (0.0,) * len(COST_KINDS))

    def load_point_predictions(
        self, candidate: Candidate, point: LoadPoint
    ) -> tuple[PredictedMetric, PredictedMetric] | None:
        """Predicted TPOT and requests/s at a load point, each with its sensitivities."""

        @cache
        def predict(costs: CostFactors) -> Prediction | None:
            return self.problem.predict(candidate, point, costs)

        def predict_metric(metric: Literal["tpot", "requests"]) -> PredictedMetric | None:
            return self._prediction_with_slopes(candidate, metric, lambda costs: getattr(predict(costs), metric, None))

        tpot, requests = predict_metric("tpot"), predict_metric("requests")
        return (tpot, requests) if tpot and requests else None

    def _utility_at(self, candidate: Candidate, costs: CostFactors) -> float | None:
        forecast = self.forecast(candidate, costs)
        return forecast.utility if forecast else None

    def _prediction_with_slopes(
        self, candidate: Candidate, metric: str, evaluate: Callable[[CostFactors], float | None]
    ) -> PredictedMetric | None:
        """Log value and central differences of it by each log cost; `evaluate` maps cost factors to the value."""
        value = evaluate(UNIT_COSTS)
        if not value:
            return None
        slopes = []
        for kind in COST_KINDS:
            steps = (LOG_COST_STEP, -LOG_COST_STEP)
            slower, faster = (evaluate(CostFactors(**{kind: math.exp(step)})) or value for step in steps)
            slopes.append(max(-MAX_COST_SLOPE, min(MAX_COST_SLOPE, math.log(slower / faster) / (2 * LOG_COST_STEP))))
        return PredictedMetric(candidate, metric, math.log(value), tuple(slopes))

    def _compute_forecast(self, candidate: Candidate, costs: CostFactors) -> CandidateForecast | None:
        """Geometric mean of the utilities over scenarios, each at the load that the experiment compares."""
        capacities: dict[str, float] = {}
        log_utilities: list[float] = []
        meets_targets = True
        for scenario, (_, output_tokens) in self.mean_lengths.items():
            scenario_forecast = ScenarioForecast(self, candidate, scenario, output_tokens, costs)
            if self.experiment.benchmark.find_capacity:
                load_and_utility = scenario_forecast.at_capacity()
            elif self.objective.at_equal_load:
                load_and_utility = scenario_forecast.over_all_points()
            else:
                load_and_utility = scenario_forecast.at_best_point()
            if load_and_utility is None:
                return None
            capacities[scenario], utility = load_and_utility
            log_utilities.append(math.log(utility))
            meets_targets = meets_targets and not scenario_forecast.misses_targets
        return CandidateForecast(math.exp(math.fsum(log_utilities) / len(log_utilities)), capacities, meets_targets)

    @cached_property
    def mean_lengths(self) -> dict[str, tuple[float, float]]:
        """Mean prompt and output tokens by scenario."""
        return {name: scenarios.parse(name).mean_lengths for name in self.experiment.benchmark.traffic_scenarios}


@dataclass
class ScenarioForecast:
    """Forecast of one candidate on one scenario; methods return (load, utility), None without a prediction.

    `at_capacity` sets `misses_targets` when even the lowest load is predicted to miss them.
    """

    forecasts: Forecasts
    candidate: Candidate
    scenario: str
    output_tokens: float
    costs: CostFactors = UNIT_COSTS
    misses_targets: bool = False

    def at_capacity(self) -> tuple[float, float] | None:
        """At the highest load predicted to meet the targets; without targets at the knee of a closed loop."""
        loads = LoadRange.from_experiment(self.forecasts.experiment)
        lowest = self._point_forecast(loads.load_point(self.scenario, loads.minimum))
        if lowest is None:
            return None
        if not self.forecasts.experiment.slo.terms and not loads.is_rate:
            return self._at_knee(loads)
        is_feasible, utility = lowest
        if not is_feasible:
            self.misses_targets = True
            return loads.minimum, utility * INFEASIBLE_UTILITY_FACTOR
        low = high = loads.minimum
        highest = min(loads.maximum, max(loads.minimum, self._max_running)) if not loads.is_rate else loads.maximum
        while high < highest:
            high = min(2 * high, highest)
            forecast = self._point_forecast(loads.load_point(self.scenario, high))
            if forecast is None or not forecast[0]:
                break
            low, utility = high, forecast[1]
        while high > low * (1 + CAPACITY_PRECISION):
            middle = math.sqrt(low * high) if loads.is_rate else round(math.sqrt(low * high))
            if not low < middle < high:
                break
            forecast = self._point_forecast(loads.load_point(self.scenario, middle))
            if forecast is not None and forecast[0]:
                low, utility = middle, forecast[1]
            else:
                high = middle
        return low, utility

    @cached_property
    def _max_running(self) -> float:
        """Requests the server can run at once: further ones queue and add no throughput."""
        point = LoadPoint(self.scenario, concurrency=1)
        prediction, configured = self._predict(point), self.candidate.parameters.get("max-running-requests")
        memory_limit = float(math.floor(prediction.max_in_flight)) if prediction else math.inf
        return min(memory_limit, int(configured) * self.candidate.parallelism.dp) if configured else memory_limit

    def _at_knee(self, load_range: LoadRange) -> tuple[float, float] | None:
        """(load, utility) at the predicted knee: the concurrency with the greatest ratio of throughput to latency."""
        knee, utilities = Knee(load_range.minimum, load_range.maximum, load_range.minimum), {}
        while (load := knee.ask()) is not None:
            point = load_range.load_point(self.scenario, load)
            prediction, forecast = self._predict(point), self._point_forecast(point)
            if prediction is None or forecast is None:
                return None
            _, utilities[load] = forecast
            knee.tell(load, prediction.requests, self._e2e_seconds(prediction))
        return knee.best_load, utilities[knee.best_load]

    def over_all_points(self) -> tuple[float, float] | None:
        """Geometric mean of the utility over all load points of the experiment; the load is 0."""
        forecasts = self._point_forecasts()
        if forecasts is None:
            return None
        return 0.0, math.exp(math.fsum(math.log(utility) for _, utility in forecasts) / len(forecasts))

    def at_best_point(self) -> tuple[float, float] | None:
        """Best utility among the load points predicted to meet the targets; the load is 0."""
        forecasts = self._point_forecasts()
        if forecasts is None:
            return None
        utilities = [utility for is_feasible, utility in forecasts if is_feasible]
        return 0.0, max(utilities) if utilities else INFEASIBLE_UTILITY_FACTOR * forecasts[0][1]

    def _point_forecasts(self) -> list[tuple[bool, float]] | None:
        """All load points of the scenario in order; None if any cannot be predicted."""
        points = [
            point for point in self.forecasts.experiment.workload().load_points if point.scenario == self.scenario
        ]
        forecasts = [forecast for point in points if (forecast := self._point_forecast(point)) is not None]
        return forecasts if len(forecasts) == len(points) else None

    def _point_forecast(self, point: LoadPoint) -> tuple[bool, float] | None:
        """(whether the targets are met, utility) at a load point."""
        prediction = self._predict(point)
        value = self._objective_value(prediction) if prediction else None
        if prediction is None or not value:
            return None
        return self._meets_targets(prediction, point), self.forecasts.objective.utility(value)

    def _predict(self, point: LoadPoint) -> Prediction | None:
        return self.forecasts.problem.predict(self.candidate, point, self.costs)

    def _objective_value(self, prediction: Prediction) -> float | None:
        """The objective's value at a load point, in its own unit and direction."""
        prompt, output = self.forecasts.mean_lengths[self.scenario]
        metrics = PredictedMetrics(
            ttft=prediction.ttft,
            tpot=prediction.tpot,
            e2e=self._e2e_seconds(prediction),
            throughput=prediction.requests * (prompt + output),
            output_throughput=prediction.throughput,
            goodput=prediction.requests,
        )
        price = self.forecasts.experiment.hardware.price_per_gpu_hour
        return self.forecasts.objective.value(metrics, self.candidate.gpus, price)

    def _e2e_seconds(self, prediction: Prediction) -> float:
        return prediction.ttft + max(0.0, self.output_tokens - 1) * prediction.tpot

    def _meets_targets(self, prediction: Prediction, point: LoadPoint) -> bool:
        """Whether the means meet every latency target; near saturation TTFT counts as 0, being unpredictable."""
        in_flight = point.concurrency or (point.rate or 0.0) * self._e2e_seconds(prediction)
        near_saturation = in_flight > SATURATION_SHARE * self._max_running
        decode_seconds = max(0.0, self.output_tokens - 1) * prediction.tpot
        ttft = 0.0 if near_saturation else prediction.ttft * self.forecasts.ttft_factor / TTFT_TOLERANCE_FACTOR
        values = {"tpot": prediction.tpot, "itl": prediction.tpot, "ttft": ttft, "latency": decode_seconds + ttft}
        terms = self.forecasts.experiment.slo.terms
        return all(values[term.metric] <= term.threshold for term in terms if term.metric in values)
