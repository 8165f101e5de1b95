"""Probability that any untested candidate meets the targets, from the log slack of the tested ones.

Log slack is the log of the factor by which latencies could have been longer within the targets, at the load where it is
greatest; it is negative when they are missed. It is predicted where possible, and the residuals of the tested
candidates are carried over to the others by the Gaussian process of value_effects.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from autotuner.core import Candidate, LoadPoint, Trial
from autotuner.scoring.judge import judge_load_point
from autotuner.scoring.pool import STEADY_STATE_VERDICTS
from autotuner.search.margins import log_slack
from autotuner.search.problem import Problem
from autotuner.search.value_effects import value_effect_posterior
from autotuner.workload import scenarios

MIN_MISSED_TRIALS = 4
"""Trials that must have missed the targets before the search may end for that; chosen by hand."""

SLACK_NOISE_SD = 0.05
"""Standard deviation of log slack between launches of a candidate: real ones differ by 2 to 6% from day to day."""

POSTERIOR_DRAWS, JITTER_VARIANCE = 2000, 1e-6
"""As in racing.py."""


class Feasibility:
    """Posterior of the candidates' log slack on a problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.experiment = problem.experiment

    def any_feasible_probability(self, candidates: Sequence[Candidate], trials: Sequence[Trial]) -> float:
        """Posterior probability that any candidate meets the targets; 1 when a trial met them, or too few missed."""
        measured = [(trial.candidate, slack) for trial in trials if (slack := self._measured_slack(trial)) is not None]
        slacks = [slack for _, slack in measured]
        if not self.experiment.slo.terms or len(measured) < MIN_MISSED_TRIALS or max(slacks) >= 0:
            return 1.0
        measured_candidates = [candidate for candidate, _ in measured]
        predictions = {one.key: self._predicted_slack(one) for one in (*measured_candidates, *candidates)}
        if None in predictions.values():
            predictions = dict.fromkeys(predictions, fmean(slacks))
        prior_means = {key: slack for key, slack in predictions.items() if slack is not None}
        residuals = np.array([slack - prior_means[candidate.key] for candidate, slack in measured])
        offset = float(residuals.mean())
        noise_sd = np.full(len(measured), SLACK_NOISE_SD)
        means, covariance = value_effect_posterior(measured_candidates, residuals - offset, noise_sd, candidates)
        means = means + offset + np.array([prior_means[candidate.key] for candidate in candidates])
        root = np.linalg.cholesky((covariance + covariance.T) / 2 + JITTER_VARIANCE * np.eye(len(means)))
        draws = np.random.default_rng(self.problem.seed).standard_normal((POSTERIOR_DRAWS, len(means))) @ root.T
        return float(((means + draws).max(axis=1) >= 0).mean())

    def _measured_slack(self, trial: Trial) -> float | None:
        """Log slack of a trial: the best load point of each scenario, and of those the worst scenario."""
        best: dict[str, float] = {}
        for result in trial.measurement.latest_results.values():
            judged = judge_load_point(result, trial.candidate.gpus, self.experiment)
            slack = log_slack(judged, self.experiment) if judged.verdict in STEADY_STATE_VERDICTS else None
            if slack is not None:
                scenario = result.load_point.scenario
                best[scenario] = max(slack, best.get(scenario, -math.inf))
        return min(best.values(), default=None)

    def _predicted_slack(self, candidate: Candidate) -> float | None:
        """Predicted log slack at the lightest load of each scenario, the worst scenario; None without a prediction."""
        lightest: dict[str, LoadPoint] = {}
        for point in self.experiment.workload().load_points:
            lightest.setdefault(point.scenario, point)
        slacks = [self._predicted_slack_at(candidate, point) for point in lightest.values()]
        predicted = [slack for slack in slacks if slack is not None]
        return min(predicted) if predicted and len(predicted) == len(slacks) else None

    def _predicted_slack_at(self, candidate: Candidate, point: LoadPoint) -> float | None:
        """Least log(threshold / predicted mean) over the latency targets: positive where all are met."""
        prediction = self.problem.predict(candidate, point)
        if prediction is None:
            return None
        _, output = scenarios.parse(point.scenario).mean_lengths
        latency = prediction.ttft + max(0.0, output - 1) * prediction.tpot
        metrics = {"ttft": prediction.ttft, "tpot": prediction.tpot, "itl": prediction.tpot, "latency": latency}
        terms = [term for term in self.experiment.slo.terms if term.metric in metrics]
        return min((math.log(term.threshold / max(metrics[term.metric], 1e-9)) for term in terms), default=None)
