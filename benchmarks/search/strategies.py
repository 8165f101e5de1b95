"""Strategies on one world: what each chose, and what it spent on the way."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worlds import LADDER, World

from autotuner.core import Candidate, LoadPoint, Trial
from autotuner.evaluate.serial import SerialExecutor
from autotuner.evaluate.simulated import SimulatedEvaluator
from autotuner.scoring.judge import judge
from autotuner.search.launch import ListedLoads
from autotuner.search.margins import margin
from autotuner.session import session_for
from autotuner.tune import tune

TPE_LAUNCHES = 40


@dataclass(frozen=True)
class Searched:
    """What a strategy chose, and its launches and load points up to the choice; confirmations come on top."""

    chosen: Candidate | None
    launches: int
    load_points: int
    confirmations: int
    seconds: float


@dataclass
class Memory:
    """A record that is kept nowhere."""

    folder: Path
    kept: list[Trial] = field(default_factory=list)
    opened: int = 0

    def trials(self) -> list[Trial]:
        """All finished trials."""
        return list(self.kept)

    def open_trial(self) -> tuple[int, Path]:
        """A new trial's number, and a folder in which nothing is written."""
        self.opened += 1
        return self.opened, self.folder

    def append(self, trial: Trial) -> None:
        """Keep a trial."""
        self.kept.append(trial)


def own(strategy: str, launches: int = 40, **benchmark: Any) -> Callable[[World], Searched]:
    """One of the program's own strategies, in its own loop; `benchmark` says how it drives load."""

    def search(world: World) -> Searched:
        experiment = world.experiment(strategy, launches=launches, **benchmark)
        wiring = session_for(experiment)
        executor = SerialExecutor(SimulatedEvaluator(experiment, wiring.engine, keep_records=False))
        with tempfile.TemporaryDirectory() as folder:
            record = Memory(Path(folder))
            ranking = tune(experiment, wiring.create_searcher(), executor, record)
        searching = [trial for trial in record.kept if trial.purpose != "confirmation"]
        return Searched(
            chosen=ranking.winner.candidate if ranking.winner else None,
            launches=len(searching),
            load_points=sum(len(trial.measurement.load_points) for trial in searching),
            confirmations=len(record.kept) - len(searching),
            seconds=sum(sum(trial.measurement.timings.values()) for trial in record.kept),
        )

    return search


def tpe_one_load_point(world: World) -> Searched:
    """Optuna's TPE over parameters and concurrency together, a launch for each load point, as is common.

    Targets are constraints. It takes the best that met them.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    experiment = world.experiment()
    wiring = session_for(experiment)
    evaluator = SimulatedEvaluator(experiment, wiring.engine, keep_records=False)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=world.number))
    tried: list[tuple[float, Trial]] = []
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, TPE_LAUNCHES + 1):
            asked = study.ask()
            values = {name: asked.suggest_categorical(name, list(of)) for name, of in world.parameters.items()}
            load = asked.suggest_int("concurrency", LADDER[0], LADDER[-1], log=True)
            candidate = Candidate("sim", values)
            course = ListedLoads(experiment.workload().for_load_point(LoadPoint(world.scenario, concurrency=load)))
            measurement = evaluator.evaluate(candidate, course, Path(folder), number)
            seconds += sum(measurement.timings.values())
            trial = judge(Trial(number, candidate, measurement, 0.0, 0.0), experiment)
            inside, utility = -1.0, 0.0
            for result in trial.measurement.load_points:
                inside, utility = margin(result, experiment), result.score.utility if result.score else 0.0
            asked.set_constraint("targets", -inside)
            study.tell(asked, math.log(max(utility, 1e-3)))
            if inside >= 0:
                tried.append((utility, trial))
    chosen = max(tried, key=lambda found: found[0], default=None)
    return Searched(chosen[1].candidate if chosen else None, TPE_LAUNCHES, TPE_LAUNCHES, 0, seconds)


STRATEGIES: Mapping[str, Callable[[World], Searched]] = {
    "racing": own("racing", launches=41, find_capacity=True),
    "grid": own("grid_search", launches=41, find_capacity=True),
    "random, 10 launches": own("random", launches=11, find_capacity=True),
    "TPE, a launch per load point": tpe_one_load_point,
}
