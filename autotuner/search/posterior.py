"""What is to be expected of candidates, in view of the trials so far."""

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
from autotuner.search.surrogate import MeasuredFigure, PredictedFigure, Surrogate

COST_PRIOR_SD = 0.2
"""The deviation that the log costs of operators are taken to have at first."""

SHARED_ERROR_SD = {"ttft": 3.0}
"""The deviation of what all predictions of a figure are off by alike, PRIOR_SD being 1: 60% for a TTFT.

Of models that no constant was fitted to it is off by 33% in the mean (docs/explanation/prediction.md), and by a
factor of two in 4 of 48 simulated worlds (benchmarks/scoring/long_runs.py), in which searches ended at once.
"""

TTFT_RECALIBRATION_LOG_STEP = 0.1
"""A change of the log of a level for which all candidates are predicted again."""

NO_SLOPES_ERROR_SCALE = 2.0
"""By how much less is known of a prediction of which it is not known what it depends on, as a factor."""

MAX_WITH_SLOPES = 200
"""Candidates of which that is found out: those with the best predictions."""

LAUNCH_NOISE_SD = {"measured": 0.04, "simulated": 0.02, "predicted": 0.0}
"""The deviation between launches of one candidate: real ones differ by 2 to 6% from day to day."""

POINT_NOISE_SD, CEILING_NOISE_SD = 0.03, 0.05
"""Deviations of logs that are measured, besides: at one load point, and of what was given up."""

INFEASIBLE_NOISE_SD = 0.5
"""The same where no load met the targets: its utility at the lowest one is no measure of how far off it is."""

MIN_REQUESTS = 20
"""Requests of a load point below which its means say little."""


class Posterior:
    """Expected utilities of candidates, corrected by every load point that was measured."""

    def __init__(self, problem: Problem, candidates: Sequence[Candidate]) -> None:
        self.problem = problem
        self.experiment: Experiment = problem.experiment
        self.objective = OBJECTIVES[problem.experiment.optimization.objective]
        self.forecasts = Forecasts(problem)
        self._candidates = tuple(candidates)
        self._forecast_candidates()

    def _forecast_candidates(self) -> None:
        """Predict the utility of every candidate of the pool."""
        known = {
            candidate.key: found.utility
            for candidate in self._candidates
            if (found := self.forecasts.forecast(candidate))
        }
        self._without_slopes = set(sorted(known, key=lambda key: -known[key])[MAX_WITH_SLOPES:])
        self._predicted_utilities = sorted(math.log(value) for value in known.values())
        self.has_predictions = bool(known)

    def _calibrate_ttft(self, trials: Sequence[Trial]) -> None:
        """Where a target asks for TTFTs, expect them at the level at which they were measured."""
        if not any(term.metric in ("ttft", "latency") for term in self.experiment.slo.terms):
            return
        ratios = [ratio for trial in trials if not trial.failed for ratio in self._ttft_log_ratios(trial)]
        level = math.exp(median(ratios)) if ratios else 1.0
        if abs(math.log(level / self.forecasts.ttft_factor)) > TTFT_RECALIBRATION_LOG_STEP:
            self.forecasts.set_ttft_factor(level)
            self._forecast_candidates()

    def _ttft_log_ratios(self, trial: Trial) -> Iterator[float]:
        """The log of measured over predicted TTFT at each load point whose figures are steady."""
        for point, result in trial.measurement.latest_results.items():
            measured = result.metrics.ttft_from_schedule if point.rate else result.metrics.ttft
            predicted = self.problem.predict(trial.candidate, point)
            if (
                measured
                and predicted
                and measured.mean > 0
                and predicted.ttft > 0
                and result.verdict in STEADY_STATE_VERDICTS
            ):
                yield math.log(measured.mean / predicted.ttft)

    def is_predicted(self, candidate: Candidate) -> bool:
        """Whether something is predicted of it, be it that it does not fit."""
        return self.forecasts.forecast(candidate) is not None or (
            self.has_predictions and not self.problem.fits(candidate)
        )

    def mean_and_covariance(
        self, candidates: Sequence[Candidate], trials: Sequence[Trial]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(means, covariance) of the log utilities of candidates after trials."""
        self._calibrate_ttft(trials)
        worths = [worth for trial in trials if (worth := self.log_utility(trial)) is not None]
        usual = self._predicted_utilities or sorted(worths) or [0.0]
        middle = usual[len(usual) // 2]
        belief = Surrogate(
            COST_PRIOR_SD, tuple(seen for trial in trials for seen in self._measured_figures(trial, middle))
        )
        for trial in trials:
            ceiling = trial.measurement.outcome.ceiling
            if ceiling and self.log_utility(trial) is None:
                figure = self._utility_figure(trial.candidate, middle)
                if belief.posterior([figure])[0][0] > math.log(ceiling):
                    belief = Surrogate(
                        COST_PRIOR_SD,
                        (*belief.measurements, MeasuredFigure(figure, math.log(ceiling), CEILING_NOISE_SD)),
                    )
        return belief.posterior([self._utility_figure(candidate, middle) for candidate in candidates])

    def log_utility(self, trial: Trial) -> float | None:
        """The log utility a trial showed; None where it failed or was given up."""
        standing = rank([trial], self.experiment).standings
        if not standing or standing[0].verdict is None or not standing[0].value:
            return None
        met = standing[0].verdict in (Verdict.FEASIBLE, Verdict.UNDECIDED)
        doubt = 1.0 if met or not self.experiment.benchmark.find_capacity else INFEASIBLE_UTILITY_FACTOR
        return math.log(self.objective.utility(standing[0].value) * doubt)

    def _meets_targets(self, trial: Trial) -> bool:
        """Whether there is a load at which it met its targets, or capacities were not looked for."""
        capacities = trial.measurement.outcome.capacities
        return all(capacity.value > 0 for capacity in capacities)

    def _utility_figure(self, candidate: Candidate, default_mean: float) -> PredictedFigure:
        """The expected utility; a guess where nothing is predicted, and a low one for what is not expected to fit."""
        expected = self.forecasts.forecast(candidate)
        none = (0.0,) * len(self.forecasts.operator_kinds)
        if expected is not None:
            found = None if candidate.key in self._without_slopes else self.forecasts.utility_figure(candidate)
            figure = found or PredictedFigure(
                candidate, "utility", math.log(expected.utility), none, NO_SLOPES_ERROR_SCALE
            )
            return replace(figure, shared_error_sd=SHARED_ERROR_SD.get(self.objective.metric, 0.0))
        if self.is_predicted(candidate):
            return PredictedFigure(
                candidate, "utility", self._predicted_utilities[0] + math.log(INFEASIBLE_UTILITY_FACTOR), none
            )
        return PredictedFigure(candidate, "utility", default_mean, none, is_unpredicted=True)

    def _measured_figures(self, trial: Trial, default_mean: float) -> list[MeasuredFigure]:
        """What a trial says: of its utility, and of the times at each of its load points."""
        if trial.failed:
            return []
        worth = self.log_utility(trial)
        figure = self._utility_figure(trial.candidate, default_mean)
        noise = LAUNCH_NOISE_SD[trial.measurement.source] if self._meets_targets(trial) else INFEASIBLE_NOISE_SD
        found = [] if worth is None else [MeasuredFigure(figure, worth, noise)]
        if self.forecasts.forecast(trial.candidate) is None:
            return found
        last = {result.load_point: result for result in trial.measurement.load_points}
        return found + [seen for result in last.values() for seen in self._load_point_figures(trial.candidate, result)]

    def _load_point_figures(self, candidate: Candidate, result: LoadPointResult) -> list[MeasuredFigure]:
        metrics, in_flight = result.metrics, result.load_point.concurrency
        if not metrics.tpot or not metrics.e2e or not metrics.tpot.mean or metrics.requests < MIN_REQUESTS:
            return []
        expected = self.forecasts.load_point_figures(candidate, result.load_point)
        if expected is None:
            return []
        tpot, requests = expected
        found = [MeasuredFigure(tpot, math.log(metrics.tpot.mean), POINT_NOISE_SD)]
        if in_flight and metrics.e2e.mean > 0:
            found.append(MeasuredFigure(requests, math.log(in_flight / metrics.e2e.mean), POINT_NOISE_SD))
        return found
