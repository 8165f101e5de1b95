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
from autotuner.scoring.pool import STEADY
from autotuner.scoring.rank import rank
from autotuner.search.forecast import DOUBTED, Prior
from autotuner.search.problem import Problem
from autotuner.search.surrogate import Belief, Figure, Seen

PRIOR_SD = 0.2
"""The deviation that the log costs of operators are taken to have at first."""

LEVELS = {"ttft": 3.0}
"""The deviation of what all predictions of a figure are off by alike, PRIOR_SD being 1: 60% for a TTFT.

Of models that no constant was fitted to it is off by 33% in the mean (docs/explanation/prediction.md), and by a
factor of two in 4 of 48 simulated worlds (benchmarks/scoring/long_runs.py), in which searches ended at once.
"""

LEVEL_STEP = 0.1
"""A change of the log of a level for which all candidates are predicted again."""

ROUGH = 2.0
"""By how much less is known of a prediction of which it is not known what it depends on, as a factor."""

CLOSELY = 200
"""Candidates of which that is found out: those with the best predictions."""

LAUNCH_NOISE = {"measured": 0.04, "simulated": 0.02, "predicted": 0.0}
"""The deviation between launches of one candidate: real ones differ by 2 to 6% from day to day."""

POINT_NOISE, CEILING_NOISE = 0.03, 0.05
"""Deviations of logs that are measured, besides: at one load point, and of what was given up."""

MISSED_NOISE = 0.5
"""The same where no load met the targets: its utility at the lowest one is no measure of how far off it is."""

LEAST_REQUESTS = 20
"""Requests of a load point below which its means say little."""


class Outlook:
    """Expected utilities of candidates, corrected by every load point that was measured."""

    def __init__(self, problem: Problem, pool: Sequence[Candidate]) -> None:
        self.problem = problem
        self.experiment: Experiment = problem.experiment
        self.objective = OBJECTIVES[problem.experiment.optimization.objective]
        self.prior = Prior(problem)
        self._pool = tuple(pool)
        self._expect()

    def _expect(self) -> None:
        """Predict the utility of every candidate of the pool."""
        known = {candidate.key: found.utility for candidate in self._pool if (found := self.prior.expect(candidate))}
        self._roughly = set(sorted(known, key=lambda key: -known[key])[CLOSELY:])
        self._usual = sorted(math.log(value) for value in known.values())
        self.predicts = bool(known)

    def _calibrate(self, trials: Sequence[Trial]) -> None:
        """Where a target asks for TTFTs, expect them at the level at which they were measured."""
        if not any(term.metric in ("ttft", "latency") for term in self.experiment.slo.terms):
            return
        ratios = [ratio for trial in trials if not trial.failed for ratio in self._ttft_ratios(trial)]
        level = math.exp(median(ratios)) if ratios else 1.0
        if abs(math.log(level / self.prior.ttft_level)) > LEVEL_STEP:
            self.prior.set_ttft_level(level)
            self._expect()

    def _ttft_ratios(self, trial: Trial) -> Iterator[float]:
        """The log of measured over predicted TTFT at each load point whose figures are steady."""
        for point, result in trial.measurement.latest.items():
            measured = result.metrics.ttft_from_schedule if point.rate else result.metrics.ttft
            predicted = self.problem.predict(trial.candidate, point)
            if measured and predicted and measured.mean > 0 and predicted.ttft > 0 and result.verdict in STEADY:
                yield math.log(measured.mean / predicted.ttft)

    def predicted(self, candidate: Candidate) -> bool:
        """Whether something is predicted of it, be it that it does not fit."""
        return self.prior.expect(candidate) is not None or (self.predicts and not self.problem.holds(candidate))

    def of(self, candidates: Sequence[Candidate], told: Sequence[Trial]) -> tuple[np.ndarray, np.ndarray]:
        """(means, covariance) of the log utilities of candidates after trials."""
        self._calibrate(told)
        worths = [worth for trial in told if (worth := self.worth(trial)) is not None]
        usual = self._usual or sorted(worths) or [0.0]
        middle = usual[len(usual) // 2]
        belief = Belief(PRIOR_SD, tuple(seen for trial in told for seen in self._seen(trial, middle)))
        for trial in told:
            ceiling = trial.measurement.outcome.ceiling
            if ceiling and self.worth(trial) is None:
                figure = self._figure(trial.candidate, middle)
                if belief.of([figure])[0][0] > math.log(ceiling):
                    belief = Belief(PRIOR_SD, (*belief.seen, Seen(figure, math.log(ceiling), CEILING_NOISE)))
        return belief.of([self._figure(candidate, middle) for candidate in candidates])

    def worth(self, trial: Trial) -> float | None:
        """The log utility a trial showed; None where it failed or was given up."""
        standing = rank([trial], self.experiment).standings
        if not standing or standing[0].verdict is None or not standing[0].value:
            return None
        met = standing[0].verdict in (Verdict.FEASIBLE, Verdict.UNDECIDED)
        doubt = 1.0 if met or not self.experiment.benchmark.find_capacity else DOUBTED
        return math.log(self.objective.utility(standing[0].value) * doubt)

    def _met(self, trial: Trial) -> bool:
        """Whether there is a load at which it met its targets, or capacities were not looked for."""
        capacities = trial.measurement.outcome.capacities
        return all(capacity.value > 0 for capacity in capacities)

    def _figure(self, candidate: Candidate, middle: float) -> Figure:
        """The expected utility; a guess where nothing is predicted, and a low one for what is not expected to fit."""
        expected = self.prior.expect(candidate)
        none = (0.0,) * len(self.prior.kinds)
        if expected is not None:
            found = None if candidate.key in self._roughly else self.prior.utility(candidate)
            figure = found or Figure(candidate, "utility", math.log(expected.utility), none, ROUGH)
            return replace(figure, level=LEVELS.get(self.objective.metric, 0.0))
        if self.predicted(candidate):
            return Figure(candidate, "utility", self._usual[0] + math.log(DOUBTED), none)
        return Figure(candidate, "utility", middle, none, guess=True)

    def _seen(self, trial: Trial, middle: float) -> list[Seen]:
        """What a trial says: of its utility, and of the times at each of its load points."""
        if trial.failed:
            return []
        worth = self.worth(trial)
        figure = self._figure(trial.candidate, middle)
        noise = LAUNCH_NOISE[trial.measurement.source] if self._met(trial) else MISSED_NOISE
        found = [] if worth is None else [Seen(figure, worth, noise)]
        if self.prior.expect(trial.candidate) is None:
            return found
        last = {result.load_point: result for result in trial.measurement.load_points}
        return found + [seen for result in last.values() for seen in self._at(trial.candidate, result)]

    def _at(self, candidate: Candidate, result: LoadPointResult) -> list[Seen]:
        metrics, in_flight = result.metrics, result.load_point.concurrency
        if not metrics.tpot or not metrics.e2e or not metrics.tpot.mean or metrics.requests < LEAST_REQUESTS:
            return []
        expected = self.prior.at(candidate, result.load_point)
        if expected is None:
            return []
        tpot, requests = expected
        found = [Seen(tpot, math.log(metrics.tpot.mean), POINT_NOISE)]
        if in_flight and metrics.e2e.mean > 0:
            found.append(Seen(requests, math.log(in_flight / metrics.e2e.mean), POINT_NOISE))
        return found
