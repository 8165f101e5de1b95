"""Evaluates candidates on the simulated engine in virtual time: no process, no HTTP, no waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from autotuner import __version__
from autotuner.core import (
    Candidate,
    Failure,
    LoadPointResult,
    Measurement,
    Observer,
    Progress,
    Purpose,
    ServerSpec,
    Source,
    Stage,
    Workload,
    ignore_progress,
)
from autotuner.engines import Engine, LaunchContext
from autotuner.engines.as_simulated import simulated_stand_in
from autotuner.engines.sim import Sim
from autotuner.evaluate.driver import summarize_observation
from autotuner.evaluate.measured import load_point_seconds, timeout_failure
from autotuner.evaluate.trial_folder import TrialFolder
from autotuner.experiment import Experiment
from autotuner.model_files import path_or_name
from autotuner.search.launch import LoadPlan, ObservingLoadPlan
from autotuner.simulate.settings import BAD_FLAG_STATUS, SettingsError, SimulationSettings
from autotuner.simulate.started_engine import START_FAILED_STATUS, StartedEngine, StartError, start_engine
from autotuner.simulate.virtual_time import EngineDiedError, VirtualServer


class StartFailedError(Exception):
    """The simulated engine failed to start, with exit status `status`, after `seconds`."""

    def __init__(self, status: int, message: str, seconds: float) -> None:
        super().__init__(message)
        self.status = status
        self.seconds = seconds


class SimulatedEvaluator:
    """Simulates each candidate's engine and drives a load plan on it.

    A candidate of another engine is simulated with its canonical parameters and that engine's calibrated
    efficiencies. Times are virtual: `clock` advances by what a launch of a real server would take. `render`
    turns the real server's spec into the script kept in the trial's folder. Without `keep_records` nothing
    is written.
    """

    source: Source = "simulated"

    def __init__(
        self,
        experiment: Experiment,
        engine: Engine,
        observe: Observer = ignore_progress,
        *,
        render: Callable[[ServerSpec], str] | None = None,
        keep_records: bool = True,
    ) -> None:
        self.experiment = experiment
        self.render = render
        self.engine = engine
        self.observe = observe
        self.keep_records = keep_records
        self.sim = Sim()
        self._virtual_clock = time.time()

    @property
    def workload(self) -> Workload:
        """The experiment's load points."""
        return self.experiment.workload()

    def clock(self) -> float:
        """Unix seconds, as if every launch had taken its virtual time."""
        return self._virtual_clock

    def evaluate(
        self,
        candidate: Candidate,
        load_plan: LoadPlan,
        folder: Path,
        trial_number: int = 0,
        purpose: Purpose = "search",
        devices: tuple[int, ...] = (),
    ) -> Measurement:
        """Simulate `candidate` under `load_plan`; see Evaluator."""
        measurement = SimulatedLaunch(self, candidate, load_plan, folder, trial_number, purpose).simulate()
        self._virtual_clock += sum(measurement.timings.values())
        return measurement

    def start(self, candidate: Candidate) -> tuple[SimulationSettings, StartedEngine]:
        """The settings and the simulated engine of a candidate; StartFailedError if it does not start."""
        settings = self._settings(candidate)
        try:
            started_engine = start_engine(settings)
        except StartError as error:
            seconds = settings.load_seconds + settings.faults.start_delay
            raise StartFailedError(START_FAILED_STATUS, str(error), seconds) from error
        return settings, started_engine

    def _settings(self, candidate: Candidate) -> SimulationSettings:
        """The candidate's settings as the simulated server would have them, with the experiment's GPU."""
        experiment, is_sim_candidate = self.experiment, candidate.runtime == self.sim.name
        try:
            settings = SimulationSettings.of(
                simulated_stand_in(candidate).candidate,
                path_or_name(experiment.model),
                experiment.simulate.model_copy(update={"gpu": simulated_gpu(experiment)}),
                experiment.runtime.extra_args if is_sim_candidate else (),
            )
        except SettingsError as error:
            raise StartFailedError(BAD_FLAG_STATUS, str(error), 0.0) from error
        if is_sim_candidate:
            return settings
        return replace(settings, calibration_engine=candidate.runtime, load_seconds=self.engine.expected_start_seconds)


def simulated_gpu(experiment: Experiment) -> str:
    """The GPU type to simulate: `hardware.gpu_type` for real engines if it is set, else `simulate.gpu`."""
    gpu_type = experiment.hardware.gpu_type if experiment.base_runtime != Sim.name else None
    return gpu_type or experiment.simulate.gpu


class SimulatedLaunch:
    """One launch in virtual time, and its results."""

    def __init__(
        self,
        evaluator: SimulatedEvaluator,
        candidate: Candidate,
        load_plan: LoadPlan,
        folder: Path,
        trial_number: int,
        purpose: Purpose,
    ) -> None:
        self.evaluator = evaluator
        self.candidate = candidate
        self.load_plan = load_plan
        self.folder = TrialFolder(folder) if evaluator.keep_records else None
        self.trial_number = trial_number
        self.purpose = purpose
        self.results: list[LoadPointResult] = []
        self.timings: dict[str, float] = {}
        self.server_info: dict[str, Any] = {"version": __version__}

    def simulate(self) -> Measurement:
        """Start the engine, drive every load point, stop it."""
        spec = self._spec()
        if self.folder is not None and self.evaluator.render is not None:
            self.folder.save_command(spec, self.evaluator.render(spec))
        self._report_progress("starting", expected_seconds=self.evaluator.engine.expected_start_seconds)
        failure = self._start_and_load()
        self._report_progress("stopping")
        return Measurement(self.evaluator.source, tuple(self.results), failure, self.timings, self.server_info, spec)

    def _spec(self) -> ServerSpec:
        """The server of a real launch, whether or not the engine is installed on this machine."""
        engine = self.evaluator.engine
        context = LaunchContext.from_experiment(self.evaluator.experiment, engine.default_port, print_only=True)
        return engine.server_spec(self.candidate, context)

    def _start_and_load(self) -> Failure | None:
        evaluator = self.evaluator
        try:
            settings, started_engine = evaluator.start(self.candidate)
        except StartFailedError as error:
            self.timings["start"] = error.seconds
            self._log(str(error))
            return evaluator.sim.diagnosis.failure(str(error), error.status, "start")
        self.timings["start"] = started_engine.start_seconds
        self.server_info["kv_tokens"] = started_engine.kv_tokens
        self.server_info["max_running_requests"] = started_engine.limits.max_running_requests
        if ignored_parameters := simulated_stand_in(self.candidate).ignored_parameters:
            self.server_info["not_simulated"] = list(ignored_parameters)
        self._log(f"KV cache size: {started_engine.kv_tokens} tokens")
        self._report_progress("ready")
        if isinstance(self.load_plan, ObservingLoadPlan):
            self.load_plan.server_ready(self.server_info, self.timings["start"])
        try:
            return self._run_load_plan(VirtualServer(settings, started_engine))
        except EngineDiedError as error:
            self.timings["load"] = self.timings.get("load", 0.0) + error.seconds
            self._log(str(error))
            return evaluator.sim.diagnosis.failure(str(error), error.status, "load")

    def _run_load_plan(self, server: VirtualServer) -> Failure | None:
        """Drive the load points of the plan; return the failure that ended it early."""
        experiment, total = self.evaluator.experiment, self.load_plan.max_load_points
        launch_timeout = experiment.optimization.timeout_per_iteration
        for position, step in enumerate(iter(self.load_plan.ask, None), start=1):
            remaining = launch_timeout - sum(self.timings.values())
            if remaining < 0:
                return timeout_failure(launch_timeout, position - 1, total)
            step = step.with_time_limit(load_point_seconds(remaining, position, total))
            durations = {"measuring": step.workload.duration, "warming-up": step.workload.warmup}
            report = partial(self._report_progress, load_point=step.load_point, position=position)

            def on_phase(phase: Any, report: Any = report, durations: Any = durations) -> None:
                report(phase, expected_seconds=durations[phase])

            observation = server.drive(step, on_phase)
            self.timings["load"] = server.clock
            if self.folder is not None:
                self.folder.save_records(position, observation)
            result = summarize_observation(observation, self.evaluator.source, experiment.slo)
            self.results.append(result)
            if isinstance(self.load_plan, ObservingLoadPlan):
                self.load_plan.observe(observation)
            self.load_plan.tell(result)
            report("measured", result=result)
        return None

    def _log(self, message: str) -> None:
        if self.folder is not None:
            with self.folder.log.open("a", encoding="utf-8") as log:
                log.write(f"autotune-sim {__version__}, simulated in virtual time: {message}\n")

    def _report_progress(self, stage: Stage, **more: Any) -> None:
        total = self.load_plan.max_load_points
        self.evaluator.observe(
            Progress(stage, self.trial_number, self.candidate, total=total, purpose=self.purpose, **more)
        )
