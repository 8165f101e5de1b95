"""Local data for predictions: measured rows from finished trials, and ratios of a user's runs."""

from __future__ import annotations

import json
import logging
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from autotuner.core import (
    Candidate,
    Distribution,
    LoadPoint,
    LoadPointResult,
    Observer,
    Parallelism,
    Progress,
    Trial,
    Verdict,
)
from autotuner.engines import engine
from autotuner.errors import AutotuneError, UsageError
from autotuner.experiment import Experiment
from autotuner.forecaster import Forecaster
from autotuner.launchers import launcher
from autotuner.predict import database, hardware
from autotuner.predict.database import MeasuredRow, dtypes_name, layout_name
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.local_ratios import LocalRatios, held_out_errors, measured_ratio, ratios_key, save_ratios
from autotuner.predict.log_ratios import MeasuredRatio
from autotuner.predict.predict import geometry_name
from autotuner.predict.traffic import Traffic
from autotuner.runs.forecasts import LayoutForecast
from autotuner.runs.store import RunStore
from autotuner.workload import scenarios

log = logging.getLogger(__name__)
UNINFORMATIVE_VERDICTS = (Verdict.INVALID, Verdict.CLIENT_LIMITED, Verdict.SATURATED)
"""Verdicts on load points whose times are not those of the engine."""

MAX_FORECAST_LAYOUTS = 8
MAX_FORECAST_TRIALS = 50
"""Layouts that a report predicts, and the last trials whose load points correct that: a few already decide it."""


def recording_observer(store: RunStore, forecaster: Forecaster, observer: Observer) -> Observer:
    """An observer that records the load points of each finished trial, then calls `observer`."""

    def watch(progress: Progress) -> None:
        if progress.finished_trial is not None:
            record_trial(store, forecaster, progress.finished_trial)
        observer(progress)

    return watch


def record_trial(store: RunStore, forecaster: Forecaster, trial: Trial) -> int:
    """Add a trial's measured load points to the local database and return how many.

    Simulated figures are never added. A database that cannot be written is logged, and costs no trial.
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
    deployment = forecaster.model_on_gpus(trial.candidate)
    point, metrics = result.load_point, result.metrics
    scenario = scenarios.parse(point.scenario)
    isl, osl = scenario.mean_lengths
    version = trial.measurement.server.get("version")
    ttft, ttft_low, ttft_high = _mean_and_interval(metrics.ttft)
    tpot, tpot_low, tpot_high = _mean_and_interval(metrics.tpot)
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
        geometry=geometry_name(deployment.shape) if deployment else None,
        gpu=deployment.gpu.name if deployment else None,
        layout=layout_name(deployment) if deployment else None,
        dtypes=dtypes_name(deployment) if deployment else None,
        scenario=point.scenario,
        isl=isl,
        osl=osl,
        prefix=_cached_prefix_tokens(trial.candidate, scenario.prefix_tokens),
        concurrency=point.concurrency,
        rate=point.rate,
        verdict=result.verdict.value,
        requests=metrics.requests,
        ttft=ttft,
        ttft_low=ttft_low,
        ttft_high=ttft_high,
        tpot=tpot,
        tpot_low=tpot_low,
        tpot_high=tpot_high,
        output_throughput=metrics.output_throughput,
        request_throughput=metrics.request_throughput,
    )


def _mean_and_interval(distribution: Distribution | None) -> tuple[float | None, float | None, float | None]:
    if distribution is None:
        return None, None, None
    lower, upper = distribution.intervals.get("mean", (None, None))
    return distribution.mean, lower, upper


def _cached_prefix_tokens(candidate: Candidate, prefix_tokens: int) -> float:
    """Prompt tokens that hit the prefix cache: none where the candidate turns it off."""
    return 0.0 if candidate.parameters.get("prefix-caching") is False else float(prefix_tokens)


def forecast_layouts(store: RunStore, forecaster: Forecaster, candidates: Iterable[Candidate]) -> list[LayoutForecast]:
    """What the run's launches say of layouts among these candidates that it did not launch, at its highest load.

    Of each layout one candidate is predicted; none that cannot be, or of whose model nothing was measured.
    """
    trials = store.summaries()
    launched = {trial.candidate.parallelism for trial in trials}
    others: dict[Parallelism, Candidate] = {}
    for candidate in candidates:
        if candidate.parallelism not in launched:
            others.setdefault(candidate.parallelism, candidate)
    load_points = store.experiment.workload().load_points
    if not others or not load_points:
        return []
    measured: dict[str, list[MeasuredRatio]] = {}
    for trial in trials[-MAX_FORECAST_TRIALS:]:
        for result in trial.measurement.load_points:
            if (measured_point := _calibration_point(forecaster, store.path, trial, result)) is not None:
                measured.setdefault(measured_point[0], []).append(measured_point[1])
    forecasts = (
        _layout_forecast(forecaster, candidate, load_points[-1], measured)
        for candidate in list(others.values())[:MAX_FORECAST_LAYOUTS]
    )
    return [forecast for forecast in forecasts if forecast is not None]


def _layout_forecast(
    forecaster: Forecaster, candidate: Candidate, point: LoadPoint, measured: Mapping[str, Sequence[MeasuredRatio]]
) -> LayoutForecast | None:
    deployment, before = forecaster.model_on_gpus(candidate), forecaster.predict_from_constants(candidate, point)
    ratios = measured.get(ratios_key(deployment), ()) if deployment else ()
    if before is None or not ratios:
        return None
    intervals: list[dict[str, tuple[float, float]]] = [
        {"ttft": (*prediction.ttft_interval,), "tpot": (*prediction.tpot_interval,)}
        for prediction in (before, forecaster.corrected(before, ratios, candidate, point))
    ]
    if not all(math.isfinite(end) for each in intervals for interval in each.values() for end in interval):
        return None  # a load that this layout cannot take
    return LayoutForecast(candidate.parallelism.by_parameter, str(point), intervals[0], intervals[1])


@dataclass(frozen=True)
class CalibrationData:
    """Load points of runs over their predictions, by `ratios_key`, and how many had to be skipped."""

    points: dict[str, list[MeasuredRatio]]
    skipped_points: int
    source: Literal["measured", "simulated"]


def read_calibration_data(runs: Sequence[Path], *, simulated: bool = False, gpu: str | None = None) -> CalibrationData:
    """Read the load points of runs beside the predictions of the bundled constants.

    `gpu` is the GPU type of runs that do not name one. Raises UsageError where nothing can be
    fitted, and for simulated figures unless `simulated`.
    """
    points: dict[str, list[MeasuredRatio]] = {}
    skipped_points, sources = 0, set[str]()
    for path in runs:
        store = RunStore.open(path)
        forecaster = _forecaster_for(store.experiment, gpu)
        for trial in store.trials():
            for result in trial.measurement.load_points:
                sources.add(result.source)
                point = _calibration_point(forecaster, path, trial, result)
                if point is None:
                    skipped_points += 1
                else:
                    key, ratio = point
                    points.setdefault(key, []).append(ratio)
    source: Literal["measured", "simulated"] = "simulated" if "simulated" in sources else "measured"
    if source == "simulated" and not simulated:
        raise UsageError(
            "These runs are simulated, not measured.",
            why="A calibration on them would make predictions agree with the simulated engine, not with a real one.",
            remedy="Give runs of a real engine; or --simulated, and every prediction says so.",
        )
    if not points:
        raise UsageError(
            "No load point of these runs can be compared with a prediction.",
            why="The model's shape or the GPU type is unknown, or no closed-loop load point is valid.",
            remedy="Name the GPU with --gpu, and measure at several --concurrency levels.",
        )
    return CalibrationData(points, skipped_points, source)


def _forecaster_for(experiment: Experiment, gpu: str | None) -> Forecaster:
    forecaster = Forecaster.from_experiment(
        experiment, engine(experiment.base_runtime), launcher(experiment.deployment.mode, experiment.deployment)
    )
    return replace(forecaster, gpu=hardware.find_gpu(gpu).name) if gpu else forecaster


def _calibration_point(
    forecaster: Forecaster, run: Path, trial: Trial, result: LoadPointResult
) -> tuple[str, MeasuredRatio] | None:
    """The `ratios_key` and ratio of a closed-loop load point; None without a prediction or a valid verdict."""
    deployment, concurrency = forecaster.model_on_gpus(trial.candidate), result.load_point.concurrency
    ttft, tpot = result.metrics.ttft, result.metrics.tpot
    if deployment is None or concurrency is None or ttft is None or tpot is None:
        return None
    if result.verdict in UNINFORMATIVE_VERDICTS:
        return None
    scenario = scenarios.parse(result.load_point.scenario)
    isl, osl = (max(1, round(length)) for length in scenario.mean_lengths)
    prefix_hit = min(_cached_prefix_tokens(trial.candidate, scenario.prefix_tokens) / isl, 1 - 1 / isl)
    try:
        traffic = Traffic(isl, osl, prefix_hit=prefix_hit)
        prediction = LoadCurve(deployment, traffic, bundled_only=True).at_concurrency(concurrency)
    except AutotuneError:
        return None
    launch = f"{run.resolve()} {trial.number}"
    ratio = measured_ratio(launch, deployment, traffic, concurrency, prediction, ttft.mean, tpot.mean)
    return ratios_key(deployment), ratio


@dataclass(frozen=True)
class CalibrationResult:
    """Result of `calibrate`: all ratios by `ratios_key`, the keys that were kept and in which file."""

    ratios: dict[str, LocalRatios]
    kept_keys: tuple[str, ...]
    path: Path | None
    skipped_points: int
    source: Literal["measured", "simulated"]


def calibrate(runs: Sequence[str | Path], *, simulated: bool = False, gpu: str | None = None) -> CalibrationResult:
    """Keep the load points of run folders, by which later predictions on this machine are corrected.

    Where they do not lower the error of each other, they are not kept. `gpu` is the GPU type of runs that do not name
    one. Raises UsageError where nothing can be compared, and for simulated runs unless `simulated`.
    """
    paths = list({Path(run).resolve(): Path(run) for run in runs}.values())  # a run given twice counts once
    data = read_calibration_data(paths, simulated=simulated, gpu=gpu)
    names, today = tuple(str(path.resolve()) for path in paths), f"{datetime.now(UTC):%Y-%m-%d}"
    ratios = dict[str, LocalRatios]()
    for key, points in data.points.items():
        before, after = held_out_errors(points)
        ratios[key] = LocalRatios(tuple(points), data.source, before, after, today, names)
    better = {
        key: row
        for key, row in ratios.items()
        if row.before is None or row.after is None or sum(row.after) < sum(row.before)
    }
    path = save_ratios(better) if better else None
    return CalibrationResult(ratios, tuple(better), path, data.skipped_points, data.source)
