"""The load plan that prunes a candidate once it cannot beat the incumbent, the best trial so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotuner.core import LoadPlanSummary, LoadPoint, LoadPointResult, LoadStep, Trial
from autotuner.experiment import Experiment
from autotuner.scoring.conclusion import PASSING_VERDICTS
from autotuner.scoring.judge import judge_load_point
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.pool import UNTRUSTED_VERDICTS
from autotuner.scoring.sequential import precision_stop_rule
from autotuner.search.margins import is_retryable

LOG_RATIO_SD = 0.25
"""Assumed standard deviation, over load points, of the log ratio of two candidates' utilities; chosen by hand."""

OPTIMISM_Z = 2.0
"""Standard deviations above the mean at which an open load point is bounded; chosen by hand."""


class IncumbentRace:
    """Every load point of the experiment, until the candidate cannot beat the incumbent any more.

    Objectives that compare candidates over equal load points take them lightest first. The others start with the
    incumbent's best load point, at which most losing candidates can be pruned.
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
        """The next load point, with another seed on its second attempt."""
        if not self._remaining_points or self._prune_reason:
            return None
        point = self._remaining_points[0]
        step = LoadStep(self._workload.for_load_point(point), precision_stop_rule(self.experiment, point))
        return step if self._attempt == 1 else step.for_attempt(self._attempt)

    def tell(self, result: LoadPointResult) -> None:
        """Judge the result, and prune the candidate if it cannot win any more.

        An invalid or client-limited load point is measured again; after a second failure it stays open.
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
        """Why the candidate was pruned, if it was, and an upper bound on its utility."""
        is_bounded = self._prune_reason and math.isfinite(self._upper_log_ratio)
        ceiling = math.exp(self._upper_log_ratio) * self._incumbent_mean() if is_bounded else None
        return LoadPlanSummary(gave_up=self._prune_reason, ceiling=ceiling)

    def _bound_over_all_points(self) -> float:
        """Upper bound on the mean log ratio over all load points; a missed target at any of them loses."""
        if any(judged.verdict not in PASSING_VERDICTS for judged in self._results.values()):
            return -math.inf
        return upper_mean_log_ratio(self._log_ratios(list(self._results)), len(self._remaining_points))

    def _bound_at_best_points(self) -> float:
        """Upper bound on the mean log ratio over scenarios, each at the candidate's best load point."""
        bounds, open_count = [], 0
        for scenario in dict.fromkeys(point.scenario for point in self._workload.load_points):
            measured_points = [point for point in self._results if point.scenario == scenario]
            if not measured_points:
                open_count += 1
                continue
            bounds.append(self._scenario_bound(scenario, measured_points))
        return upper_mean_log_ratio(bounds, open_count)

    def _scenario_bound(self, scenario: str, points: Sequence[LoadPoint]) -> float:
        """Upper bound on the log ratio of candidate to incumbent, each at its best load point of a scenario.

        A remaining load point is bounded by the mean log ratio at the measured ones plus OPTIMISM_Z deviations.
        """
        best = max(value for point, value in self._incumbent_utility.items() if point.scenario == scenario)
        passing = [point for point in points if self._results[point].verdict in PASSING_VERDICTS]
        remaining = [point for point in self._remaining_points if point.scenario == scenario]
        ratio_bound = _open_log_ratio(log_ratios) if (log_ratios := self._log_ratios(points)) else math.inf
        bounds = [self._log_utility(point) - math.log(best) for point in passing]
        bounds += [ratio_bound + math.log(self._incumbent_utility.get(point, best) / best) for point in remaining]
        return max(bounds, default=-math.inf)

    def _log_ratios(self, points: Sequence[LoadPoint]) -> list[float]:
        """Log of candidate over incumbent utility at the points where the incumbent met its targets."""
        shared_points = [point for point in points if point in self._incumbent_utility]
        return [self._log_utility(point) - math.log(self._incumbent_utility[point]) for point in shared_points]

    def _log_utility(self, point: LoadPoint) -> float:
        score = self._results[point].score
        return math.log(score.utility) if score else -math.inf

    def _best_points(self) -> set[LoadPoint]:
        """The incumbent's best load point of each scenario."""
        best: dict[str, LoadPoint] = {}
        for point, value in self._incumbent_utility.items():
            if point.scenario not in best or value > self._incumbent_utility[best[point.scenario]]:
                best[point.scenario] = point
        return set(best.values())

    def _incumbent_mean(self) -> float:
        """Geometric mean of the incumbent's utility over all load points, or over the best of each scenario."""
        points = list(self._incumbent_utility) if self.at_equal_load else self._best_points()
        return math.exp(math.fsum(math.log(self._incumbent_utility[point]) for point in points) / len(points))


def upper_mean_log_ratio(log_ratios: Sequence[float], open_count: int) -> float:
    """Upper bound on the mean log ratio of a candidate's utility to the incumbent's.

    The mean is over load points or scenarios. `log_ratios` are those measured, or their upper bounds; the other
    `open_count` are bounded by the upper prediction bound of one more. Infinite if all are open.
    """
    if not log_ratios:
        return math.inf if open_count else 0.0
    total = math.fsum(log_ratios)
    if not open_count or not math.isfinite(total):
        return total / len(log_ratios)
    return (total + open_count * _open_log_ratio(log_ratios)) / (len(log_ratios) + open_count)


def _open_log_ratio(log_ratios: Sequence[float]) -> float:
    """Upper prediction bound of one more log ratio: their mean plus OPTIMISM_Z standard deviations."""
    mean = math.fsum(log_ratios) / len(log_ratios)
    return mean + OPTIMISM_Z * LOG_RATIO_SD * math.sqrt(1 + 1 / len(log_ratios))
