"""What surrounds every strategy: the engine's defaults first, the winner and the defaults once more at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autotuner.core import Candidate, LoadPoint, Trial, Workload
from autotuner.scoring.rank import Standing, rank
from autotuner.search.account import Account
from autotuner.search.capacity import CapacityCourse, Start
from autotuner.search.forecast import Prior
from autotuner.search.launch import Course, Launch, course_of
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
        own, spent = self.inner.account, self._spent()
        return Account(own.stopped or spent, own.skipped, len(self.problem.space.candidates))

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

    def _course(self, candidate: Candidate) -> Course:
        """The course of a launch about which the strategy has no opinion."""
        if not self.problem.experiment.benchmark.find_capacity:
            return course_of(self.problem.experiment)
        expected = Prior(self.problem).expect(candidate)
        starts = {name: Start(load, 1.5) for name, load in expected.loads.items()} if expected else {}
        return CapacityCourse(self.problem.experiment, candidate.gpus, starts, by_utility=True)

    def _confirmation(self) -> Launch | None:
        """The winner, or the defaults, whichever was launched less often again; None when both were often enough.

        A winner that its fresh launches refute yields to the runner-up, which is confirmed in turn,
        down to the defaults themselves.
        """
        ranking = rank(self._trials, self.problem.experiment, prefer_defaults=False)
        winner, defaults = ranking.winner, ranking.defaults
        if winner is None or winner == defaults or not (self.problem.baseline or self.problem.relaunches):
            return None
        pair = [standing for standing in (winner, defaults) if standing is not None and standing.value is not None]
        attempts = [self._attempts(standing) for standing in pair]
        fewest = attempts.index(min(attempts))
        if attempts[fewest] >= self.chosen.confirm:
            return None
        return Launch(pair[fewest].candidate, "confirmation", self._again(pair[fewest], attempts[fewest]))

    def _attempts(self, standing: Standing) -> int:
        """How often it was launched again for the load points on which it stands, whether or not that went well."""
        points = set(standing.load_points)
        again = (t for t in self._trials if t.purpose == "confirmation" and t.candidate == standing.candidate)
        return sum(trial.failed or points <= set(trial.measurement.latest) for trial in again)

    def _again(self, standing: Standing, count: int) -> Course:
        return course_of(self.problem.experiment, self._workload(standing.load_points, count))

    def _workload(self, points: Sequence[LoadPoint], count: int) -> Workload:
        workload = self.problem.experiment.workload()
        return replace(workload, load_points=tuple(points), seed=workload.seed + FRESH * (count + 1))

    def _spent(self) -> str | None:
        """Which budget the next launch would exceed."""
        if not self._trials:
            return None
        seconds = [trial.ended - trial.started for trial in self._trials]
        hours = [(trial.ended - trial.started) * trial.candidate.gpus / 3600 for trial in self._trials]
        for name, unit, limit, spent in (
            ("max_seconds", "s", self.chosen.max_seconds, seconds),
            ("max_gpu_hours", "GPU-hours", self.chosen.max_gpu_hours, hours),
        ):
            if limit is not None and sum(spent) + sum(spent) / len(spent) > limit:
                took = f"{name} is {limit:g} {unit}: the launches so far took {sum(spent):.3g} {unit}"
                return f"{took}, and another takes about {sum(spent) / len(spent):.3g} {unit}"
        return None
