"""The wrapper around every strategy: the baseline first, confirmations last, and the budgets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from autotuner.core import Candidate, LoadPoint, Trial
from autotuner.scoring.rank import Standing, rank
from autotuner.search.capacity import BracketStart, CapacitySearch
from autotuner.search.forecast import Forecasts
from autotuner.search.launch import Launch, LoadPlan, load_plan_for
from autotuner.search.problem import Problem
from autotuner.search.protocol import Searcher, SearchReport

CONFIRMATION_SEED_OFFSET = 1_000
"""Added to a confirmation's seed, so that it draws other lengths and arrivals than the search; any large step does."""


class ConfirmedSearch:
    """Proposes the baseline, then the strategy's launches, then confirmations, within the budgets.

    Winner and baseline are confirmed in turn, each on new launches, at the load points they are ranked by.
    """

    def __init__(self, problem: Problem, strategy: Searcher) -> None:
        self.problem = problem
        self.strategy = strategy
        self.optimization = problem.experiment.optimization
        self._trials: list[Trial] = []
        self._running_launches: list[Launch] = []
        self._baseline_proposed = False

    def preview(self) -> tuple[Launch, ...]:
        """The baseline and the strategy's launches."""
        baseline = self.problem.baseline
        launches = tuple(launch for launch in self.strategy.preview() if launch.candidate != baseline)
        return launches if baseline is None else (Launch(baseline, "baseline"), *launches)

    def ask(self) -> Launch | None:
        """The next launch; None at the end, or while confirmations wait for running launches."""
        launch = None if self._exceeded_budget() else self._next_launch()
        if launch is not None:
            self._running_launches.append(launch)
        return launch

    def tell(self, trial: Trial) -> None:
        """Record a finished trial, and pass it to the strategy."""
        for launch in self._running_launches:
            if (launch.candidate.key, launch.purpose) == (trial.candidate.key, trial.purpose):
                self._running_launches.remove(launch)
                break
        self._trials.append(trial)
        self.strategy.tell(trial)

    @property
    def report(self) -> SearchReport:
        """The strategy's report, with the budget as the stop reason where it ended the search."""
        report = self.strategy.report
        stop_reason = report.stop_reason or self._exceeded_budget()
        return SearchReport(stop_reason, report.skipped, len(self.problem.space.candidates))

    def _next_launch(self) -> Launch | None:
        """The baseline, then the strategy's launches, then confirmations."""
        baseline = self.problem.baseline
        has_baseline = self._baseline_proposed or any(trial.purpose == "baseline" for trial in self._trials)
        if baseline is not None and not has_baseline:
            self._baseline_proposed = True
            return Launch(baseline, "baseline", self._load_plan(baseline))
        while (launch := self.strategy.ask()) is not None:
            if launch.candidate != baseline:
                return launch if launch.load_plan else replace(launch, load_plan=self._load_plan(launch.candidate))
        return None if self._running_launches else self._next_confirmation()

    def _load_plan(self, candidate: Candidate) -> LoadPlan:
        """The load plan of a launch for which the strategy gives none."""
        if not self.problem.experiment.benchmark.find_capacity:
            return load_plan_for(self.problem.experiment)
        forecast = Forecasts(self.problem).forecast(candidate)
        # first step of a bracket around a predicted capacity: chosen by hand
        starts = {name: BracketStart(load, 1.5) for name, load in forecast.capacities.items()} if forecast else {}
        return CapacitySearch(self.problem.experiment, candidate.gpus, starts, stop_when_flat=True)

    def _next_confirmation(self) -> Launch | None:
        """The winner or the defaults, whichever has fewer confirmations; None when both have enough.

        A winner that its confirmations refute is replaced by the runner-up, which is confirmed in turn, down to the
        defaults themselves.
        """
        if not self.optimization.confirm:
            return None
        ranking = rank(self._trials, self.problem.experiment, prefer_defaults=False)
        winner, defaults = ranking.winner, ranking.defaults
        if winner is None or winner == defaults or not (self.problem.baseline or self.problem.can_relaunch):
            return None
        pair = [standing for standing in (winner, defaults) if standing is not None and standing.value is not None]
        attempts = [self._attempt_count(standing) for standing in pair]
        attempt = min(attempts)
        if attempt >= self.optimization.confirm:
            return None
        standing = pair[attempts.index(attempt)]
        return Launch(standing.candidate, "confirmation", self._confirmation_plan(standing.load_points, attempt))

    def _attempt_count(self, standing: Standing) -> int:
        """Confirmations, failed ones too, that covered the load points the candidate is ranked by."""
        points = set(standing.load_points)
        trials = (t for t in self._trials if t.purpose == "confirmation" and t.candidate == standing.candidate)
        return sum(trial.failed or points <= set(trial.measurement.latest_results) for trial in trials)

    def _confirmation_plan(self, points: Sequence[LoadPoint], attempt: int) -> LoadPlan:
        workload = self.problem.experiment.workload()
        seed = workload.seed + CONFIRMATION_SEED_OFFSET * (attempt + 1)
        return load_plan_for(self.problem.experiment, replace(workload, load_points=tuple(points), seed=seed))

    def _exceeded_budget(self) -> str | None:
        """Which budget another launch of average cost would exceed; None while there is room."""
        if not self._trials or self.optimization.max_seconds is self.optimization.max_gpu_hours is None:
            return None
        seconds = [trial.ended - trial.started for trial in self._trials]
        hours = [(trial.ended - trial.started) * trial.candidate.gpus / 3600 for trial in self._trials]
        for name, unit, limit, spent, mean in (
            ("max_seconds", "s", self.optimization.max_seconds, wall_seconds(self._trials), fmean(seconds)),
            ("max_gpu_hours", "GPU-hours", self.optimization.max_gpu_hours, sum(hours), fmean(hours)),
        ):
            if limit is not None and spent + mean > limit:
                total = f"{name} is {limit:g} {unit}: the launches so far took {spent:.3g} {unit}"
                return f"{total}, and another takes about {mean:.3g} {unit}"
        return None


def wall_seconds(trials: Sequence[Trial]) -> float:
    """Seconds in which at least one of the trials ran."""
    total, covered_until = 0.0, -math.inf
    for trial in sorted(trials, key=lambda trial: trial.started):
        total += max(0.0, trial.ended - max(trial.started, covered_until))
        covered_until = max(covered_until, trial.ended)
    return total
