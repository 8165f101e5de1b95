"""Whether any candidate that is left can meet the targets, from how far those tried are from them.

The figure is slack: the log of how many times slower a candidate could have been within its
targets, at the load where it is furthest inside, and negative where it misses them. It is predicted
where the closed form predicts, and what the predictions were off by on the candidates tried is
carried over to the others by the same Gaussian process that serves utilities.
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
"""Candidates that must have missed the targets before anything is said of the others."""

SLACK_NOISE_SD = 0.05
"""The standard deviation of a slack between launches: real ones differ by 2 to 6% (docs/explanation/search.md)."""

POSTERIOR_DRAWS, JITTER_VARIANCE = 2000, 1e-6


class Feasibility:
    """What the trials of a problem say about the targets."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.experiment = problem.experiment

    def any_feasible_probability(self, candidates: Sequence[Candidate], trials: Sequence[Trial]) -> float:
        """The probability that any of the candidates meets the targets; 1 where too little is known."""
        known = [(trial.candidate, value) for trial in trials if (value := self._measured_slack(trial)) is not None]
        if not self.experiment.slo.terms or len(known) < MIN_MISSED_TRIALS or max(value for _, value in known) >= 0:
            return 1.0
        predicted = {
            candidate.key: self._predicted_slack(candidate) for candidate in (*(c for c, _ in known), *candidates)
        }
        if None in predicted.values():
            centre = fmean(value for _, value in known)
            predicted = dict.fromkeys(predicted, centre)
        prior = {key: value for key, value in predicted.items() if value is not None}
        errors = np.array([value - prior[candidate.key] for candidate, value in known])
        shift = float(errors.mean())
        noise = np.full(len(known), SLACK_NOISE_SD)
        means, covariance = value_effect_posterior(
            [candidate for candidate, _ in known], errors - shift, noise, candidates
        )
        means = means + shift + np.array([prior[candidate.key] for candidate in candidates])
        root = np.linalg.cholesky((covariance + covariance.T) / 2 + JITTER_VARIANCE * np.eye(len(means)))
        draws = np.random.default_rng(self.problem.seed).standard_normal((POSTERIOR_DRAWS, len(means))) @ root.T
        return float(((means + draws).max(axis=1) >= 0).mean())

    def _measured_slack(self, trial: Trial) -> float | None:
        """The most that a trial was inside its targets on the scenario on which that is least; None without figures."""
        best: dict[str, float] = {}
        for result in trial.measurement.latest_results.values():
            judged = judge_load_point(result, trial.candidate.gpus, self.experiment)
            value = log_slack(judged, self.experiment) if judged.verdict in STEADY_STATE_VERDICTS else None
            if value is not None:
                scenario = result.load_point.scenario
                best[scenario] = max(value, best.get(scenario, -math.inf))
        return min(best.values(), default=None)

    def _predicted_slack(self, candidate: Candidate) -> float | None:
        """The same by the closed form, at the lightest load of each scenario; None where it has no answer."""
        lightest: dict[str, LoadPoint] = {}
        for point in self.experiment.workload().load_points:
            lightest.setdefault(point.scenario, point)
        values = [self._predicted_slack_at(candidate, point) for point in lightest.values()]
        known = [value for value in values if value is not None]
        return min(known) if known and len(known) == len(values) else None

    def _predicted_slack_at(self, candidate: Candidate, point: LoadPoint) -> float | None:
        prediction = self.problem.predict(candidate, point)
        if prediction is None:
            return None
        _, output = scenarios.parse(point.scenario).mean_lengths
        latency = prediction.ttft + max(0.0, output - 1) * prediction.tpot
        figures = {"ttft": prediction.ttft, "tpot": prediction.tpot, "itl": prediction.tpot, "latency": latency}
        terms = [term for term in self.experiment.slo.terms if term.metric in figures]
        return min((math.log(term.threshold / max(figures[term.metric], 1e-9)) for term in terms), default=None)
