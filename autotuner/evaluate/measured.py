"""Measures candidates: starts the real server once and drives every load point on it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autotuner import load
from autotuner.core import (
    CUT_OFF_ERROR,
    Candidate,
    Failure,
    FailureKind,
    LoadPointResult,
    LoadStep,
    Measurement,
    Observation,
    Observer,
    Progress,
    Purpose,
    ServerSpec,
    Source,
    Stage,
    Workload,
    ignore_progress,
)
from autotuner.endpoints.client import Client
from autotuner.endpoints.headers import request_headers, tls_trust
from autotuner.endpoints.token import probe_token
from autotuner.endpoints.version import find_version
from autotuner.engines import Engine, LaunchContext, Phase
from autotuner.errors import EngineError, MachineError
from autotuner.evaluate.clock import steady_unix_time
from autotuner.evaluate.container_command import with_whole_command
from autotuner.evaluate.driver import LoadDriver, find_vocabulary, load_endpoint
from autotuner.evaluate.trial_folder import TrialFolder
from autotuner.experiment import Experiment
from autotuner.launchers import Launcher, Server, ServerExitedError, gpu_meter, ports, ready
from autotuner.launchers.environment import launch_environment
from autotuner.search.launch import LoadPlan, ObservingLoadPlan

log = logging.getLogger(__name__)

EXIT_GRACE_SECONDS = 5.0
"""How long to wait for a failing server to exit: engines take a while to exit after their core has died."""

TRANSIENT_FAILURES = (FailureKind.PORT_IN_USE, FailureKind.DRIVER_FAULT)
"""Failures that may not recur when the same command is launched again."""


class MeasuredEvaluator:
    """Launches each candidate's server and drives a load plan on it.

    `render` turns a server spec into the script kept in the trial's folder.
    """

    def __init__(
        self,
        experiment: Experiment,
        engine: Engine,
        launcher: Launcher,
        render: Callable[[ServerSpec], str],
        observe: Observer = ignore_progress,
    ) -> None:
        self.experiment = experiment
        self.engine = engine
        self.launcher = launcher
        self.observe = observe
        self.render = render
        self.expected_start_seconds = engine.expected_start_seconds

    @property
    def source(self) -> Source:
        """Whether the engine's results are measured or simulated."""
        return self.engine.source

    @property
    def workload(self) -> Workload:
        """The experiment's load points."""
        return self.experiment.workload()

    def clock(self) -> float:
        return steady_unix_time()

    def evaluate(
        self,
        candidate: Candidate,
        load_plan: LoadPlan,
        folder: Path,
        trial_number: int = 0,
        purpose: Purpose = "search",
        devices: tuple[int, ...] = (),
    ) -> Measurement:
        """Measure `candidate`, and once more after a transient failure; see Evaluator."""
        trial_folder = TrialFolder(folder)

        def measure() -> Measurement:
            return MeasuredLaunch(self, candidate, load_plan, trial_folder, trial_number, purpose, devices).measure()

        measurement = measure()
        failure = measurement.failure
        if failure is not None and failure.kind in TRANSIENT_FAILURES and not measurement.load_points:
            trial_folder.set_log_aside()
            measurement = measure()
        if "load" in measurement.timings:
            self.expected_start_seconds = measurement.timings["start"]
        return measurement


class LogWatchedServer:
    """A starting server that counts as failed as soon as `find_startup_failure` finds a failure in its log."""

    def __init__(self, server: Server, find_startup_failure: Callable[[], Failure | None]) -> None:
        self.url = server.url
        self._server = server
        self._find_startup_failure = find_startup_failure

    def exit_status(self) -> int | None:
        """The server's exit status, None while it runs; EngineError if its log shows a failure."""
        status = self._server.exit_status()
        if status is None and (failure := self._find_startup_failure()) is not None:
            raise EngineError(failure)
        return status


class MeasuredLaunch:
    """One launch of a server, from start to stop, and its results."""

    def __init__(
        self,
        evaluator: MeasuredEvaluator,
        candidate: Candidate,
        load_plan: LoadPlan,
        folder: TrialFolder,
        trial_number: int,
        purpose: Purpose,
        devices: tuple[int, ...],
    ) -> None:
        self.evaluator = evaluator
        self.devices = devices
        self.experiment = evaluator.experiment
        self.candidate = candidate
        self.load_plan = load_plan
        self.workload = evaluator.workload
        self.folder = folder
        self.trial_number = trial_number
        self.purpose = purpose
        self.start_time = time.monotonic()
        self.source: Source = evaluator.source
        self.results: list[LoadPointResult] = []
        self.timings: dict[str, float] = {}
        self.server_info: dict[str, Any] = {}
        self.headers = request_headers(self.experiment.deployment)
        self.tls = tls_trust(self.experiment.deployment)

    def measure(self) -> Measurement:
        """Launch the server, wait until it is ready, drive every load point, stop it."""
        spec = self.evaluator.engine.server_spec(self.candidate, self._launch_context())
        command = self.evaluator.render(spec)
        self.folder.save_command(spec, command)
        log.debug("trial %d: %s", self.trial_number, command.replace("\\\n", "").strip())
        self._report_progress("starting", expected_seconds=self.evaluator.expected_start_seconds)
        try:
            with self.evaluator.launcher.launch(self._launched_spec(spec), self.folder.log) as server:
                failure = self._wait_until_ready(server, spec)
                self.folder.save_environment(launch_environment(spec, self.experiment.model, self.server_info))
                if failure is None:
                    with gpu_meter.meter_gpus(spec.devices) as meter:
                        failure = self._run_load_plan(server, spec.served_model, meter)
                self._report_progress("stopping")
        except EngineError as error:  # by the cluster, before the server started or under load
            failure = error.failure
        finally:
            self.folder.redact_log()
        return Measurement(self.source, tuple(self.results), failure, self.timings, self.server_info, spec)

    def _launched_spec(self, spec: ServerSpec) -> ServerSpec:
        """The server as its launcher needs it: OME takes only a whole command."""
        if self.experiment.deployment.mode != "ome":
            return spec
        return with_whole_command(self.candidate.runtime, spec, self.experiment.model.id_or_path)

    def _launch_context(self) -> LaunchContext:
        return LaunchContext.from_experiment(self.experiment, ports.free_port(), self.devices)

    def _wait_until_ready(self, server: Server, spec: ServerSpec) -> Failure | None:
        """Wait for the first token; return the failure if there is none."""
        start_timeout = min(self.experiment.runtime.start_timeout, self.experiment.optimization.timeout_per_iteration)
        try:
            with self._timed("start"):
                ready.wait_until_ready(
                    LogWatchedServer(server, self._startup_failure) if self.experiment.runtime.fail_fast else server,
                    ready_path=spec.ready_path,
                    model=spec.served_model,
                    timeout=start_timeout,
                    endpoint=self.workload.endpoint,
                    form=self.workload.request_form,
                )
        except ServerExitedError as error:
            return self._diagnose(error.exit_status, "start")
        except TimeoutError:
            return self._diagnose(None, "start")
        except EngineError as error:
            return error.failure
        self.server_info.update(self.evaluator.engine.diagnosis.server_info(self.folder.read_log()))
        if "version" not in self.server_info:
            with Client(server.url) as client:
                version = find_version(client)
            self.server_info |= {"version": version} if version else {}
        self.folder.mark_log()
        self._report_progress("ready")
        if isinstance(self.load_plan, ObservingLoadPlan):
            self.load_plan.server_ready(self.server_info, self.timings["start"])
        return None

    def _startup_failure(self) -> Failure | None:
        return self.evaluator.engine.diagnosis.startup_failure(self.folder.read_log())

    def _run_load_plan(
        self, server: Server, served_model: str, meter: gpu_meter.GpuMeter | None = None
    ) -> Failure | None:
        """Drive the load points of the plan; return the failure that ended it early."""
        launch_timeout, total = self.experiment.optimization.timeout_per_iteration, self.load_plan.max_load_points
        target = (server.url, served_model, self.experiment.model, self.headers)
        vocabulary = find_vocabulary(*target, self.workload, self.tls)
        self.server_info["vocabulary"] = asdict(vocabulary) if vocabulary else None
        endpoint = load_endpoint(*target, vocabulary, self.tls)
        self._prepare_load(endpoint)
        slo = self.experiment.slo
        driver = LoadDriver(endpoint, self.load_plan, self.source, slo, self._report_progress, meter=meter)
        for position, step in driver.steps():
            remaining = launch_timeout - (time.monotonic() - self.start_time)
            if remaining < 0:
                return timeout_failure(launch_timeout, position - 1, total)
            step = step.with_time_limit(load_point_seconds(remaining, position, total))
            try:
                with self._timed("load"):
                    observation = self._observe(driver, position, step)
            except MachineError as error:
                return Failure(FailureKind.INTERNAL, f"{error.what} {error.why}".strip(), error.remedy)
            failure = self._record(server, driver, position, observation)
            if failure is not None:
                return failure
        return None

    def _prepare_load(self, endpoint: load.Endpoint) -> None:
        """Find out what else must be known before the load; nothing of a server that was just started."""

    def _observe(self, driver: LoadDriver, position: int, step: LoadStep) -> Observation:
        return driver.observe(position, step)

    def _record(self, server: Server, driver: LoadDriver, position: int, observation: Observation) -> Failure | None:
        """Keep records and result of a load point; the failure if the server did not survive it."""
        self.folder.save_records(position, observation)
        failure = self._check_health(server, driver.endpoint, observation)
        if failure is None:
            self.results.append(driver.record_result(position, observation))
        return failure

    def _check_health(self, server: Server, endpoint: load.Endpoint, observation: Observation) -> Failure | None:
        """Return the failure if the server did not survive the load point; probed only after failed requests."""
        has_errors = any(record.error not in (None, CUT_OFF_ERROR) for record in observation.records)
        if server.exit_status() is None and not has_errors and not observation.abort_reason:
            return None
        outcome = probe_token(
            endpoint, self.workload.endpoint, self.workload.request_timeout, self.workload.request_form
        )
        if outcome in ("token", "refusal"):
            return None
        deadline = time.monotonic() + EXIT_GRACE_SECONDS
        while (status := server.exit_status()) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        # a server that lives and answers 5xx is overloaded, not dead
        if status is None and outcome == "fault":
            return None
        return self._diagnose(status, "load")

    def _diagnose(self, exit_status: int | None, phase: Phase) -> Failure:
        return self.evaluator.engine.diagnosis.failure(self.folder.read_log(), exit_status, phase)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start_time = time.monotonic()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.monotonic() - start_time

    def _report_progress(self, stage: Stage, **more: Any) -> None:
        total = self.load_plan.max_load_points
        self.evaluator.observe(
            Progress(stage, self.trial_number, self.candidate, total=total, purpose=self.purpose, **more)
        )


def load_point_seconds(remaining: float, position: int, total: int) -> float:
    """An equal share of a launch's `remaining` seconds for each of its load points from `position` to `total`."""
    return remaining / max(1, total - position + 1)


def timeout_failure(timeout: float, completed: int, total: int) -> Failure:
    """The failure of a launch whose load plan takes more than `timeout` seconds."""
    return Failure(
        FailureKind.TRIAL_TIMED_OUT,
        f"{completed} of {total} load points were measured in {timeout:.0f} s.",
        "Raise optimization.timeout_per_iteration, or measure fewer or shorter load points.",
    )
