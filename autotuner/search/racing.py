"""Racing: launch by expected improvement over the incumbent, prune what loses, stop when nothing is likely to win."""

from __future__ import annotations

import logging
import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autotuner.core import Candidate, Trial
from autotuner.errors import pluralize
from autotuner.experiment import Experiment
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.rank import Ranking, rank
from autotuner.search.capacity import WORTHWHILE_GAIN, BracketStart, CapacitySearch, IncumbentUtility
from autotuner.search.exclusions import Exclusions
from autotuner.search.feasibility import Feasibility
from autotuner.search.forecast import CandidateForecast
from autotuner.search.grid import MAX_CONSIDERED, balanced_order
from autotuner.search.incumbent import IncumbentRace
from autotuner.search.launch import Launch, LoadPlan
from autotuner.search.margins import steady_state_utility
from autotuner.search.posterior import Posterior
from autotuner.search.problem import Problem
from autotuner.search.protocol import SearchReport

log = logging.getLogger(__name__)

UCB_Z = 1.64
"""Upper confidence bound, one-sided 95%, that a skipped candidate is reported with."""

STOP_PROBABILITY = 0.03
"""The search ends when a worthwhile gain, or a feasible candidate, is less likely; chosen by hand, 0.05 before."""

POSTERIOR_DRAWS, JITTER_VARIANCE = 2000, 1e-6
"""Joint posterior draws: 0.4 points of error at STOP_PROBABILITY; variance added so that a Cholesky factor exists."""

NEGLIGIBLE_GAIN = 0.02
"""Relative gain that does not reset `patience`; chosen by hand."""

FIRST_PROBE_FACTOR = 1.04
"""First load of a candidate over the incumbent's capacity per GPU: WORTHWHILE_GAIN above it."""

BRACKET_STEP_BOUNDS = (1.1, 2.0)
"""Bounds of the first step of a bracket, else one posterior standard deviation; chosen by hand."""

CONVERGED = f"converged: no untested candidate is predicted to be more than {WORTHWHILE_GAIN:.0%} better"
ALL_FAILED = "every launch failed, and the untested candidates are expected to fail the same way"
NONE_FEASIBLE = "infeasible: no untested candidate is likely to meet the targets"


@dataclass(frozen=True)
class Incumbent:
    """The best trial so far."""

    trial: Trial
    log_utility: float


@dataclass(frozen=True)
class CandidateScores:
    """Acquisition value of each candidate worth launching, and the skipped ones with their reasons.

    Without candidates `stop_reason` says why none is left.
    """

    candidates: tuple[Candidate, ...]
    scores: np.ndarray
    skipped: tuple[tuple[Candidate, str], ...]
    stop_reason: str = "no untested candidate can run"


class RacingSearch:
    """Proposes the candidate of greatest expected improvement over the incumbent.

    The posterior is a prediction corrected by the measurements. The search ends when a gain of WORTHWHILE_GAIN is
    improbable among all untested candidates. Without predictions it starts with a balanced set of candidates and an
    additive model of parameter values.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.experiment = problem.experiment
        self.objective = OBJECTIVES[problem.experiment.optimization.objective]
        self.exclusions = Exclusions()
        self.feasibility = Feasibility(problem)
        pool = problem.space.candidates
        self._candidates = balanced_order(pool, min(len(pool), MAX_CONSIDERED), problem.seed)
        self._proposed_keys: set[str] = set()
        self._running_candidates: dict[str, Candidate] = {}
        self._launch_count = 0
        self._trials: list[Trial] = []

    @cached_property
    def posterior(self) -> Posterior:
        """Posterior of the candidates' log utility; made lazily, as it predicts all of them."""
        return Posterior(self.problem, self._candidates)

    def preview(self) -> tuple[Launch, ...]:
        """The candidates by predicted utility."""
        scored = self._score_candidates()
        order = np.argsort(-scored.scores, kind="stable")[: max(self.problem.max_launches, 0)]
        return tuple(Launch(scored.candidates[index]) for index in order)

    def ask(self) -> Launch | None:
        """The candidate with the greatest acquisition value; None when none is likely to win, or at a budget's end."""
        if self._exhausted_budget is not None:
            return None
        scored = self._score_candidates()
        if not scored.candidates:
            return None
        best = int(np.argmax(scored.scores))
        candidate = scored.candidates[best]
        log.debug(
            "next %s: acquisition value %.3g, the highest of %d",
            dict(candidate.parameters),
            scored.scores[best],
            len(scored.scores),
        )
        self._proposed_keys.add(candidate.key)
        self._running_candidates[candidate.key] = candidate
        self._launch_count += 1
        return Launch(candidate, load_plan=self.load_plan(candidate))

    def tell(self, trial: Trial) -> None:
        """Record a finished trial; confirmations do not count, as they say nothing about other candidates."""
        if trial.purpose == "confirmation":
            return
        if trial.candidate.key not in self._proposed_keys and trial.purpose == "search":
            self._launch_count += 1
        self._proposed_keys.add(trial.candidate.key)
        self._running_candidates.pop(trial.candidate.key, None)
        insort(self._trials, trial, key=lambda trial: trial.number)
        self.exclusions.add(trial)

    @property
    def report(self) -> SearchReport:
        """Why the search stopped, None while it goes on, and the skipped candidates."""
        scored = self._score_candidates()
        if scored.candidates:
            return SearchReport(self._exhausted_budget, scored.skipped)
        if scored.skipped:
            all_failed = bool(self._trials) and all(trial.failed for trial in self._trials)
            return SearchReport(ALL_FAILED if all_failed else scored.stop_reason, scored.skipped)
        return SearchReport("every candidate was tried")

    def load_plan(self, candidate: Candidate) -> LoadPlan | None:
        """Load plan that prunes the candidate against the incumbent; None for the experiment's own load points."""
        incumbent = self._incumbent()
        if not self.experiment.benchmark.find_capacity:
            return IncumbentRace(self.experiment, candidate.gpus, incumbent.trial) if incumbent else None
        utility = None
        if incumbent:
            by_scenario = _utility_by_scenario(incumbent.trial, self.experiment)
            utility = IncumbentUtility(incumbent.trial.number, by_scenario)
        starts = self._bracket_starts(candidate, incumbent)
        return CapacitySearch(self.experiment, candidate.gpus, starts, utility, stop_when_flat=True)

    @property
    def _exhausted_budget(self) -> str | None:
        """Which budget ends the search; None while none does."""
        if self._launch_count >= self.problem.max_launches:
            max_iterations = self.experiment.optimization.max_iterations
            return f"max_iterations allows {pluralize(max_iterations, 'launch', 'launches')}"
        patience = self.experiment.optimization.patience
        if patience is not None and self._launches_without_gain() >= patience:
            launches = pluralize(patience, "launch", "launches")
            return f"patience: {launches} in a row brought no gain above {NEGLIGIBLE_GAIN:.0%}"
        return None

    def _score_candidates(self) -> CandidateScores:
        """Expected improvement times the probability of not crashing; before an incumbent, log utility or its UCB."""
        untested = [candidate for candidate in self._candidates if candidate.key not in self._proposed_keys]
        reasons = [(candidate, self.exclusions.exclusion_reason(candidate)) for candidate in untested]
        excluded = tuple((candidate, reason) for candidate, reason in reasons if reason)
        candidates = tuple(candidate for candidate, reason in reasons if not reason)
        if not candidates:
            return CandidateScores((), np.zeros(0), excluded)
        means, covariance, best_running = self._posterior_beside_running(candidates)
        sds = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        log_success = np.log([self.exclusions.success_probability(candidate) for candidate in candidates])
        incumbent = self._incumbent()
        if incumbent is None:
            if self._none_feasible(candidates):
                hopeless = [(candidate, "not expected to meet the targets") for candidate in candidates]
                return CandidateScores((), np.zeros(0), (*excluded, *hopeless), NONE_FEASIBLE)
            # one standard deviation of optimism (UCB) without predictions: chosen by hand
            optimism = 0.0 if self.posterior.has_predictions else 1.0
            return CandidateScores(candidates, means + optimism * sds + log_success, excluded)
        log_ratios = self._posterior_draws(means, covariance) - max(incumbent.log_utility, best_running)
        improvements = np.maximum(log_ratios - math.log(1 + WORTHWHILE_GAIN), 0.0)
        if (improvements.max(axis=1) > 0).mean() > STOP_PROBABILITY:
            return CandidateScores(candidates, improvements.mean(axis=0) * np.exp(log_success), excluded)
        upper_ratios = np.exp(means + UCB_Z * sds - incumbent.log_utility)
        pairs = zip(candidates, upper_ratios, strict=True)
        hopeless = [(candidate, self._skip_reason(candidate, float(ratio), incumbent)) for candidate, ratio in pairs]
        return CandidateScores((), np.zeros(0), (*excluded, *hopeless), CONVERGED)

    def _posterior_beside_running(self, candidates: Sequence[Candidate]) -> tuple[np.ndarray, np.ndarray, float]:
        """Posterior (means, covariance) of the log utilities, and the highest mean of the launches still running.

        Those count as measured at their means, which leaves other means as they are (a kriging believer): a
        candidate that resembles them has less left to show.
        """
        running = tuple(self._running_candidates.values())
        means, covariance = self.posterior.mean_and_covariance((*candidates, *running), self._trials)
        if not running:
            return means, covariance, -math.inf
        n = len(candidates)
        cross = covariance[:n, n:]
        running_covariance = covariance[n:, n:] + JITTER_VARIANCE * np.eye(len(running))
        explained = cross @ np.linalg.solve(running_covariance, cross.T)
        return means[:n], covariance[:n, :n] - explained, float(means[n:].max())

    def _none_feasible(self, candidates: Sequence[Candidate]) -> bool:
        return self.feasibility.any_feasible_probability(candidates, self._trials) <= STOP_PROBABILITY

    def _skip_reason(self, candidate: Candidate, upper_ratio: float, incumbent: Incumbent) -> str:
        """Why a candidate is not launched; `upper_ratio` bounds its utility relative to the incumbent's."""
        has_forecast = self.posterior.forecasts.forecast(candidate) is not None
        if not has_forecast and self.posterior.is_predicted(candidate):
            return "predicted: the model does not fit"
        basis = "predicted" if has_forecast else "estimated from similar candidates"
        return f"{basis}: at most {upper_ratio:.2f}x the utility of trial {incumbent.trial.number}"

    def _posterior_draws(self, means: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """Seeded joint draws of all candidates' log utilities, of shape (POSTERIOR_DRAWS, candidates)."""
        root = np.linalg.cholesky((covariance + covariance.T) / 2 + JITTER_VARIANCE * np.eye(len(means)))
        normals = np.random.default_rng(self.problem.seed).standard_normal((POSTERIOR_DRAWS, len(means)))
        draws: np.ndarray = means + normals @ root.T
        return draws

    def _incumbent(self) -> Incumbent | None:
        """The best candidate launched so far, and its log utility; None while none meets its targets."""
        winner = self._rank(self._trials).winner
        if winner is None:
            return None
        trial = next(trial for trial in self._trials if trial.number == winner.trial_number)
        log_utility = self.posterior.log_utility(trial)
        return None if log_utility is None else Incumbent(trial, log_utility)

    def _rank(self, trials: Sequence[Trial]) -> Ranking:
        return rank(trials, self.experiment, prefer_defaults=False)

    def _launches_without_gain(self) -> int:
        """How many of the latest trials in a row did not beat the best before them by NEGLIGIBLE_GAIN."""
        best, count = -math.inf, 0
        for position, trial in enumerate(self._trials, start=1):
            winner = self._rank(self._trials[:position]).winner
            is_winner = winner is not None and winner.trial_number == trial.number
            log_utility = self.posterior.log_utility(trial) if is_winner else None
            if log_utility is not None and log_utility > best + NEGLIGIBLE_GAIN:
                best, count = log_utility, 0
            else:
                count += 1
        return count

    def _bracket_starts(self, candidate: Candidate, incumbent: Incumbent | None) -> dict[str, BracketStart]:
        """First load and step by scenario: the load to beat, or the posterior capacity if that is clearly above it."""
        forecast = self.posterior.forecasts.forecast(candidate)
        mean, sd = 0.0, 0.0
        if forecast:
            (mean,), ((variance,),) = self.posterior.mean_and_covariance([candidate], self._trials)
            sd = math.sqrt(max(variance, 0.0))
        step = min(max(math.exp(sd), BRACKET_STEP_BOUNDS[0]), BRACKET_STEP_BOUNDS[1])
        is_likely_better = forecast is not None and (incumbent is None or mean - sd / 2 > incumbent.log_utility)
        starts = {}
        for scenario in self.experiment.benchmark.traffic_scenarios:
            capacity = _corrected_capacity(forecast, mean, scenario)
            if incumbent is None:
                if forecast is not None:
                    starts[scenario] = BracketStart(capacity, step)
                continue
            # a first step of 1.25 where it is likely to lose: chosen by hand
            load = self._load_to_beat(candidate, incumbent.trial, scenario)
            starts[scenario] = BracketStart(max(capacity, load), step) if is_likely_better else BracketStart(load, 1.25)
        return starts

    def _load_to_beat(self, candidate: Candidate, incumbent: Trial, scenario: str) -> float:
        """FIRST_PROBE_FACTOR times the incumbent's capacity, per GPU where the objective is."""
        capacity = next(c for c in incumbent.measurement.outcome.capacities if c.scenario == scenario)
        gpu_ratio = candidate.gpus / incumbent.candidate.gpus if self.objective.is_per_gpu else 1.0
        load = capacity.value * gpu_ratio * FIRST_PROBE_FACTOR
        return float(math.ceil(load)) if capacity.unit == "concurrency" else load


def _corrected_capacity(forecast: CandidateForecast | None, mean: float, scenario: str) -> float:
    """The predicted capacity times the ratio of posterior to predicted utility; `mean` is the log of the former."""
    if forecast is None:
        return 0.0
    return forecast.capacities[scenario] * math.exp(mean) / forecast.utility


def _utility_by_scenario(trial: Trial, experiment: Experiment) -> dict[str, float]:
    """Steady-state utility of a trial at its capacity on each scenario."""
    utilities = {}
    for capacity in trial.measurement.outcome.capacities:
        for result in trial.measurement.load_points:
            value = steady_state_utility(result, trial.candidate.gpus, experiment)
            if result.load_point == capacity.load_point and value is not None:
                utilities[capacity.scenario] = value
    return utilities
