"""What finished trials teach predictions: rows of measurements, and factors fitted to a user's own runs."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from autotuner.core import Candidate, Distribution, LoadPointResult, Observer, Progress, Trial, Verdict
from autotuner.engines import engine
from autotuner.errors import AutotuneError, UsageError
from autotuner.experiment import Experiment
from autotuner.forecaster import Foresight
from autotuner.launchers import launcher
from autotuner.predict import database, hardware
from autotuner.predict.database import Row, dtypes_name, layout_name
from autotuner.predict.fit import Point, fitted
from autotuner.predict.load_curve import Served
from autotuner.predict.local_factors import Factors, keep, key_of, parts
from autotuner.predict.predict import geometry
from autotuner.predict.traffic import Traffic
from autotuner.store import RunStore
from autotuner.workload import scenarios

log = logging.getLogger(__name__)
DOUBTFUL = (Verdict.INVALID, Verdict.CLIENT_LIMITED, Verdict.SATURATED)
"""Verdicts on load points that say nothing about how fast the engine is."""


def remembering(store: RunStore, foresight: Foresight, observe: Observer) -> Observer:
    """An observer that keeps what each finished trial measured, then calls `observe`."""

    def watch(progress: Progress) -> None:
        if progress.finished is not None:
            remember(store, foresight, progress.finished)
        observe(progress)

    return watch


def remember(store: RunStore, foresight: Foresight, trial: Trial) -> int:
    """Keep a trial's measured load points for later what-if questions; returns how many.

    Simulated figures are never kept. Nothing that goes wrong here costs the run.
    """
    rows = [_row(store, foresight, trial, result) for result in _measured(trial)]
    if not rows:
        return 0
    try:
        database.add(rows)
    except (sqlite3.Error, OSError, AutotuneError) as error:
        log.warning("The measurements were not added to %s: %s", database.path(), error)
        return 0
    return len(rows)


def _measured(trial: Trial) -> Iterator[LoadPointResult]:
    if trial.measurement.source == "measured":
        yield from (result for result in trial.measurement.load_points if result.source == "measured")


def _row(store: RunStore, foresight: Foresight, trial: Trial, result: LoadPointResult) -> Row:
    of = foresight.deployment(trial.candidate)
    point, metrics = result.load_point, result.metrics
    scenario = scenarios.parse(point.scenario)
    isl, osl = scenario.mean
    version = trial.measurement.server.get("version")
    first, each = _edges(metrics.ttft), _edges(metrics.tpot)
    return Row(
        run=str(store.path.resolve()),
        trial=trial.number,
        load=str(point),
        measured_at=trial.ended,
        candidate=trial.candidate.key,
        parameters=json.dumps(dict(trial.candidate.parameters), sort_keys=True),
        engine=trial.candidate.runtime,
        engine_version=None if version is None else str(version),
        model=store.experiment.model.id_or_path,
        geometry=geometry(of.shape) if of else None,
        gpu=of.gpu.name if of else None,
        layout=layout_name(of) if of else None,
        dtypes=dtypes_name(of) if of else None,
        scenario=point.scenario,
        isl=isl,
        osl=osl,
        prefix=_shared(trial.candidate, scenario.prefix),
        concurrency=point.concurrency,
        rate=point.rate,
        verdict=result.verdict.value,
        requests=metrics.requests,
        ttft=first[0],
        ttft_low=first[1],
        ttft_high=first[2],
        tpot=each[0],
        tpot_low=each[1],
        tpot_high=each[2],
        output_throughput=metrics.output_throughput,
        request_throughput=metrics.request_throughput,
    )


def _edges(found: Distribution | None) -> tuple[float | None, float | None, float | None]:
    if found is None:
        return None, None, None
    low, high = found.intervals.get("mean", (None, None))
    return found.mean, low, high


def _shared(candidate: Candidate, prefix: int) -> float:
    """Prompt tokens that the prefix cache holds."""
    return 0.0 if candidate.parameters.get("prefix-caching") is False else float(prefix)


@dataclass(frozen=True)
class Lesson:
    """The load points of runs that can be fitted, by engine and GPU type, and how many could not be."""

    points: dict[str, list[Point]]
    left_out: int
    source: Literal["measured", "simulated"]


def lesson(runs: Sequence[Path], *, simulated: bool = False, gpu: str | None = None) -> Lesson:
    """Read what runs measured, beside what the bundled constants predict.

    `gpu` is the GPU type of runs that do not say it. Raises UsageError where nothing can be
    fitted, and where figures are simulated and that was not asked for.
    """
    points: dict[str, list[Point]] = {}
    left_out, sources = 0, set[str]()
    for path in runs:
        store = RunStore.open(path)
        foresight = _foresight(store.experiment, gpu)
        for trial in store.trials():
            for result in trial.measurement.load_points:
                sources.add(result.source)
                made = _point(foresight, path, trial, result)
                if made is None:
                    left_out += 1
                else:
                    points.setdefault(made.key, []).append(made)
    source: Literal["measured", "simulated"] = "simulated" if "simulated" in sources else "measured"
    if source == "simulated" and not simulated:
        raise UsageError(
            "These runs are simulated, not measured.",
            why="Factors fitted to them would make predictions agree with the simulated engine, not with a real one.",
            remedy="Give runs of a real engine; or --simulated, and every prediction says so.",
        )
    if not points:
        raise UsageError(
            "No load point of these runs can be compared with a prediction.",
            why="The model's shape or the GPU type is unknown, or no closed-loop load point is valid.",
            remedy="Name the GPU with --gpu, and measure at several --concurrency levels.",
        )
    return Lesson(points, left_out, source)


def _foresight(experiment: Experiment, gpu: str | None) -> Foresight:
    chosen = engine(experiment.base_runtime)
    found = Foresight.of(experiment, chosen, launcher(experiment.deployment.mode, experiment.deployment))
    return replace(found, gpu=hardware.gpu(gpu).name) if gpu else found


def _point(foresight: Foresight, run: Path, trial: Trial, result: LoadPointResult) -> Point | None:
    """A load point beside its prediction; None where there is none, or where it cannot be believed."""
    of, concurrency = foresight.deployment(trial.candidate), result.load_point.concurrency
    ttft, tpot = result.metrics.ttft, result.metrics.tpot
    if of is None or concurrency is None or ttft is None or tpot is None or result.verdict in DOUBTFUL:
        return None
    scenario = scenarios.parse(result.load_point.scenario)
    isl, osl = (max(1, round(length)) for length in scenario.mean)
    hit = min(_shared(trial.candidate, scenario.prefix) / isl, 1 - 1 / isl)
    try:
        served = Served(of, Traffic(isl, osl, prefix_hit=hit), bundled_only=True)
        found = served.closed(concurrency)
    except AutotuneError:
        return None
    return Point(
        key=key_of(of.engine, of.gpu.name),
        launch=f"{run} {trial.number}",
        parts=parts(found, served.alone),
        ttft=ttft.mean,
        tpot=tpot.mean,
    )


@dataclass(frozen=True)
class Fitted:
    """What runs taught: all factors fitted, those that were kept, where, and how many load points were left out."""

    factors: dict[str, Factors]
    kept: tuple[str, ...]
    path: Path | None
    left_out: int
    source: Literal["measured", "simulated"]


def calibrate(runs: Sequence[str | Path], *, simulated: bool = False, gpu: str | None = None) -> Fitted:
    """Fit predictions to run folders and keep the factors that help on load points the fit had not seen.

    Three factors for each engine and GPU type, of prefill, decode and overhead; later predictions
    on this machine use them. `gpu` names the GPU type of runs that do not say it. Raises
    UsageError for too few load points, and for simulated runs unless `simulated`.
    """
    paths = [Path(run) for run in runs]
    found = lesson(paths, simulated=simulated, gpu=gpu)
    names = tuple(str(path.resolve()) for path in paths)
    made = {key: fitted(points, found.source, names) for key, points in found.points.items()}
    better = {key: by for key, by in made.items() if sum(by.after) < sum(by.before)}
    place = keep(better) if better else None
    return Fitted(made, tuple(better), place, found.left_out, found.source)
