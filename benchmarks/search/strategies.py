"""Run one strategy in one world: the chosen candidate and what the search cost."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worlds import LADDER, World

from autotuner.core import Candidate, LoadPoint, Trial
from autotuner.evaluate.simulated import SimulatedEvaluator
from autotuner.execute.serial import SerialExecutor
from autotuner.run_setup import RunSetup
from autotuner.scoring.judge import judge
from autotuner.scoring.rank import rank
from autotuner.search.launch import ListedLoads
from autotuner.search.margins import margin
from autotuner.tune import tune

TPE_LAUNCHES = 40


@dataclass(frozen=True)
class SearchOutcome:
    """The choice of a strategy, its cost in launches and load points, and its confirmations, which come on top."""

    chosen: Candidate | None
    launches: int
    load_points: int
    confirmations: int
    seconds: float


@dataclass
class InMemoryRecord:
    """A record of trials without a file."""

    folder: Path
    finished: list[Trial] = field(default_factory=list)
    opened: int = 0

    def summaries(self) -> list[Trial]:
        return list(self.finished)

    def open_trial(self) -> tuple[int, Path]:
        """A new trial's number, and a folder that stays empty."""
        self.opened += 1
        return self.opened, self.folder

    def append(self, trial: Trial) -> None:
        self.finished.append(trial)


def tuned_by(strategy: str, launches: int = 40, **benchmark: Any) -> Callable[[World], SearchOutcome]:
    """A strategy of the package in its own loop; `benchmark` overrides the experiment's section of that name."""

    def search(world: World) -> SearchOutcome:
        experiment = world.experiment(strategy, launches=launches, **benchmark)
        session = RunSetup.from_experiment(experiment)
        executor = SerialExecutor(SimulatedEvaluator(experiment, session.engine, keep_records=False))
        with tempfile.TemporaryDirectory() as folder:
            record = InMemoryRecord(Path(folder))
            tune(experiment, session.create_searcher(), executor, record)
        ranking = rank(record.summaries(), experiment)
        search_trials = [trial for trial in record.finished if trial.purpose != "confirmation"]
        return SearchOutcome(
            chosen=ranking.winner.candidate if ranking.winner else None,
            launches=len(search_trials),
            load_points=sum(len(trial.measurement.load_points) for trial in search_trials),
            confirmations=len(record.finished) - len(search_trials),
            seconds=sum(sum(trial.measurement.timings.values()) for trial in record.finished),
        )

    return search


def tpe_one_load_point(world: World) -> SearchOutcome:
    """Optuna's TPE over parameters and concurrency together, with one launch per load point, as is common.

    Targets are constraints; it chooses the best launch that met them.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    experiment = world.experiment()
    session = RunSetup.from_experiment(experiment)
    evaluator = SimulatedEvaluator(experiment, session.engine, keep_records=False)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=world.number))
    feasible: list[tuple[float, Trial]] = []
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, TPE_LAUNCHES + 1):
            suggestion = study.ask()
            values = {
                name: suggestion.suggest_categorical(name, list(choices)) for name, choices in world.parameters.items()
            }
            load = suggestion.suggest_int("concurrency", LADDER[0], LADDER[-1], log=True)
            candidate = Candidate("sim", values)
            load_plan = ListedLoads(experiment.workload().for_load_point(LoadPoint(world.scenario, concurrency=load)))
            measurement = evaluator.evaluate(candidate, load_plan, Path(folder), number)
            seconds += sum(measurement.timings.values())
            trial = judge(Trial(number, candidate, measurement, 0.0, 0.0), experiment)
            target_margin, utility = -1.0, 0.0
            for result in trial.measurement.load_points:
                target_margin, utility = margin(result, experiment), result.score.utility if result.score else 0.0
            suggestion.set_constraint("targets", -target_margin)
            study.tell(suggestion, math.log(max(utility, 1e-3)))
            if target_margin >= 0:
                feasible.append((utility, trial))
    chosen = max(feasible, key=lambda pair: pair[0], default=None)
    return SearchOutcome(chosen[1].candidate if chosen else None, TPE_LAUNCHES, TPE_LAUNCHES, 0, seconds)


STRATEGIES: Mapping[str, Callable[[World], SearchOutcome]] = {
    "racing": tuned_by("racing", launches=41, find_capacity=True),
    "grid": tuned_by("grid_search", launches=41, find_capacity=True),
    "random, 10 launches": tuned_by("random", launches=11, find_capacity=True),
    "TPE, a launch per load point": tpe_one_load_point,
}
