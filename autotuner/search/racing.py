"""Racing: predicted order, the incumbent to beat on every launch, and no launch for what cannot win."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autotuner.core import Candidate, Trial
from autotuner.errors import counted
from autotuner.experiment import Experiment
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.rank import Ranking, rank
from autotuner.search.account import Account
from autotuner.search.capacity import WORTH, CapacityCourse, Floor, Start
from autotuner.search.exclusions import Lessons
from autotuner.search.feasibility import Feasibility
from autotuner.search.forecast import Expectation
from autotuner.search.grid import CONSIDERED_AT_MOST, evenly
from autotuner.search.incumbent import RacedCourse
from autotuner.search.launch import Course, Launch
from autotuner.search.margins import steady
from autotuner.search.posterior import Outlook
from autotuner.search.problem import Problem

SURE = 1.64
"""Standard deviations to which an optimistic bound reaches: one in twenty is above it."""

RISK = 0.03
"""The chance of a worthwhile gain among all that is left at which the search ends."""

DRAWS, JITTER = 2000, 1e-6
"""Joint draws from the belief, and the variance added to each so that they can be drawn."""

NOISE = 0.02
"""A gain, as a share, that counts as none."""

ABOVE = 1.04
"""The part of the incumbent's capacity a candidate is tried at first."""

STEPS = (1.1, 2.0)
"""The shortest and the longest first step of a bracket."""


CONVERGED = f"converged: no untested candidate is predicted to be more than {WORTH:.0%} better"
NONE_FEASIBLE = "no candidate that is left is likely to meet the targets"


@dataclass(frozen=True)
class Incumbent:
    """The best so far: its trial and, in the search's terms, the log of its utility."""

    trial: Trial
    worth: float


@dataclass(frozen=True)
class Chances:
    """The candidates that may be asked for, what each promises, those left out with the reason; why none is left."""

    left: tuple[Candidate, ...]
    promise: np.ndarray
    skipped: tuple[tuple[Candidate, str], ...]
    ended: str = "nothing that is left can work"


class Racing:
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
        self.lessons = Lessons()
        self.feasibility = Feasibility(problem)
        pool = problem.space.candidates
        self._order = evenly(pool, min(len(pool), CONSIDERED_AT_MOST), problem.seed)
        self._asked: set[str] = set()
        self._searched = 0
        self._told: list[Trial] = []

    @cached_property
    def outlook(self) -> Outlook:
        """What is expected of the candidates; predictions are made when they are first needed."""
        return Outlook(self.problem, self._order)

    def ask(self) -> Launch | None:
        """The most promising candidate that is left; None when none can win or no launch is left."""
        if self._spent is not None:
            return None
        chances = self._chances()
        if not chances.left:
            return None
        candidate = chances.left[int(np.argmax(chances.promise))]
        self._asked.add(candidate.key)
        self._searched += 1
        return Launch(candidate, course=self.course(candidate))

    def tell(self, trial: Trial) -> None:
        """Learn from a finished trial."""
        if trial.purpose == "confirmation":
            return
        if trial.candidate.key not in self._asked and trial.purpose == "search":
            self._searched += 1
        self._asked.add(trial.candidate.key)
        self._told.append(trial)
        self._told.sort(key=lambda told: told.number)
        self.lessons.take(trial)

    @property
    def account(self) -> Account:
        """Why it stopped, and what it left out."""
        chances = self._chances()
        left, skipped = chances.left, chances.skipped
        if left and self._spent is None:
            return Account(None, skipped)
        if self._spent is not None and left:
            return Account(self._spent, skipped)
        if skipped:
            return Account(chances.ended, skipped)
        return Account("every candidate was tried")

    def course(self, candidate: Candidate) -> Course | None:
        """The load points for a candidate, in view of what it has to beat."""
        incumbent = self._incumbent()
        if not self.experiment.benchmark.find_capacity:
            return RacedCourse(self.experiment, candidate.gpus, incumbent.trial) if incumbent else None
        floor = Floor(incumbent.trial.number, _by_scenario(incumbent.trial, self.experiment)) if incumbent else None
        starts = self._starts(candidate, incumbent)
        return CapacityCourse(self.experiment, candidate.gpus, starts, floor, by_utility=True)

    @property
    def _spent(self) -> str | None:
        """Why no more launches are made, though candidates are left."""
        if self._searched >= self.problem.limit:
            most = self.experiment.optimization.max_iterations
            return f"max_iterations allows {counted(most, 'launch', 'launches')}"
        patience = self.experiment.optimization.patience
        if patience is not None and self._without_gain() >= patience:
            launches = counted(patience, "launch", "launches")
            return f"patience: {launches} in a row brought no gain above {NOISE:.0%}"
        return None

    def _chances(self) -> Chances:
        """What may still be asked for, how much it promises, and what is left out with the reason."""
        open_ones = [candidate for candidate in self._order if candidate.key not in self._asked]
        against = [(candidate, why) for candidate in open_ones if (why := self.lessons.against(candidate))]
        refused = {candidate.key for candidate, _ in against}
        left = tuple(candidate for candidate in open_ones if candidate.key not in refused)
        if not left:
            return Chances((), np.zeros(0), tuple(against))
        means, shared = self.outlook.of(left, self._told)
        sds = np.sqrt(np.maximum(np.diag(shared), 0.0))
        odds = np.log([self.lessons.chance(candidate) for candidate in left])
        incumbent = self._incumbent()
        if incumbent is None:
            if self._infeasible(left):
                hopeless = [(candidate, "not expected to meet the targets") for candidate in left]
                return Chances((), np.zeros(0), (*against, *hopeless), NONE_FEASIBLE)
            lean = 0.0 if self.outlook.predicts else 1.0
            return Chances(left, means + lean * sds + odds, tuple(against))
        gains = np.maximum(self._drawn(means, shared) - incumbent.worth - math.log(1 + WORTH), 0.0)
        if (gains.max(axis=1) > 0).mean() > RISK:
            return Chances(left, gains.mean(axis=0) * np.exp(odds), tuple(against))
        ratios = np.exp(means + SURE * sds - incumbent.worth)
        hopeless = [(one, self._no_hope(one, float(ratio), incumbent)) for one, ratio in zip(left, ratios, strict=True)]
        return Chances((), np.zeros(0), (*against, *hopeless), CONVERGED)

    def _infeasible(self, left: Sequence[Candidate]) -> bool:
        """Whether no candidate met its targets, and none that is left is likely to."""
        return self.feasibility.chance(left, self._told) <= RISK

    def _no_hope(self, candidate: Candidate, ratio: float, incumbent: Incumbent) -> str:
        known = self.outlook.prior.expect(candidate) is not None
        if not known and self.outlook.predicted(candidate):
            return "predicted: the model does not fit"
        how = "predicted" if known else "by what like it came to"
        return f"{how}: at best {ratio:.2f} times as good as trial {incumbent.trial.number}"

    def _drawn(self, means: np.ndarray, shared: np.ndarray) -> np.ndarray:
        """Log utilities of all candidates drawn together, the same ones for the same belief."""
        root = np.linalg.cholesky((shared + shared.T) / 2 + JITTER * np.eye(len(means)))
        draws = np.random.default_rng(self.problem.seed).standard_normal((DRAWS, len(means)))
        found: np.ndarray = means + draws @ root.T
        return found

    def _incumbent(self) -> Incumbent | None:
        winner = self._rank(self._told).winner
        if winner is None:
            return None
        trial = next(trial for trial in self._told if trial.number == winner.trial)
        worth = self.outlook.worth(trial)
        return None if worth is None else Incumbent(trial, worth)

    def _rank(self, trials: Sequence[Trial]) -> Ranking:
        return rank(trials, self.experiment, prefer_defaults=False)

    def _without_gain(self) -> int:
        """How many of the last trials did not beat what was best before them."""
        best, count = -math.inf, 0
        for position, trial in enumerate(self._told, start=1):
            winner = self._rank(self._told[:position]).winner
            worth = self.outlook.worth(trial) if winner and winner.trial == trial.number else None
            if worth is not None and worth > best + NOISE:
                best, count = worth, 0
            else:
                count += 1
        return count

    def _starts(self, candidate: Candidate, incumbent: Incumbent | None) -> dict[str, Start]:
        """Where each capacity is looked for first: what has to be beaten, or what is believed if that is well above."""
        expected = self.outlook.prior.expect(candidate)
        mean, sd = 0.0, 0.0
        if expected:
            (mean,), ((variance,),) = self.outlook.of([candidate], self._told)
            sd = math.sqrt(max(variance, 0.0))
        step = min(max(math.exp(sd), STEPS[0]), STEPS[1])
        likely = expected is not None and (incumbent is None or mean - sd / 2 > incumbent.worth)
        starts = {}
        for scenario in self.experiment.benchmark.traffic_scenarios:
            believed = _load(expected, mean, scenario)
            if incumbent is not None:
                needed = self._needed(candidate, incumbent.trial, scenario)
                starts[scenario] = Start(max(believed, needed), step) if likely else Start(needed, 1.25)
            elif expected is not None:
                starts[scenario] = Start(believed, step)
        return starts

    def _needed(self, candidate: Candidate, incumbent: Trial, scenario: str) -> float:
        """The load at which a candidate is about level with the incumbent, and a little more."""
        found = next(c for c in incumbent.measurement.outcome.capacities if c.scenario == scenario)
        share = candidate.gpus / incumbent.candidate.gpus if self.objective.name != "maximize_goodput" else 1.0
        load = found.value * share * ABOVE
        return float(math.ceil(load)) if found.unit == "concurrency" else load


def _load(expected: Expectation | None, mean: float, scenario: str) -> float:
    """The expected capacity, corrected by as much as the utility is."""
    if expected is None:
        return 0.0
    return expected.loads[scenario] * math.exp(mean) / expected.utility


def _by_scenario(trial: Trial, experiment: Experiment) -> dict[str, float]:
    """The steady utility at each scenario's capacity."""
    found = {}
    for capacity in trial.measurement.outcome.capacities:
        for result in trial.measurement.load_points:
            value = steady(result, trial.candidate.gpus, experiment)
            if result.load_point == capacity.load_point and value is not None:
                found[capacity.scenario] = value
    return found
