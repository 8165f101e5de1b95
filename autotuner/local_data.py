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
from autotuner.forecaster import Forecaster
from autotuner.launchers import launcher
from autotuner.predict import database, hardware
from autotuner.predict.database import MeasuredRow, dtypes_name, layout_name
from autotuner.predict.fit import CalibrationPoint, fit_factors
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.local_factors import Factors, factors_key, save_factors, time_parts
from autotuner.predict.predict import geometry_name
from autotuner.predict.traffic import Traffic
from autotuner.store import RunStore
from autotuner.workload import scenarios

log = logging.getLogger(__name__)
UNINFORMATIVE_VERDICTS = (Verdict.INVALID, Verdict.CLIENT_LIMITED, Verdict.SATURATED)
"""Verdicts on load points that say nothing about how fast the engine is."""


def recording_observer(store: RunStore, forecaster: Forecaster, observer: Observer) -> Observer:
    """An observer that keeps what each finished trial measured, then calls `observe`."""

    def watch(progress: Progress) -> None:
        if progress.finished_trial is not None:
            record_trial(store, forecaster, progress.finished_trial)
        observer(progress)

    return watch


def record_trial(store: RunStore, forecaster: Forecaster, trial: Trial) -> int:
    """Keep a trial's measured load points for later what-if questions; returns how many.

    Simulated figures are never kept. Nothing that goes wrong here costs the run.
    """
    rows = [_measured_row(store, forecaster, trial, result) for result in _measured_results(trial)]
    if not rows:
        return 0
    try:
        database.add_rows(rows)
    except (sqlite3.Error, OSError, AutotuneError) as error:
        log.warning("The measurements were not added to %s: %s", database.path(), error)
        return 0
    return len(rows)


def _measured_results(trial: Trial) -> Iterator[LoadPointResult]:
    if trial.measurement.source == "measured":
        yield from (result for result in trial.measurement.load_points if result.source == "measured")


def _measured_row(store: RunStore, forecaster: Forecaster, trial: Trial, result: LoadPointResult) -> MeasuredRow:
    of = forecaster.model_on_gpus(trial.candidate)
    point, metrics = result.load_point, result.metrics
    scenario = scenarios.parse(point.scenario)
    isl, osl = scenario.mean_lengths
    version = trial.measurement.server.get("version")
    first, each = _mean_and_interval(metrics.ttft), _mean_and_interval(metrics.tpot)
    return MeasuredRow(
        run=str(store.path.resolve()),
        trial=trial.number,
        load=str(point),
        measured_at=trial.ended,
        candidate=trial.candidate.key,
        parameters=json.dumps(dict(trial.candidate.parameters), sort_keys=True),
        engine=trial.candidate.runtime,
        engine_version=None if version is None else str(version),
        model=store.experiment.model.id_or_path,
        geometry=geometry_name(of.shape) if of else None,
        gpu=of.gpu.name if of else None,
        layout=layout_name(of) if of else None,
        dtypes=dtypes_name(of) if of else None,
        scenario=point.scenario,
        isl=isl,
        osl=osl,
        prefix=_cached_prefix_tokens(trial.candidate, scenario.prefix_tokens),
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


def _mean_and_interval(distribution: Distribution | None) -> tuple[float | None, float | None, float | None]:
    if distribution is None:
        return None, None, None
    low, high = distribution.intervals.get("mean", (None, None))
    return distribution.mean, low, high


def _cached_prefix_tokens(candidate: Candidate, prefix: int) -> float:
    """Prompt tokens that the prefix cache holds."""
    return 0.0 if candidate.parameters.get("prefix-caching") is False else float(prefix)


@dataclass(frozen=True)
class CalibrationData:
    """The load points of runs that can be fitted, by engine and GPU type, and how many could not be."""

    points: dict[str, list[CalibrationPoint]]
    skipped_points: int
    source: Literal["measured", "simulated"]


def read_calibration_data(runs: Sequence[Path], *, simulated: bool = False, gpu: str | None = None) -> CalibrationData:
    """Read what runs measured, beside what the bundled constants predict.

    `gpu` is the GPU type of runs that do not say it. Raises UsageError where nothing can be
    fitted, and where figures are simulated and that was not asked for.
    """
    points: dict[str, list[CalibrationPoint]] = {}
    left_out, sources = 0, set[str]()
    for path in runs:
        store = RunStore.open(path)
        foresight = _forecaster_for(store.experiment, gpu)
        for trial in store.trials():
            for result in trial.measurement.load_points:
                sources.add(result.source)
                made = _calibration_point(foresight, path, trial, result)
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
    return CalibrationData(points, left_out, source)


def _forecaster_for(experiment: Experiment, gpu: str | None) -> Forecaster:
    chosen = engine(experiment.base_runtime)
    found = Forecaster.from_experiment(experiment, chosen, launcher(experiment.deployment.mode, experiment.deployment))
    return replace(found, gpu=hardware.find_gpu(gpu).name) if gpu else found


def _calibration_point(
    forecaster: Forecaster, run: Path, trial: Trial, result: LoadPointResult
) -> CalibrationPoint | None:
    """A load point beside its prediction; None where there is none, or where it cannot be believed."""
    of, concurrency = forecaster.model_on_gpus(trial.candidate), result.load_point.concurrency
    ttft, tpot = result.metrics.ttft, result.metrics.tpot
    if of is None or concurrency is None or ttft is None or tpot is None or result.verdict in UNINFORMATIVE_VERDICTS:
        return None
    scenario = scenarios.parse(result.load_point.scenario)
    isl, osl = (max(1, round(length)) for length in scenario.mean_lengths)
    hit = min(_cached_prefix_tokens(trial.candidate, scenario.prefix_tokens) / isl, 1 - 1 / isl)
    try:
        served = LoadCurve(of, Traffic(isl, osl, prefix_hit=hit), bundled_only=True)
        found = served.at_concurrency(concurrency)
    except AutotuneError:
        return None
    return CalibrationPoint(
        key=factors_key(of.engine, of.gpu.name),
        launch=f"{run} {trial.number}",
        parts=time_parts(found, served.single_request),
        ttft=ttft.mean,
        tpot=tpot.mean,
    )


@dataclass(frozen=True)
class CalibrationResult:
    """What runs taught: all factors fitted, those that were kept, where, and how many load points were left out."""

    factors: dict[str, Factors]
    kept_keys: tuple[str, ...]
    path: Path | None
    skipped_points: int
    source: Literal["measured", "simulated"]


def calibrate(runs: Sequence[str | Path], *, simulated: bool = False, gpu: str | None = None) -> CalibrationResult:
    """Fit predictions to run folders and keep the factors that help on load points the fit had not seen.

    Three factors for each engine and GPU type, of prefill, decode and overhead; later predictions
    on this machine use them. `gpu` names the GPU type of runs that do not say it. Raises
    UsageError for too few load points, and for simulated runs unless `simulated`.
    """
    paths = [Path(run) for run in runs]
    found = read_calibration_data(paths, simulated=simulated, gpu=gpu)
    names = tuple(str(path.resolve()) for path in paths)
    made = {key: fit_factors(points, found.source, names) for key, points in found.points.items()}
    better = {key: by for key, by in made.items() if sum(by.after) < sum(by.before)}
    place = save_factors(better) if better else None
    return CalibrationResult(made, tuple(better), place, found.skipped_points, found.source)
