"""True utilities of a world's candidates at their capacities, from long runs that no strategy shares.

The highest concurrency that meets the targets is bisected, with windows of minutes and seeds that no strategy uses.
A candidate that cannot be the best is abandoned early: throughput does not fall as load rises, so its throughput where
it misses the targets bounds what it can reach.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from worlds import TARGETS, World

from autotuner.core import Candidate, LoadPlanSummary, LoadPoint, LoadPointResult, LoadStep
from autotuner.evaluate.simulated import SimulatedEvaluator
from autotuner.experiment import Experiment
from autotuner.predict.calibration import CONSTANTS_FILE
from autotuner.run_setup import RunSetup
from autotuner.scoring.judge import judge_load_point
from autotuner.scoring.sequential import SequentialStopRule
from autotuner.search.margins import margin

WINDOW, WARMUP = 60.0, 20.0
"""Seconds; the window is up to 8 times as long at concurrencies below 64, whose requests are few."""
SHORT, SHORT_WARMUP = 15.0, 10.0
DRAIN_SECONDS = 120.0
SEED = 987_654
PRECISION = 0.02
SLACK, SHORT_SLACK = 0.02, 0.12
"""Relative error of a throughput after a long and after a short window."""


@dataclass
class Bisection:
    """A load plan that finds a capacity from `start` by doubling, then bisection on a log scale.

    It gives up once the utility cannot exceed `floor`; with `screen` it takes one short window only.
    """

    experiment: Experiment
    gpus: int
    scenario: str
    start: int
    floor: float
    max_load: int
    screen: bool = False
    utility: dict[int, float] = field(default_factory=dict)
    feasible_load: int = 0
    infeasible_load: int | None = None
    given_up: bool = False
    max_load_points: int = 20
    outcome: LoadPlanSummary = field(default_factory=LoadPlanSummary)

    def ask(self) -> LoadStep | None:
        """The next concurrency."""
        load = self._next_load()
        if load is None or self.given_up:
            return None
        workload = self.experiment.workload().for_load_point(LoadPoint(self.scenario, concurrency=load))
        seconds = SHORT if self.screen else WINDOW * min(8.0, max(1.0, 64 / load))
        warmup = SHORT_WARMUP if self.screen else WARMUP
        workload = replace(workload, duration=seconds, max_duration=2 * seconds + DRAIN_SECONDS, warmup=warmup)
        return LoadStep(workload, SequentialStopRule((), min_seconds=seconds, max_seconds=seconds))

    def _next_load(self) -> int | None:
        if self.screen and self.utility:
            return None
        if self.infeasible_load is None:
            return (
                None
                if self.feasible_load >= self.max_load
                else min(self.max_load, max(self.start, 2 * self.feasible_load))
            )
        if not self.feasible_load:
            return None if self.infeasible_load == 1 else max(1, self.infeasible_load // 2)
        if self.infeasible_load - self.feasible_load <= max(1, PRECISION * self.feasible_load):
            return None
        middle = round(math.sqrt(self.feasible_load * self.infeasible_load))
        return min(max(middle, self.feasible_load + 1), self.infeasible_load - 1)

    def tell(self, result: LoadPointResult) -> None:
        judged = judge_load_point(result, self.gpus, self.experiment)
        load = judged.load_point.concurrency or 0
        self.utility[load] = judged.score.utility if judged.score else 0.0
        if margin(judged, self.experiment) >= 0:
            self.feasible_load = max(self.feasible_load, load)
        else:
            self.infeasible_load = min(self.infeasible_load or load, load)
            self.given_up = self.utility[load] * (1 + (SHORT_SLACK if self.screen else SLACK)) < self.floor

    @property
    def value(self) -> float:
        """The utility at the capacity; 0 if no load meets the targets."""
        return self.utility.get(self.feasible_load, 0.0)


class Truth:
    """The true utilities of one world's candidates, cached in a file."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.path = folder / f"world-{world.number:03d}.json"
        experiment = world.experiment(seed=SEED + world.number)
        self.session: RunSetup = RunSetup.from_experiment(experiment)
        self.evaluator = SimulatedEvaluator(experiment, self.session.engine, keep_records=False)
        self.values: dict[str, float] = {}
        self.loads: dict[str, int] = {}
        self._best: str | None = None
        cached = json.loads(self.path.read_text()) if self.path.exists() else {}
        if cached.get("world") == self._identity():
            self.values, self.loads, self._best = cached["values"], cached["loads"], cached["best"]

    def _identity(self) -> str:
        settings = (WINDOW, WARMUP, SHORT, SHORT_WARMUP, SEED, PRECISION, SLACK, SHORT_SLACK)
        constants = hashlib.sha256(CONSTANTS_FILE.read_bytes()).hexdigest()[:16]
        world = self.world
        return f"{world} {world.parameters} {world.flags} {TARGETS[world.targets]} {settings} {constants}"

    def value(self, candidate: Candidate) -> float:
        """The utility of the candidate at its capacity."""
        if candidate.key not in self.values:
            bisection = self._measure(candidate, start=8, floor=0.0)
            self._keep(candidate, bisection)
            self._save()
        return self.values[candidate.key]

    def best(self) -> float:
        """The utility of the best candidate."""
        if self._best is None:
            floor, load = 0.0, 8.0
            for candidate in self.session.space.candidates:
                start = max(1, round(load * candidate.gpus))
                if self._measure(candidate, start, floor, screen=True).given_up:
                    continue
                bisection = self._measure(candidate, start, floor)
                if bisection.given_up:
                    continue
                self._keep(candidate, bisection)
                if bisection.value > floor:
                    floor, load, self._best = bisection.value, bisection.feasible_load / candidate.gpus, candidate.key
            if self._best is None:
                return 0.0
            self._save()
        return self.values[self._best]

    def _measure(self, candidate: Candidate, start: int, floor: float, *, screen: bool = False) -> Bisection:
        experiment = self.session.experiment
        max_load = max(experiment.benchmark.num_concurrency)
        bisection = Bisection(
            experiment, candidate.gpus, self.world.scenario, min(start, max_load), floor, max_load, screen
        )
        self.evaluator.evaluate(candidate, bisection, self.path.parent)
        return bisection

    def _keep(self, candidate: Candidate, bisection: Bisection) -> None:
        self.values[candidate.key], self.loads[candidate.key] = bisection.value, bisection.feasible_load

    def _save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        data = {"world": self._identity(), "best": self._best, "values": self.values, "loads": self.loads}
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps(data))
        partial.replace(self.path)
