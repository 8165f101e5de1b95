"""Racing: predicted order, the incumbent to beat on every launch, and no launch for what cannot win."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autotuner.core import Candidate, Trial
from autotuner.errors import pluralize
from autotuner.experiment import Experiment
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.rank import Ranking, rank
from autotuner.search.account import SearchReport
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

UCB_Z = 1.64
"""Standard deviations to which an optimistic bound reaches: one in twenty is above it."""

STOP_PROBABILITY = 0.03
"""The chance of a worthwhile gain among all that is left at which the search ends."""

POSTERIOR_DRAWS, JITTER_VARIANCE = 2000, 1e-6
"""Joint draws from the belief, and the variance added to each so that they can be drawn."""

NEGLIGIBLE_GAIN = 0.02
"""A gain, as a share, that counts as none."""

FIRST_PROBE_FACTOR = 1.04
"""The part of the incumbent's capacity a candidate is tried at first."""

BRACKET_STEP_BOUNDS = (1.1, 2.0)
"""The shortest and the longest first step of a bracket."""


CONVERGED = f"converged: no untested candidate is predicted to be more than {WORTHWHILE_GAIN:.0%} better"
NONE_FEASIBLE = "no candidate that is left is likely to meet the targets"


@dataclass(frozen=True)
class Incumbent:
    """The best so far: its trial and, in the search's terms, the log of its utility."""

    trial: Trial
    log_utility: float


@dataclass(frozen=True)
class CandidateScores:
    """The candidates that may be asked for, what each promises, those left out with the reason; why none is left."""

    candidates: tuple[Candidate, ...]
    scores: np.ndarray
    skipped: tuple[tuple[Candidate, str], ...]
    stop_reason: str = "nothing that is left can work"


class RacingSearch:
    """Asks for candidates in the order of what is believed of them, and learns from every one.

    The belief is a prediction corrected by what was measured. Launched is what promises the
    greatest gain over the incumbent; once a worthwhile one is improbable among all that is left,
    nothing more is. Where nothing can be predicted it begins with an even spread, and believes that
    the effects of single values count for more than those of their combinations.
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
        self._launch_count = 0
        self._trials: list[Trial] = []

    @cached_property
    def posterior(self) -> Posterior:
        """What is expected of the candidates; predictions are made when they are first needed."""
        return Posterior(self.problem, self._candidates)

    def ask(self) -> Launch | None:
        """The most promising candidate that is left; None when none can win or no launch is left."""
        if self._exhausted_budget is not None:
            return None
        chances = self._score_candidates()
        if not chances.candidates:
            return None
        candidate = chances.candidates[int(np.argmax(chances.scores))]
        self._proposed_keys.add(candidate.key)
        self._launch_count += 1
        return Launch(candidate, load_plan=self.load_plan(candidate))

    def tell(self, trial: Trial) -> None:
        """Learn from a finished trial."""
        if trial.purpose == "confirmation":
            return
        if trial.candidate.key not in self._proposed_keys and trial.purpose == "search":
            self._launch_count += 1
        self._proposed_keys.add(trial.candidate.key)
        self._trials.append(trial)
        self._trials.sort(key=lambda told: told.number)
        self.exclusions.add(trial)

    @property
    def report(self) -> SearchReport:
        """Why it stopped, and what it left out."""
        chances = self._score_candidates()
        left, skipped = chances.candidates, chances.skipped
        if left and self._exhausted_budget is None:
            return SearchReport(None, skipped)
        if self._exhausted_budget is not None and left:
            return SearchReport(self._exhausted_budget, skipped)
        if skipped:
            return SearchReport(chances.stop_reason, skipped)
        return SearchReport("every candidate was tried")

    def load_plan(self, candidate: Candidate) -> LoadPlan | None:
        """The load points for a candidate, in view of what it has to beat."""
        incumbent = self._incumbent()
        if not self.experiment.benchmark.find_capacity:
            return IncumbentRace(self.experiment, candidate.gpus, incumbent.trial) if incumbent else None
        floor = (
            IncumbentUtility(incumbent.trial.number, _utility_by_scenario(incumbent.trial, self.experiment))
            if incumbent
            else None
        )
        starts = self._bracket_starts(candidate, incumbent)
        return CapacitySearch(self.experiment, candidate.gpus, starts, floor, stop_when_flat=True)

    @property
    def _exhausted_budget(self) -> str | None:
        """Why no more launches are made, though candidates are left."""
        if self._launch_count >= self.problem.max_launches:
            most = self.experiment.optimization.max_iterations
            return f"max_iterations allows {pluralize(most, 'launch', 'launches')}"
        patience = self.experiment.optimization.patience
        if patience is not None and self._launches_without_gain() >= patience:
            launches = pluralize(patience, "launch", "launches")
            return f"patience: {launches} in a row brought no gain above {NEGLIGIBLE_GAIN:.0%}"
        return None

    def _score_candidates(self) -> CandidateScores:
        """What may still be asked for, how much it promises, and what is left out with the reason."""
        open_ones = [candidate for candidate in self._candidates if candidate.key not in self._proposed_keys]
        against = [(candidate, why) for candidate in open_ones if (why := self.exclusions.exclusion_reason(candidate))]
        refused = {candidate.key for candidate, _ in against}
        left = tuple(candidate for candidate in open_ones if candidate.key not in refused)
        if not left:
            return CandidateScores((), np.zeros(0), tuple(against))
        means, shared = self.posterior.mean_and_covariance(left, self._trials)
        sds = np.sqrt(np.maximum(np.diag(shared), 0.0))
        odds = np.log([self.exclusions.success_probability(candidate) for candidate in left])
        incumbent = self._incumbent()
        if incumbent is None:
            if self._none_feasible(left):
                hopeless = [(candidate, "not expected to meet the targets") for candidate in left]
                return CandidateScores((), np.zeros(0), (*against, *hopeless), NONE_FEASIBLE)
            lean = 0.0 if self.posterior.has_predictions else 1.0
            return CandidateScores(left, means + lean * sds + odds, tuple(against))
        gains = np.maximum(
            self._posterior_draws(means, shared) - incumbent.log_utility - math.log(1 + WORTHWHILE_GAIN), 0.0
        )
        if (gains.max(axis=1) > 0).mean() > STOP_PROBABILITY:
            return CandidateScores(left, gains.mean(axis=0) * np.exp(odds), tuple(against))
        ratios = np.exp(means + UCB_Z * sds - incumbent.log_utility)
        hopeless = [
            (one, self._skip_reason(one, float(ratio), incumbent)) for one, ratio in zip(left, ratios, strict=True)
        ]
        return CandidateScores((), np.zeros(0), (*against, *hopeless), CONVERGED)

    def _none_feasible(self, candidates: Sequence[Candidate]) -> bool:
        """Whether no candidate met its targets, and none that is left is likely to."""
        return self.feasibility.any_feasible_probability(candidates, self._trials) <= STOP_PROBABILITY

    def _skip_reason(self, candidate: Candidate, upper_ratio: float, incumbent: Incumbent) -> str:
        known = self.posterior.forecasts.forecast(candidate) is not None
        if not known and self.posterior.is_predicted(candidate):
            return "predicted: the model does not fit"
        how = "predicted" if known else "by what like it came to"
        return f"{how}: at best {upper_ratio:.2f} times as good as trial {incumbent.trial.number}"

    def _posterior_draws(self, means: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """Log utilities of all candidates drawn together, the same ones for the same belief."""
        root = np.linalg.cholesky((covariance + covariance.T) / 2 + JITTER_VARIANCE * np.eye(len(means)))
        draws = np.random.default_rng(self.problem.seed).standard_normal((POSTERIOR_DRAWS, len(means)))
        found: np.ndarray = means + draws @ root.T
        return found

    def _incumbent(self) -> Incumbent | None:
        winner = self._rank(self._trials).winner
        if winner is None:
            return None
        trial = next(trial for trial in self._trials if trial.number == winner.trial_number)
        worth = self.posterior.log_utility(trial)
        return None if worth is None else Incumbent(trial, worth)

    def _rank(self, trials: Sequence[Trial]) -> Ranking:
        return rank(trials, self.experiment, prefer_defaults=False)

    def _launches_without_gain(self) -> int:
        """How many of the last trials did not beat what was best before them."""
        best, count = -math.inf, 0
        for position, trial in enumerate(self._trials, start=1):
            winner = self._rank(self._trials[:position]).winner
            worth = self.posterior.log_utility(trial) if winner and winner.trial_number == trial.number else None
            if worth is not None and worth > best + NEGLIGIBLE_GAIN:
                best, count = worth, 0
            else:
                count += 1
        return count

    def _bracket_starts(self, candidate: Candidate, incumbent: Incumbent | None) -> dict[str, BracketStart]:
        """Where each capacity is looked for first: what has to be beaten, or what is believed if that is well above."""
        expected = self.posterior.forecasts.forecast(candidate)
        mean, sd = 0.0, 0.0
        if expected:
            (mean,), ((variance,),) = self.posterior.mean_and_covariance([candidate], self._trials)
            sd = math.sqrt(max(variance, 0.0))
        step = min(max(math.exp(sd), BRACKET_STEP_BOUNDS[0]), BRACKET_STEP_BOUNDS[1])
        likely = expected is not None and (incumbent is None or mean - sd / 2 > incumbent.log_utility)
        starts = {}
        for scenario in self.experiment.benchmark.traffic_scenarios:
            believed = _corrected_capacity(expected, mean, scenario)
            if incumbent is not None:
                needed = self._load_to_beat(candidate, incumbent.trial, scenario)
                starts[scenario] = BracketStart(max(believed, needed), step) if likely else BracketStart(needed, 1.25)
            elif expected is not None:
                starts[scenario] = BracketStart(believed, step)
        return starts

    def _load_to_beat(self, candidate: Candidate, incumbent: Trial, scenario: str) -> float:
        """The load at which a candidate is about level with the incumbent, and a little more."""
        found = next(c for c in incumbent.measurement.outcome.capacities if c.scenario == scenario)
        share = candidate.gpus / incumbent.candidate.gpus if self.objective.name != "maximize_goodput" else 1.0
        load = found.value * share * FIRST_PROBE_FACTOR
        return float(math.ceil(load)) if found.unit == "concurrency" else load


def _corrected_capacity(expected: CandidateForecast | None, mean: float, scenario: str) -> float:
    """The expected capacity, corrected by as much as the utility is."""
    if expected is None:
        return 0.0
    return expected.capacities[scenario] * math.exp(mean) / expected.utility


def _utility_by_scenario(trial: Trial, experiment: Experiment) -> dict[str, float]:
    """The steady utility at each scenario's capacity."""
    found = {}
    for capacity in trial.measurement.outcome.capacities:
        for result in trial.measurement.load_points:
            value = steady_state_utility(result, trial.candidate.gpus, experiment)
            if result.load_point == capacity.load_point and value is not None:
                found[capacity.scenario] = value
    return found
