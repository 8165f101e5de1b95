"""What surrounds every strategy: the engine's defaults first, the winner and the defaults once more at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autotuner.core import Candidate, LoadPoint, Trial, Workload
from autotuner.scoring.rank import Standing, rank
from autotuner.search.account import Account
from autotuner.search.capacity import CapacityCourse, Start
from autotuner.search.launch import Course, FixedCourse, Launch
from autotuner.search.prior import Prior
from autotuner.search.problem import Problem
from autotuner.search.protocol import Searcher

FRESH = 1_000
"""Added to the seed of a confirmation's load, so that it draws other lengths and arrivals than the search did."""


class Proven:
    """Asks for the baseline, then for what its strategy proposes, then for confirmations, within the budgets.

    Winner and baseline are confirmed in turn, each on fresh launches, at the load points on which
    they stand.
    """

    def __init__(self, problem: Problem, inner: Searcher) -> None:
        self.problem = problem
        self.inner = inner
        self.chosen = problem.experiment.optimization
        self._trials: list[Trial] = []
        self._running: list[Launch] = []
        self._began = False

    def ask(self) -> Launch | None:
        """The next launch; None when nothing is left, or while confirmations wait for what still runs."""
        launch = None if self._spent() else self._next()
        if launch is not None:
            self._running.append(launch)
        return launch

    def tell(self, trial: Trial) -> None:
        """Take note of a finished trial."""
        for launch in self._running:
            if (launch.candidate.key, launch.purpose) == (trial.candidate.key, trial.purpose):
                self._running.remove(launch)
                break
        self._trials.append(trial)
        self.inner.tell(trial)

    @property
    def account(self) -> Account:
        """The strategy's own, unless a budget was spent first."""
        said = self.inner.account
        return Account(self._spent(), said.skipped) if self._spent() and not said.stopped else said

    def _next(self) -> Launch | None:
        baseline = self.problem.baseline
        begun = any(trial.purpose == "baseline" for trial in self._trials) or self._began
        if baseline is not None and not begun:
            self._began = True
            return Launch(baseline, "baseline", self._course(baseline))
        while (launch := self.inner.ask()) is not None:
            if launch.candidate != baseline:
                return launch if launch.course else replace(launch, course=self._course(launch.candidate))
        return None if self._running else self._confirmation()

    def _course(self, candidate: Candidate) -> Course | None:
        """The course of a launch about which the strategy has no opinion."""
        if not self.problem.experiment.benchmark.find_capacity:
            return None
        expected = Prior(self.problem).expect(candidate)
        starts = {name: Start(load, 1.5) for name, load in expected.loads.items()} if expected else {}
        return CapacityCourse(self.problem.experiment, candidate.gpus, starts, by_utility=True)

    def _confirmation(self) -> Launch | None:
        """The winner, or the baseline, whichever was confirmed less often."""
        ranking = rank(self._trials, self.problem.experiment)
        defaults = {trial.number for trial in self._trials if trial.purpose == "baseline"}
        baseline = next((standing for standing in ranking.standings if standing.trial in defaults), None)
        if ranking.winner is None or baseline is None or baseline.value is None or ranking.winner == baseline:
            return None
        pair = (ranking.winner, baseline)
        done = [self._confirmed(standing) for standing in pair]
        if min(done) >= self.chosen.confirm:
            return None
        turn = 0 if done[0] <= done[1] else 1
        return Launch(pair[turn].candidate, "confirmation", self._again(pair[turn], done[turn]))

    def _confirmed(self, standing: Standing) -> int:
        return sum(trial.purpose == "confirmation" and trial.candidate == standing.candidate for trial in self._trials)

    def _again(self, standing: Standing, count: int) -> Course:
        return FixedCourse(self._workload(standing.load_points, count))

    def _workload(self, points: Sequence[LoadPoint], count: int) -> Workload:
        workload = self.problem.experiment.workload()
        return replace(workload, load_points=tuple(points), seed=workload.seed + FRESH * (count + 1))

    def _spent(self) -> str | None:
        """Which budget the next launch would exceed."""
        if not self._trials:
            return None
        seconds = [trial.ended - trial.started for trial in self._trials]
        hours = [(trial.ended - trial.started) * trial.candidate.gpus / 3600 for trial in self._trials]
        for name, limit, spent in (
            ("max_seconds", self.chosen.max_seconds, seconds),
            ("max_gpu_hours", self.chosen.max_gpu_hours, hours),
        ):
            if limit is not None and sum(spent) + sum(spent) / len(spent) > limit:
                return f"{name}: {sum(spent):.3g} of {limit:g} are spent, and another launch takes about as long"
        return None
