"""The load points of an experiment on a candidate that has an incumbent to beat."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotuner.core import LoadPoint, LoadPointResult, LoadStep, Outcome, Trial, Verdict
from autotuner.experiment import Experiment
from autotuner.scoring.judge import judge_load_point
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.pool import UNTRUSTED
from autotuner.scoring.sequential import precise
from autotuner.search.hope import SPREAD, SURE, at_best
from autotuner.search.margins import may_be_chance

MEETS = (Verdict.FEASIBLE, Verdict.UNDECIDED)


class RacedCourse:
    """Every load point of the experiment, until the candidate cannot beat the incumbent any more.

    Candidates that are compared over the same load points take them lightest first. The others
    begin where the incumbent does best, because most of the losers are known by that one.
    """

    def __init__(self, experiment: Experiment, gpus: int, incumbent: Trial) -> None:
        self.experiment = experiment
        self.gpus = gpus
        self.incumbent = incumbent
        self.over_all = OBJECTIVES[experiment.optimization.objective].at_equal_load
        self._workload = experiment.workload()
        self._against = {
            result.load_point: result.score.utility
            for result in incumbent.measurement.load_points
            if result.score and result.verdict in MEETS
        }
        self._left = list(self._workload.load_points)
        if not self.over_all:
            self._left.sort(key=lambda point: point not in self._best_points())
        self._seen: dict[LoadPoint, LoadPointResult] = {}
        self._tries = 1
        self._gave_up: str | None = None
        self._hope = math.inf
        self.total = len(self._left)

    def ask(self) -> LoadStep | None:
        """The next load point."""
        if not self._left or self._gave_up:
            return None
        point = self._left[0]
        step = LoadStep(self._workload.at(point), precise(self.experiment, point))
        return step if self._tries == 1 else step.reseeded(self._tries)

    def tell(self, result: LoadPointResult) -> None:
        """Take note of what it came to, and give up where nothing can be won any more.

        A load point that says nothing is tried again, and never a reason to give up.
        """
        if self._tries == 1 and may_be_chance(result):
            self._tries = 2
            return
        self._tries = 1
        judged = judge_load_point(result, self.gpus, self.experiment)
        self._left.remove(result.load_point)
        if judged.verdict in UNTRUSTED:
            return
        self._seen[result.load_point] = judged
        self._hope = self._hope_over_all() if self.over_all else self._hope_at_best()
        if self._left and self._hope <= 0:
            self._gave_up = f"cannot beat trial {self.incumbent.number}"

    @property
    def outcome(self) -> Outcome:
        """Whether it was given up, and the most it could have come to."""
        ceiling = math.exp(self._hope) * self._worth() if self._gave_up and math.isfinite(self._hope) else None
        return Outcome(gave_up=self._gave_up, ceiling=ceiling)

    def _hope_over_all(self) -> float:
        if any(judged.verdict not in MEETS for judged in self._seen.values()):
            return -math.inf
        return at_best(self._ratios(list(self._seen)), len(self._left))

    def _hope_at_best(self) -> float:
        """Each scenario at its best load point; one not measured yet may be as good as the measured ones and more."""
        ratios, open_ones = [], 0
        for scenario in dict.fromkeys(point.scenario for point in self._workload.load_points):
            seen = [point for point in self._seen if point.scenario == scenario]
            if not seen:
                open_ones += 1
                continue
            ratios.append(self._best_of(scenario, seen))
        return at_best(ratios, open_ones)

    def _best_of(self, scenario: str, seen: Sequence[LoadPoint]) -> float:
        """The log of how many times better than the incumbent it can be on a scenario."""
        goal = max(value for point, value in self._against.items() if point.scenario == scenario)
        known = self._ratios(seen)
        reach = math.fsum(known) / len(known) + SURE * SPREAD * math.sqrt(1 + 1 / len(known)) if known else math.inf
        found = [self._log(point) - math.log(goal) for point in seen if self._seen[point].verdict in MEETS]
        found += [
            reach + math.log(self._against.get(point, goal) / goal)
            for point in self._left
            if point.scenario == scenario
        ]
        return max(found, default=-math.inf)

    def _ratios(self, points: Sequence[LoadPoint]) -> list[float]:
        return [self._log(point) - math.log(self._against[point]) for point in points if point in self._against]

    def _log(self, point: LoadPoint) -> float:
        score = self._seen[point].score
        return math.log(score.utility) if score else -math.inf

    def _best_points(self) -> set[LoadPoint]:
        best: dict[str, LoadPoint] = {}
        for point, value in self._against.items():
            if point.scenario not in best or value > self._against[best[point.scenario]]:
                best[point.scenario] = point
        return set(best.values())

    def _worth(self) -> float:
        """The incumbent's utility: over all load points, or over the best of each scenario."""
        points = list(self._against) if self.over_all else self._best_points()
        return math.exp(math.fsum(math.log(self._against[point]) for point in points) / len(points))
