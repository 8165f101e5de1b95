"""The load points of an experiment on a candidate that has an incumbent to beat."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotuner.core import LoadPlanSummary, LoadPoint, LoadPointResult, LoadStep, Trial, Verdict
from autotuner.experiment import Experiment
from autotuner.scoring.judge import judge_load_point
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.pool import UNTRUSTED_VERDICTS
from autotuner.scoring.sequential import precision_stop_rule
from autotuner.search.hope import LOG_RATIO_SD, OPTIMISM_Z, upper_mean_log_ratio
from autotuner.search.margins import is_retryable

PASSING_VERDICTS = (Verdict.FEASIBLE, Verdict.UNDECIDED)


class IncumbentRace:
    """Every load point of the experiment, until the candidate cannot beat the incumbent any more.

    Candidates that are compared over the same load points take them lightest first. The others
    begin where the incumbent does best, because most of the losers are known by that one.
    """

    def __init__(self, experiment: Experiment, gpus: int, incumbent: Trial) -> None:
        self.experiment = experiment
        self.gpus = gpus
        self.incumbent = incumbent
        self.at_equal_load = OBJECTIVES[experiment.optimization.objective].at_equal_load
        self._workload = experiment.workload()
        self._incumbent_utility = {
            result.load_point: result.score.utility
            for result in incumbent.measurement.load_points
            if result.score and result.verdict in PASSING_VERDICTS
        }
        self._remaining_points = list(self._workload.load_points)
        if not self.at_equal_load:
            self._remaining_points.sort(key=lambda point: point not in self._best_points())
        self._results: dict[LoadPoint, LoadPointResult] = {}
        self._attempt = 1
        self._prune_reason: str | None = None
        self._upper_log_ratio = math.inf
        self.max_load_points = len(self._remaining_points)

    def ask(self) -> LoadStep | None:
        """The next load point."""
        if not self._remaining_points or self._prune_reason:
            return None
        point = self._remaining_points[0]
        step = LoadStep(self._workload.for_load_point(point), precision_stop_rule(self.experiment, point))
        return step if self._attempt == 1 else step.for_attempt(self._attempt)

    def tell(self, result: LoadPointResult) -> None:
        """Take note of what it came to, and give up where nothing can be won any more.

        A load point that says nothing is tried again, and never a reason to give up.
        """
        if self._attempt == 1 and is_retryable(result):
            self._attempt = 2
            return
        self._attempt = 1
        judged = judge_load_point(result, self.gpus, self.experiment)
        self._remaining_points.remove(result.load_point)
        if judged.verdict in UNTRUSTED_VERDICTS:
            return
        self._results[result.load_point] = judged
        self._upper_log_ratio = self._bound_over_all_points() if self.at_equal_load else self._bound_at_best_points()
        if self._remaining_points and self._upper_log_ratio <= 0:
            self._prune_reason = f"cannot beat trial {self.incumbent.number}"

    @property
    def outcome(self) -> LoadPlanSummary:
        """Whether it was given up, and the most it could have come to."""
        ceiling = (
            math.exp(self._upper_log_ratio) * self._incumbent_mean()
            if self._prune_reason and math.isfinite(self._upper_log_ratio)
            else None
        )
        return LoadPlanSummary(gave_up=self._prune_reason, ceiling=ceiling)

    def _bound_over_all_points(self) -> float:
        if any(judged.verdict not in PASSING_VERDICTS for judged in self._results.values()):
            return -math.inf
        return upper_mean_log_ratio(self._log_ratios(list(self._results)), len(self._remaining_points))

    def _bound_at_best_points(self) -> float:
        """Each scenario at its best load point; one not measured yet may be as good as the measured ones and more."""
        ratios, open_ones = [], 0
        for scenario in dict.fromkeys(point.scenario for point in self._workload.load_points):
            seen = [point for point in self._results if point.scenario == scenario]
            if not seen:
                open_ones += 1
                continue
            ratios.append(self._scenario_bound(scenario, seen))
        return upper_mean_log_ratio(ratios, open_ones)

    def _scenario_bound(self, scenario: str, points: Sequence[LoadPoint]) -> float:
        """The log of how many times better than the incumbent it can be on a scenario."""
        goal = max(value for point, value in self._incumbent_utility.items() if point.scenario == scenario)
        known = self._log_ratios(points)
        reach = (
            math.fsum(known) / len(known) + OPTIMISM_Z * LOG_RATIO_SD * math.sqrt(1 + 1 / len(known))
            if known
            else math.inf
        )
        found = [
            self._log_utility(point) - math.log(goal)
            for point in points
            if self._results[point].verdict in PASSING_VERDICTS
        ]
        found += [
            reach + math.log(self._incumbent_utility.get(point, goal) / goal)
            for point in self._remaining_points
            if point.scenario == scenario
        ]
        return max(found, default=-math.inf)

    def _log_ratios(self, points: Sequence[LoadPoint]) -> list[float]:
        return [
            self._log_utility(point) - math.log(self._incumbent_utility[point])
            for point in points
            if point in self._incumbent_utility
        ]

    def _log_utility(self, point: LoadPoint) -> float:
        score = self._results[point].score
        return math.log(score.utility) if score else -math.inf

    def _best_points(self) -> set[LoadPoint]:
        best: dict[str, LoadPoint] = {}
        for point, value in self._incumbent_utility.items():
            if point.scenario not in best or value > self._incumbent_utility[best[point.scenario]]:
                best[point.scenario] = point
        return set(best.values())

    def _incumbent_mean(self) -> float:
        """The incumbent's utility: over all load points, or over the best of each scenario."""
        points = list(self._incumbent_utility) if self.at_equal_load else self._best_points()
        return math.exp(math.fsum(math.log(self._incumbent_utility[point]) for point in points) / len(points))
