"""Posterior mean and covariance of the candidates' log utility, given the finished trials."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from autotuner.core import Candidate, LoadPointResult, Trial, Verdict
from autotuner.experiment import Experiment
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.pool import STEADY_STATE_VERDICTS
from autotuner.scoring.rank import rank
from autotuner.search.forecast import INFEASIBLE_UTILITY_FACTOR, Forecasts
from autotuner.search.problem import Problem
from autotuner.search.surrogate import MeasuredMetric, PredictedMetric, Surrogate

COST_PRIOR_SD = 0.2
"""Prior standard deviation of operator log costs; 0.3 took more launches in six worlds of benchmarks/search."""

SHARED_ERROR_SD = {"ttft": 3.0}
"""Standard deviation, in units of COST_PRIOR_SD, of the error that all predictions of a metric share: 60% for TTFT.

Held-out TTFTs are off by 33% in the mean (docs/explanation/prediction.md), and by a factor of two in 4 of 48 simulated
worlds (benchmarks/scoring/long_runs.py), in which searches without this term ended after one launch.
"""

TTFT_RECALIBRATION_LOG_STEP = 0.1
"""Change of the log TTFT factor after which all candidates are predicted again; by hand, to save predictions."""

NO_SLOPES_ERROR_SCALE = 2.0
"""Factor on the model error of a prediction whose sensitivities were not computed; chosen by hand."""

MAX_WITH_SLOPES = 200
"""How many candidates, those with the best predictions, get sensitivities; by hand, for time: 12 predictions each."""

LAUNCH_NOISE_SD = {"measured": 0.04, "simulated": 0.02, "predicted": 0.0}
"""Standard deviation of log utility between launches of a candidate: real ones differ by 2 to 6% from day to day."""

POINT_NOISE_SD, CEILING_NOISE_SD = 0.03, 0.05
"""Noise of the log metrics of one load point, and of the utility bound of a pruned trial; chosen by hand."""

INFEASIBLE_NOISE_SD = 0.5
"""Noise of log utility where no load met the targets: utility at the lowest load says little; chosen by hand."""

MIN_REQUESTS = 20
"""Requests below which a load point's means are not used; chosen by hand."""


class Posterior:
    """Log utilities of candidates as predicted, corrected by the residuals of every measured load point."""

    def __init__(self, problem: Problem, candidates: Sequence[Candidate]) -> None:
        self.problem = problem
        self.experiment: Experiment = problem.experiment
        self.objective = OBJECTIVES[problem.experiment.optimization.objective]
        self.forecasts = Forecasts(problem)
        self._candidates = tuple(candidates)
        self._forecast_candidates()

    def _forecast_candidates(self) -> None:
        """Predict the utility of all candidates, and decide which get sensitivities to operator costs."""
        forecasts = {candidate.key: self.forecasts.forecast(candidate) for candidate in self._candidates}
        utilities = {key: forecast.utility for key, forecast in forecasts.items() if forecast}
        self._without_slopes = set(sorted(utilities, key=lambda key: -utilities[key])[MAX_WITH_SLOPES:])
        self._predicted_utilities = sorted(math.log(utility) for utility in utilities.values())
        self.has_predictions = bool(utilities)

    def _calibrate_ttft(self, trials: Sequence[Trial]) -> None:
        """Scale predicted TTFTs to the median of measured / predicted, where a target depends on them."""
        if not any(term.metric in ("ttft", "latency") for term in self.experiment.slo.terms):
            return
        log_ratios = [ratio for trial in trials if not trial.failed for ratio in self._ttft_log_ratios(trial)]
        factor = math.exp(median(log_ratios)) if log_ratios else 1.0
        if abs(math.log(factor / self.forecasts.ttft_factor)) > TTFT_RECALIBRATION_LOG_STEP:
            self.forecasts.set_ttft_factor(factor)
            self._forecast_candidates()

    def _ttft_log_ratios(self, trial: Trial) -> Iterator[float]:
        """Log of measured over predicted mean TTFT at each load point in steady state."""
        for point, result in trial.measurement.latest_results.items():
            measured = result.metrics.ttft_from_schedule if point.rate else result.metrics.ttft
            prediction = self.problem.predict(trial.candidate, point)
            if not measured or not prediction or result.verdict not in STEADY_STATE_VERDICTS:
                continue
            if measured.mean > 0 and prediction.ttft > 0:
                yield math.log(measured.mean / prediction.ttft)

    def is_predicted(self, candidate: Candidate) -> bool:
        """Whether there is a prediction for the candidate, including that it does not fit into memory."""
        has_forecast = self.forecasts.forecast(candidate) is not None
        return has_forecast or (self.has_predictions and not self.problem.fits(candidate))

    def mean_and_covariance(
        self, candidates: Sequence[Candidate], trials: Sequence[Trial]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Posterior (means, covariance) of the candidates' log utility, given the trials.

        The utility bound of a pruned trial is a measurement only where the posterior mean lies above it.
        """
        self._calibrate_ttft(trials)
        measured_log_utilities = [value for trial in trials if (value := self.log_utility(trial)) is not None]
        log_utilities = self._predicted_utilities or sorted(measured_log_utilities) or [0.0]
        default_mean = log_utilities[len(log_utilities) // 2]
        measurements = [one for trial in trials for one in self._measurements_of(trial, default_mean)]
        surrogate = Surrogate(COST_PRIOR_SD, tuple(measurements))
        for trial in trials:
            ceiling = trial.measurement.outcome.ceiling
            if ceiling and self.log_utility(trial) is None:
                prediction = self._utility_prediction(trial.candidate, default_mean)
                if surrogate.posterior([prediction])[0][0] > math.log(ceiling):
                    bound = MeasuredMetric(prediction, math.log(ceiling), CEILING_NOISE_SD)
                    surrogate = Surrogate(COST_PRIOR_SD, (*surrogate.measurements, bound))
        return surrogate.posterior([self._utility_prediction(candidate, default_mean) for candidate in candidates])

    def log_utility(self, trial: Trial) -> float | None:
        """Log of the measured utility, discounted where a capacity search met no target; None if failed or pruned."""
        standing = rank([trial], self.experiment).standings
        if not standing or standing[0].verdict is None or not standing[0].value:
            return None
        is_feasible = standing[0].verdict in (Verdict.FEASIBLE, Verdict.UNDECIDED)
        factor = 1.0 if is_feasible or not self.experiment.benchmark.find_capacity else INFEASIBLE_UTILITY_FACTOR
        return math.log(self.objective.utility(standing[0].value) * factor)

    def _meets_targets(self, trial: Trial) -> bool:
        """Whether some load of every scenario met the targets; true where no capacity was searched."""
        return all(capacity.value > 0 for capacity in trial.measurement.outcome.capacities)

    def _utility_prediction(self, candidate: Candidate, default_mean: float) -> PredictedMetric:
        """Predicted log utility: below all others if it does not fit, `default_mean` without a prediction."""
        forecast = self.forecasts.forecast(candidate)
        no_slopes = (0.0,) * len(self.forecasts.operator_kinds)
        if forecast is not None:
            prediction = None if candidate.key in self._without_slopes else self.forecasts.utility_prediction(candidate)
            if not prediction:
                log_utility = math.log(forecast.utility)
                prediction = PredictedMetric(candidate, "utility", log_utility, no_slopes, NO_SLOPES_ERROR_SCALE)
            return replace(prediction, shared_error_sd=SHARED_ERROR_SD.get(self.objective.metric, 0.0))
        if self.is_predicted(candidate):
            log_utility = self._predicted_utilities[0] + math.log(INFEASIBLE_UTILITY_FACTOR)
            return PredictedMetric(candidate, "utility", log_utility, no_slopes)
        return PredictedMetric(candidate, "utility", default_mean, no_slopes, is_unpredicted=True)

    def _measurements_of(self, trial: Trial, default_mean: float) -> list[MeasuredMetric]:
        """The utility of a trial, and where predictions exist TPOT and request rate at each load point."""
        if trial.failed:
            return []
        log_utility = self.log_utility(trial)
        prediction = self._utility_prediction(trial.candidate, default_mean)
        noise_sd = LAUNCH_NOISE_SD[trial.measurement.source] if self._meets_targets(trial) else INFEASIBLE_NOISE_SD
        measurements = [] if log_utility is None else [MeasuredMetric(prediction, log_utility, noise_sd)]
        if self.forecasts.forecast(trial.candidate) is None:
            return measurements
        for result in trial.measurement.latest_results.values():
            measurements += self._load_point_measurements(trial.candidate, result)
        return measurements

    def _load_point_measurements(self, candidate: Candidate, result: LoadPointResult) -> list[MeasuredMetric]:
        """Measured log TPOT and log requests/s of one load point; empty where either is unknown or requests are few."""
        metrics, concurrency = result.metrics, result.load_point.concurrency
        if not metrics.tpot or not metrics.e2e or not metrics.tpot.mean or metrics.requests < MIN_REQUESTS:
            return []
        predictions = self.forecasts.load_point_predictions(candidate, result.load_point)
        if predictions is None:
            return []
        tpot, request_rate = predictions
        measurements = [MeasuredMetric(tpot, math.log(metrics.tpot.mean), POINT_NOISE_SD)]
        if concurrency and metrics.e2e.mean > 0:  # requests/s by Little's law
            measurements.append(MeasuredMetric(request_rate, math.log(concurrency / metrics.e2e.mean), POINT_NOISE_SD))
        return measurements
