"""Answers for a candidate with the simulated engine in virtual time: no process, no HTTP, no waiting."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import replace
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
from autotuner.search.launch import LoadPlan
from autotuner.simulate.settings import Settings, parse_settings
from autotuner.simulate.virtual_time import EngineDiedError, VirtualServer
from autotuner.simulate.world import StartError, World, build_world

BAD_FLAG_STATUS, START_FAILED_STATUS = 2, 1


class StartFailedError(Exception):
    """The simulated engine did not start: its exit status, its last words, and the seconds until then."""

    def __init__(self, status: int, message: str, seconds: float) -> None:
        super().__init__(message)
        self.status = status
        self.seconds = seconds


class SimulatedEvaluator:
    """Builds each candidate's world as the simulated engine would and drives the course on it.

    A candidate of another engine is simulated by its canonical parameters and that engine's fitted
    constants. Times are virtual: `clock` moves on by what a run on a real server would take.
    `render` says how a real server would be started, for the trial's folder. With `keep_records`
    false nothing is written.
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
        self, candidate: Candidate, load_plan: LoadPlan, folder: Path, trial: int = 0, purpose: Purpose = "search"
    ) -> Measurement:
        """Simulate `candidate` on `course`; see Evaluator."""
        visit = SimulatedLaunch(self, candidate, load_plan, folder, trial, purpose)
        measurement = visit.simulate()
        self._virtual_clock += sum(measurement.timings.values())
        return measurement

    def start(self, candidate: Candidate) -> tuple[Settings, World]:
        """The candidate's settings and world; StartFailedError when it does not start."""
        settings = self._settings(candidate)
        try:
            world = build_world(settings)
        except StartError as error:
            seconds = settings.load_seconds + settings.faults.start_delay
            raise StartFailedError(START_FAILED_STATUS, str(error), seconds) from error
        return settings, world

    def _settings(self, candidate: Candidate) -> Settings:
        experiment, own = self.experiment, candidate.runtime == self.sim.name
        world = experiment.simulate.model_copy(update={"gpu": simulated_gpu(experiment)})
        target = replace(LaunchContext.from_experiment(experiment), simulate=world)
        said = io.StringIO()
        try:
            with redirect_stderr(said):
                settings = parse_settings(
                    (
                        *self.sim.model_arguments(experiment.model),
                        *self.sim.parameter_arguments(simulated_stand_in(candidate).candidate, experiment.runtime),
                        *self.sim.fixed_arguments(target),
                        *(experiment.runtime.extra_args if own else ()),
                    )
                )
        except SystemExit as left:
            raise StartFailedError(BAD_FLAG_STATUS, said.getvalue(), 0.0) from left
        if own:
            return settings
        return replace(settings, calibration_engine=candidate.runtime, load_seconds=self.engine.expected_start_seconds)


def simulated_gpu(experiment: Experiment) -> str:
    """The GPU whose times are computed: simulate.gpu, for another engine the hardware's where it is named."""
    named = experiment.hardware.gpu_type if experiment.base_runtime != Sim.name else None
    return named or experiment.simulate.gpu


class SimulatedLaunch:
    """One virtual launch, and what was gathered on it."""

    def __init__(
        self,
        evaluator: SimulatedEvaluator,
        candidate: Candidate,
        load_plan: LoadPlan,
        folder: Path,
        trial: int,
        purpose: Purpose,
    ) -> None:
        self.evaluator = evaluator
        self.candidate = candidate
        self.load_plan = load_plan
        self.folder = TrialFolder(folder) if evaluator.keep_records else None
        self.trial = trial
        self.purpose = purpose
        self.results: list[LoadPointResult] = []
        self.timings: dict[str, float] = {}
        self.server_info: dict[str, Any] = {"version": __version__}

    def simulate(self) -> Measurement:
        """Start, serve every load point, stop."""
        spec = self._spec()
        if self.folder is not None and self.evaluator.render is not None:
            self.folder.save_command(spec, self.evaluator.render(spec))
        self._report_progress("starting", expected_seconds=self.evaluator.engine.expected_start_seconds)
        failure = self._start_and_load()
        self._report_progress("stopping")
        return Measurement(self.evaluator.source, tuple(self.results), failure, self.timings, self.server_info, spec)

    def _spec(self) -> ServerSpec:
        """What a real launch would run, whether the engine is installed here or not."""
        engine = self.evaluator.engine
        target = LaunchContext.from_experiment(self.evaluator.experiment, engine.default_port, print_only=True)
        return engine.server_spec(self.candidate, target)

    def _start_and_load(self) -> Failure | None:
        owner = self.evaluator
        try:
            settings, world = owner.start(self.candidate)
        except StartFailedError as error:
            self.timings["start"] = error.seconds
            self._log(str(error))
            return owner.sim.diagnose(str(error), error.status, "start")
        self.timings["start"] = world.start_seconds
        self.server_info["kv_tokens"] = world.kv_tokens
        if ignored := simulated_stand_in(self.candidate).ignored_parameters:
            self.server_info["not_simulated"] = list(ignored)
        self._log(f"KV cache size: {world.kv_tokens} tokens")
        self._report_progress("ready")
        try:
            return self._run_load_plan(VirtualServer(settings, world))
        except EngineDiedError as died:
            self.timings["load"] = self.timings.get("load", 0.0) + died.seconds
            self._log(str(died))
            return owner.sim.diagnose(str(died), died.status, "load")

    def _run_load_plan(self, server: VirtualServer) -> Failure | None:
        """Drive the load points of the course; the failure that ended it early."""
        owner, experiment = self.evaluator, self.evaluator.experiment
        limit = experiment.optimization.timeout_per_iteration
        for position, step in enumerate(iter(self.load_plan.ask, None), start=1):
            left = limit - sum(self.timings.values())
            if left < 0:
                return timeout_failure(limit, position - 1, self.load_plan.max_load_points)
            step = step.with_time_limit(load_point_seconds(left, position, self.load_plan.max_load_points))
            point, seconds = step.load_point, {"measuring": step.workload.duration, "warming-up": step.workload.warmup}

            def on_phase(phase: Any, point: Any = point, position: int = position, seconds: Any = seconds) -> None:
                self._report_progress(phase, load_point=point, position=position, expected_seconds=seconds[phase])

            seen = server.drive(step, on_phase)
            self.timings["load"] = server.clock
            if self.folder is not None:
                self.folder.save_records(position, seen)
            result = summarize_observation(seen, owner.source, experiment.slo)
            self.results.append(result)
            self.load_plan.tell(result)
            self._report_progress("measured", load_point=point, position=position, result=result)
        return None

    def _log(self, message: str) -> None:
        if self.folder is not None:
            with self.folder.log.open("a", encoding="utf-8") as log:
                log.write(f"autotune-sim {__version__}, simulated in virtual time: {message}\n")

    def _report_progress(self, stage: Stage, **more: Any) -> None:
        total = self.load_plan.max_load_points
        self.evaluator.observe(Progress(stage, self.trial, self.candidate, total=total, purpose=self.purpose, **more))
