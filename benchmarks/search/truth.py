"""What a world's candidates are really worth: capacities from long runs, independent of any strategy.

The highest concurrency that meets the targets is bisected with windows of minutes and seeds no
strategy uses. A candidate that cannot be the best is left once that is certain, after a short
window where it is clear: throughput does not fall as load rises, so what it gives where it misses
the targets bounds what it can give.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from worlds import TARGETS, World

from autotuner.core import Candidate, LoadPoint, LoadPointResult, LoadStep
from autotuner.evaluate.simulated import SimulatedEvaluator
from autotuner.experiment import Experiment
from autotuner.predict.calibration import CONSTANTS_FILE
from autotuner.scoring.judge import judge_load_point
from autotuner.scoring.sequential import SequentialStopRule
from autotuner.search.margins import margin
from autotuner.session import Session, session_for

WINDOW, WARMUP = 60.0, 20.0
"""Seconds; the window is up to 8 times as long at concurrencies below 64, whose requests are few."""
SHORT, SHORT_WARMUP = 15.0, 10.0
DRAWN_OUT = 120.0
SEED = 987_654
PRECISION = 0.02
SLACK, SHORT_SLACK = 0.02, 0.12
"""What throughputs may be off by after long and after short windows."""


@dataclass
class Bisection:
    """A course that narrows down a capacity, from `start`, by doubling and then halving the logarithm."""

    experiment: Experiment
    gpus: int
    scenario: str
    start: int
    floor: float
    most: int
    screen: bool = False
    utility: dict[int, float] = field(default_factory=dict)
    met: int = 0
    missed: int | None = None
    given_up: bool = False
    max_load_points: int = 20

    def ask(self) -> LoadStep | None:
        """The next concurrency."""
        load = self._next()
        if load is None or self.given_up:
            return None
        workload = self.experiment.workload().for_load_point(LoadPoint(self.scenario, concurrency=load))
        seconds = SHORT if self.screen else WINDOW * min(8.0, max(1.0, 64 / load))
        warmup = SHORT_WARMUP if self.screen else WARMUP
        driven = replace(workload, duration=seconds, longest=2 * seconds + DRAWN_OUT, warmup=warmup)
        return LoadStep(driven, SequentialStopRule((), min_seconds=seconds, max_seconds=seconds))

    def _next(self) -> int | None:
        if self.screen and self.utility:
            return None
        if self.missed is None:
            return None if self.met >= self.most else min(self.most, max(self.start, 2 * self.met))
        if not self.met:
            return None if self.missed == 1 else max(1, self.missed // 2)
        if self.missed - self.met <= max(1, PRECISION * self.met):
            return None
        middle = round(math.sqrt(self.met * self.missed))
        return min(max(middle, self.met + 1), self.missed - 1)

    def tell(self, result: LoadPointResult) -> None:
        """Take note of a load point."""
        judged = judge_load_point(result, self.gpus, self.experiment)
        load = judged.load_point.concurrency or 0
        self.utility[load] = judged.score.utility if judged.score else 0.0
        if margin(judged, self.experiment) >= 0:
            self.met = max(self.met, load)
        else:
            self.missed = min(self.missed or load, load)
            self.given_up = self.utility[load] * (1 + (SHORT_SLACK if self.screen else SLACK)) < self.floor

    @property
    def value(self) -> float:
        """The utility at the capacity; 0 where no load meets the targets."""
        return self.utility.get(self.met, 0.0)


class Truth:
    """The true values of one world's candidates, each found once and kept in a file."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.path = folder / f"world-{world.number:03d}.json"
        experiment = world.experiment(seed=SEED + world.number)
        self.wiring: Session = session_for(experiment)
        self.evaluator = SimulatedEvaluator(experiment, self.wiring.engine, keep_records=False)
        self.values: dict[str, float] = {}
        self.loads: dict[str, int] = {}
        self._best: str | None = None
        said = json.loads(self.path.read_text()) if self.path.exists() else {}
        if said.get("world") == self._identity():
            self.values, self.loads, self._best = said["values"], said["loads"], said["best"]

    def _identity(self) -> str:
        driven = (WINDOW, WARMUP, SHORT, SHORT_WARMUP, SEED, PRECISION, SLACK, SHORT_SLACK)
        costs = hashlib.sha256(CONSTANTS_FILE.read_bytes()).hexdigest()[:16]
        return f"{self.world} {self.world.parameters} {self.world.flags} {TARGETS[self.world.targets]} {driven} {costs}"

    def value(self, candidate: Candidate) -> float:
        """What the candidate is worth at its capacity."""
        if candidate.key not in self.values:
            course = self._measure(candidate, start=8, floor=0.0)
            self._keep(candidate, course)
            self._save()
        return self.values[candidate.key]

    def best(self) -> float:
        """The value of the best of all candidates."""
        if self._best is None:
            floor, load = 0.0, 8.0
            for candidate in self.wiring.space.candidates:
                start = max(1, round(load * candidate.gpus))
                if self._measure(candidate, start, floor, screen=True).given_up:
                    continue
                course = self._measure(candidate, start, floor)
                if course.given_up:
                    continue
                self._keep(candidate, course)
                if course.value > floor:
                    floor, load, self._best = course.value, course.met / candidate.gpus, candidate.key
            if self._best is None:
                return 0.0
            self._save()
        return self.values[self._best]

    def _measure(self, candidate: Candidate, start: int, floor: float, *, screen: bool = False) -> Bisection:
        experiment = self.wiring.experiment
        most = max(experiment.benchmark.num_concurrency)
        course = Bisection(experiment, candidate.gpus, self.world.scenario, min(start, most), floor, most, screen)
        self.evaluator.evaluate(candidate, course, self.path.parent)
        return course

    def _keep(self, candidate: Candidate, course: Bisection) -> None:
        self.values[candidate.key], self.loads[candidate.key] = course.value, course.met

    def _save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        said = {"world": self._identity(), "best": self._best, "values": self.values, "loads": self.loads}
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps(said))
        partial.replace(self.path)
