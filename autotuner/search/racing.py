"""Racing: predicted order, the incumbent to beat on every launch, and no launch for what cannot win."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.core import Candidate, Trial, Verdict
from autotuner.experiment import Experiment
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.rank import Ranking, rank
from autotuner.search.account import Account
from autotuner.search.belief import Belief, Given
from autotuner.search.capacity import CapacityCourse, Floor, Start, steady
from autotuner.search.grid import CONSIDERED_AT_MOST, evenly
from autotuner.search.launch import Course, Launch
from autotuner.search.lessons import Lessons
from autotuner.search.prior import DOUBTED, Expectation, Prior
from autotuner.search.problem import Problem
from autotuner.search.raced import RacedCourse

PRIOR_SD, IGNORANT_SD = 0.2, 0.5
"""The log error that predictions are taken to have at first, and that of knowing nothing."""

SURE = 1.28
"""Standard deviations to which an optimistic bound reaches: one in ten is above it."""

NOISE = 0.02
"""A gain, as a share, that is not worth a launch and counts as none."""

ABOVE = 1.025
"""The part of the incumbent's capacity a candidate is tried at first: half the precision above it."""

STEPS = (1.1, 2.0)
"""The shortest and the longest first step of a bracket."""


@dataclass(frozen=True)
class Incumbent:
    """The best so far: its trial and, in the search's terms, the log of its utility."""

    trial: Trial
    worth: float


class Racing:
    """Asks for candidates in the order of what is believed of them, and learns from every one.

    The belief is a prediction corrected by the errors of like candidates. What even its optimistic
    bound leaves below the incumbent is not launched. Where nothing can be predicted the order is
    that of an even spread, corrected by what was measured, and only failures rule anything out.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.experiment = problem.experiment
        self.objective = OBJECTIVES[problem.experiment.optimization.objective]
        self.prior = Prior(problem)
        self.lessons = Lessons()
        pool = problem.space.candidates
        self._order = evenly(pool, min(len(pool), CONSIDERED_AT_MOST), problem.seed)
        self._asked: set[str] = set()
        self._searched = 0
        self._told: list[Trial] = []

    def ask(self) -> Launch | None:
        """The most promising candidate that is left; None when none can win or no launch is left."""
        left, _ = self._left()
        if not left or self._spent is not None:
            return None
        candidate = self._most_promising(left)
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
        left, skipped = self._left()
        if left and self._spent is None:
            return Account(None, skipped)
        if self._spent is not None and left:
            return Account(self._spent, skipped)
        if skipped:
            return Account("nothing is left that can win", skipped)
        return Account("every candidate was tried")

    def course(self, candidate: Candidate) -> Course | None:
        """The load points for a candidate, in view of what it has to beat."""
        incumbent = self._incumbent()
        if not self.experiment.benchmark.find_capacity:
            return RacedCourse(self.experiment, candidate.gpus, incumbent.trial) if incumbent else None
        floor = Floor(incumbent.trial.number, _by_scenario(incumbent.trial, self.experiment)) if incumbent else None
        return CapacityCourse(self.experiment, candidate.gpus, self._starts(candidate, incumbent), floor)

    @property
    def _spent(self) -> str | None:
        """Why no more launches are made, though candidates are left."""
        if self._searched >= self.problem.limit:
            return f"max_iterations: {self.experiment.optimization.max_iterations} launches were made"
        patience = self.experiment.optimization.patience
        if patience is not None and self._without_gain() >= patience:
            return f"patience: {patience} launches brought no gain above {NOISE:.0%}"
        return None

    def _left(self) -> tuple[list[Candidate], tuple[tuple[Candidate, str], ...]]:
        """The candidates that may be asked for, and those left out with the reason."""
        open_ones = [candidate for candidate in self._order if candidate.key not in self._asked]
        reasons = {candidate.key: self.lessons.against(candidate) for candidate in open_ones}
        incumbent = self._incumbent()
        if incumbent is not None and open_ones:
            given = self._given()
            means, sds = given.of(open_ones)
            for candidate, mean, sd in zip(open_ones, means, sds, strict=True):
                if self.prior.expect(candidate) is not None and reasons[candidate.key] is None:
                    most = mean + SURE * sd
                    if most <= incumbent.worth + NOISE:
                        ratio = math.exp(most - incumbent.worth)
                        reasons[candidate.key] = (
                            f"predicted: at best {ratio:.2f} times as good as trial {incumbent.trial.number}"
                        )
        skipped = tuple((c, why) for c in open_ones if (why := reasons[c.key]) is not None)
        return [c for c in open_ones if reasons[c.key] is None], skipped

    def _most_promising(self, left: Sequence[Candidate]) -> Candidate:
        """The highest mean where predictions speak, else the highest bound; the spread breaks ties."""
        means, sds = self._given().of(left)
        lean = 0.0 if self._predicts else 1.0
        scores = [
            float(mean + lean * sd) + math.log(self.lessons.chance(candidate))
            for candidate, mean, sd in zip(left, means, sds, strict=True)
        ]
        best = max(scores)
        return next(candidate for candidate, score in zip(left, scores, strict=True) if score >= best - 1e-9)

    @property
    def _predicts(self) -> bool:
        return any(self.prior.expect(candidate) for candidate in self._order)

    def _given(self) -> Given:
        """The belief after all told trials; what was given up is known to lie below its ceiling only."""
        belief = self._belief()
        seen: list[tuple[Candidate, float]] = []
        capped: list[tuple[Candidate, float]] = []
        for trial in self._told:
            if trial.candidate.key not in belief.expected:
                continue
            worth, ceiling = self._worth(trial), trial.measurement.outcome.ceiling
            if worth is not None:
                seen.append((trial.candidate, worth))
            elif ceiling:
                capped.append((trial.candidate, math.log(ceiling)))
        given = belief.given(seen)
        for candidate, most in capped:
            if given.of([candidate])[0][0] > most:
                seen.append((candidate, most))
                given = belief.given(seen)
        return given

    def _belief(self) -> Belief:
        told = {trial.candidate.key: trial.candidate for trial in self._told}
        everyone = {candidate.key: candidate for candidate in self._order} | told
        known = {key: found.utility for key, c in everyone.items() if (found := self.prior.expect(c)) is not None}
        logs = {key: math.log(value) for key, value in known.items()}
        worths = [worth for trial in self._told if (worth := self._worth(trial)) is not None]
        usual = logs.values() or worths or [0.0]
        middle = sorted(usual)[len(usual) // 2]
        return Belief({key: logs.get(key, middle) for key in everyone}, PRIOR_SD if known else IGNORANT_SD)

    def _worth(self, trial: Trial) -> float | None:
        """The log utility a trial showed; None where it failed or was given up."""
        standing = self._rank([trial]).standings
        if not standing or standing[0].verdict is None or not standing[0].value:
            return None
        met = standing[0].verdict in (Verdict.FEASIBLE, Verdict.UNDECIDED)
        doubt = 1.0 if met or not self.experiment.benchmark.find_capacity else DOUBTED
        return math.log(self.objective.utility(standing[0].value) * doubt)

    def _incumbent(self) -> Incumbent | None:
        winner = self._rank(self._told).winner
        if winner is None:
            return None
        trial = next(trial for trial in self._told if trial.number == winner.trial)
        worth = self._worth(trial)
        return None if worth is None else Incumbent(trial, worth)

    def _rank(self, trials: Sequence[Trial]) -> Ranking:
        return rank(trials, self.experiment)

    def _without_gain(self) -> int:
        """How many of the last trials did not beat what was best before them."""
        best, count = -math.inf, 0
        for position, trial in enumerate(self._told, start=1):
            winner = self._rank(self._told[:position]).winner
            worth = self._worth(trial) if winner and winner.trial == trial.number else None
            if worth is not None and worth > best + NOISE:
                best, count = worth, 0
            else:
                count += 1
        return count

    def _starts(self, candidate: Candidate, incumbent: Incumbent | None) -> dict[str, Start]:
        """Where each capacity is looked for first: what has to be beaten, or what is believed if that is well above."""
        expected = self.prior.expect(candidate)
        (mean,), (sd,) = self._given().of([candidate]) if expected else ((0.0,), (0.0,))
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
