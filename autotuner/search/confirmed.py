"""What surrounds every strategy: the engine's defaults first, the winner and the defaults once more at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autotuner.core import Candidate, LoadPoint, Trial, Workload
from autotuner.scoring.rank import Standing, rank
from autotuner.search.account import SearchReport
from autotuner.search.capacity import BracketStart, CapacitySearch
from autotuner.search.forecast import Forecasts
from autotuner.search.launch import Launch, LoadPlan, load_plan_for
from autotuner.search.problem import Problem
from autotuner.search.protocol import Searcher

CONFIRMATION_SEED_OFFSET = 1_000
"""Added to the seed of a confirmation's load, so that it draws other lengths and arrivals than the search did."""


class ConfirmedSearch:
    """Asks for the baseline, then for what its strategy proposes, then for confirmations, within the budgets.

    Winner and baseline are confirmed in turn, each on fresh launches, at the load points on which
    they stand.
    """

    def __init__(self, problem: Problem, strategy: Searcher) -> None:
        self.problem = problem
        self.strategy = strategy
        self.optimization = problem.experiment.optimization
        self._trials: list[Trial] = []
        self._running_launches: list[Launch] = []
        self._baseline_proposed = False

    def ask(self) -> Launch | None:
        """The next launch; None when nothing is left, or while confirmations wait for what still runs."""
        launch = None if self._exceeded_budget() else self._next_launch()
        if launch is not None:
            self._running_launches.append(launch)
        return launch

    def tell(self, trial: Trial) -> None:
        """Take note of a finished trial."""
        for launch in self._running_launches:
            if (launch.candidate.key, launch.purpose) == (trial.candidate.key, trial.purpose):
                self._running_launches.remove(launch)
                break
        self._trials.append(trial)
        self.strategy.tell(trial)

    @property
    def report(self) -> SearchReport:
        """The strategy's own, unless a budget was spent first."""
        own, spent = self.strategy.report, self._exceeded_budget()
        return SearchReport(own.stop_reason or spent, own.skipped, len(self.problem.space.candidates))

    def _next_launch(self) -> Launch | None:
        baseline = self.problem.baseline
        begun = any(trial.purpose == "baseline" for trial in self._trials) or self._baseline_proposed
        if baseline is not None and not begun:
            self._baseline_proposed = True
            return Launch(baseline, "baseline", self._load_plan(baseline))
        while (launch := self.strategy.ask()) is not None:
            if launch.candidate != baseline:
                return launch if launch.load_plan else replace(launch, load_plan=self._load_plan(launch.candidate))
        return None if self._running_launches else self._next_confirmation()

    def _load_plan(self, candidate: Candidate) -> LoadPlan:
        """The course of a launch about which the strategy has no opinion."""
        if not self.problem.experiment.benchmark.find_capacity:
            return load_plan_for(self.problem.experiment)
        expected = Forecasts(self.problem).forecast(candidate)
        starts = {name: BracketStart(load, 1.5) for name, load in expected.capacities.items()} if expected else {}
        return CapacitySearch(self.problem.experiment, candidate.gpus, starts, stop_when_flat=True)

    def _next_confirmation(self) -> Launch | None:
        """The winner, or the defaults, whichever was launched less often again; None when both were often enough.

        A winner that its fresh launches refute yields to the runner-up, which is confirmed in turn,
        down to the defaults themselves.
        """
        ranking = rank(self._trials, self.problem.experiment, prefer_defaults=False)
        winner, defaults = ranking.winner, ranking.defaults
        if winner is None or winner == defaults or not (self.problem.baseline or self.problem.can_relaunch):
            return None
        pair = [standing for standing in (winner, defaults) if standing is not None and standing.value is not None]
        attempts = [self._attempt_count(standing) for standing in pair]
        fewest = attempts.index(min(attempts))
        if attempts[fewest] >= self.optimization.confirm:
            return None
        return Launch(pair[fewest].candidate, "confirmation", self._confirmation_plan(pair[fewest], attempts[fewest]))

    def _attempt_count(self, standing: Standing) -> int:
        """How often it was launched again for the load points on which it stands, whether or not that went well."""
        points = set(standing.load_points)
        again = (t for t in self._trials if t.purpose == "confirmation" and t.candidate == standing.candidate)
        return sum(trial.failed or points <= set(trial.measurement.latest_results) for trial in again)

    def _confirmation_plan(self, standing: Standing, attempt: int) -> LoadPlan:
        return load_plan_for(self.problem.experiment, self._confirmation_workload(standing.load_points, attempt))

    def _confirmation_workload(self, points: Sequence[LoadPoint], attempt: int) -> Workload:
        workload = self.problem.experiment.workload()
        return replace(
            workload, load_points=tuple(points), seed=workload.seed + CONFIRMATION_SEED_OFFSET * (attempt + 1)
        )

    def _exceeded_budget(self) -> str | None:
        """Which budget the next launch would exceed."""
        if not self._trials:
            return None
        seconds = [trial.ended - trial.started for trial in self._trials]
        hours = [(trial.ended - trial.started) * trial.candidate.gpus / 3600 for trial in self._trials]
        for name, unit, limit, spent in (
            ("max_seconds", "s", self.optimization.max_seconds, seconds),
            ("max_gpu_hours", "GPU-hours", self.optimization.max_gpu_hours, hours),
        ):
            if limit is not None and sum(spent) + sum(spent) / len(spent) > limit:
                took = f"{name} is {limit:g} {unit}: the launches so far took {sum(spent):.3g} {unit}"
                return f"{took}, and another takes about {sum(spent) / len(spent):.3g} {unit}"
        return None
