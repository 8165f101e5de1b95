"""Measures a candidate: a real server is started once and serves every load point."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autotuner import load
from autotuner.core import (
    CUT_OFF,
    Candidate,
    Failure,
    FailureKind,
    LoadPointResult,
    Measurement,
    Observation,
    Observer,
    Progress,
    Purpose,
    ServerSpec,
    Source,
    Stage,
    Workload,
    unobserved,
)
from autotuner.engines import Engine, Phase, Target
from autotuner.errors import EngineError, MachineError
from autotuner.evaluate.driver import Drive, endpoint_of, vocabulary_of
from autotuner.evaluate.trial_folder import TrialFolder
from autotuner.experiment import Experiment
from autotuner.launchers import Launcher, Server, ServerExitedError, gpu_meter, ports, ready
from autotuner.search.launch import Course

EXTERNAL_TIMEOUT = 30.0
"""Seconds a server that runs already gets to answer."""

PROBE_TIMEOUT = 30.0
"""Seconds an idle server gets for one token after a load point with errors."""

DYING = 5.0
"""Seconds a server that fails requests is watched, for engines take a while to end after their core died."""

MAY_BE_CHANCE = (FailureKind.PORT_IN_USE, FailureKind.DRIVER_FAULT)
"""What another launch of the same command may not meet again."""


class MeasuredEvaluator:
    """Starts each candidate's server, drives the course's load points on it, and brings back what was seen.

    `render` says how a server is started, as a script for the trial's folder. `devices` are the
    indexes of the GPUs it may use, best connected first; empty for any.
    """

    def __init__(
        self,
        experiment: Experiment,
        engine: Engine,
        launcher: Launcher,
        render: Callable[[ServerSpec], str],
        observe: Observer = unobserved,
        devices: tuple[int, ...] = (),
    ) -> None:
        self.experiment = experiment
        self.engine = engine
        self.launcher = launcher
        self.observe = observe
        self.devices = devices
        self.render = render
        self.start_seconds = engine.start_seconds

    @property
    def source(self) -> Source:
        """What the engine's numbers are."""
        return self.engine.source

    @property
    def workload(self) -> Workload:
        """The experiment's load points."""
        return self.experiment.workload()

    def clock(self) -> float:
        """Unix seconds."""
        return time.time()

    def evaluate(
        self, candidate: Candidate, course: Course, folder: Path, trial: int = 0, purpose: Purpose = "search"
    ) -> Measurement:
        """Measure `candidate`, a second time when the first failed by what may be chance; see Evaluator."""
        place = TrialFolder(folder)
        measurement = Visit(self, candidate, course, place, trial, purpose).measure()
        failure = measurement.failure
        if failure is not None and failure.kind in MAY_BE_CHANCE and not measurement.load_points:
            place.set_aside()
            measurement = Visit(self, candidate, course, place, trial, purpose).measure()
        if "load" in measurement.timings:
            self.start_seconds = measurement.timings["start"]
        return measurement


class Watched:
    """A server that starts, taken for failed when its log says so; `sign` reads the log."""

    def __init__(self, server: Server, sign: Callable[[], Failure | None]) -> None:
        self.url = server.url
        self._server = server
        self._sign = sign

    def exit_status(self) -> int | None:
        """The server's own; EngineError at the first line that means failure."""
        status = self._server.exit_status()
        if status is None and (failure := self._sign()) is not None:
            raise EngineError(failure)
        return status


class Visit:
    """One launch from start to stop, and what was gathered on it."""

    def __init__(
        self,
        owner: MeasuredEvaluator,
        candidate: Candidate,
        course: Course,
        folder: TrialFolder,
        trial: int,
        purpose: Purpose,
    ) -> None:
        self.owner = owner
        self.experiment = owner.experiment
        self.candidate = candidate
        self.course = course
        self.workload = owner.workload
        self.folder = folder
        self.trial = trial
        self.purpose = purpose
        self.began = time.monotonic()
        self.source: Source = owner.source
        self.headers: Mapping[str, str] = {}
        self.results: list[LoadPointResult] = []
        self.timings: dict[str, float] = {}
        self.said: dict[str, Any] = {}

    def measure(self) -> Measurement:
        """Launch, wait until ready, serve every load point, stop."""
        spec = self._spec()
        if spec is None:
            self.headers = ready.headers(self.experiment.deployment)
        else:
            self.folder.save_command(spec, self.owner.render(spec))
        self._tell("starting", expected_seconds=self.owner.start_seconds)
        try:
            with self.owner.launcher.launch(spec, self.folder.log) as server:
                failure = self._start(server, spec)
                if failure is None:
                    with gpu_meter.metered(spec.devices if spec else ()) as meter:
                        failure = self._load(server, spec, meter)
                self._tell("stopping")
        finally:
            self.folder.redact()
        return Measurement(self.source, tuple(self.results), failure, self.timings, self.said, spec)

    def _spec(self) -> ServerSpec | None:
        if not self.owner.launcher.starts_servers:
            return None
        return self.owner.engine.server_spec(self.candidate, self._target())

    def _target(self) -> Target:
        return Target.of(self.experiment, ports.free_port(), self.owner.devices)

    def _model(self, spec: ServerSpec | None) -> str:
        named = self.experiment.model
        return spec.served_model if spec else named.served_name or named.id_or_path

    def _start(self, server: Server, spec: ServerSpec | None) -> Failure | None:
        """Wait for the first token; the failure when there was none."""
        limit = min(self.experiment.runtime.start_timeout, self.experiment.optimization.timeout_per_iteration)
        try:
            with self._timed("start"):
                identity = ready.wait_until_ready(
                    Watched(server, self._sign) if self.experiment.runtime.fail_fast else server,
                    ready_path=spec.ready_path if spec else "/v1/models",
                    model=self._model(spec),
                    timeout=limit if spec else EXTERNAL_TIMEOUT,
                    endpoint=self.workload.endpoint,
                    headers=self.headers,
                )
        except ServerExitedError as error:
            return self._diagnose(error.exit_status, "start")
        except TimeoutError as error:
            return self._diagnose(None, "start") if spec else _unreachable(server, FailureKind.START_TIMED_OUT, error)
        except EngineError as error:
            return error.failure
        if spec is None:
            self.source = "simulated" if identity.simulated else "measured"
        self.said.update(self.owner.engine.describe(self.folder.read_log()))
        self.folder.mark_log()
        self._tell("ready")
        return None

    def _sign(self) -> Failure | None:
        return self.owner.engine.sign(self.folder.read_log())

    def _load(self, server: Server, spec: ServerSpec | None, meter: gpu_meter.Meter) -> Failure | None:
        """Drive the load points of the course; the failure that ended it early."""
        limit = self.experiment.optimization.timeout_per_iteration
        where = (server.url, self._model(spec), self.experiment.model, self.headers)
        ids = vocabulary_of(*where, self.workload)
        if ids is not None and ids.origin == "server":
            self.said["vocabulary"] = ids.size
        endpoint = endpoint_of(*where, ids)
        drive = Drive(endpoint, self.course, self.source, self.experiment.slo, self._tell, meter=meter)
        for position, step in drive.steps():
            left = limit - (time.monotonic() - self.began)
            if left < 0:
                return too_long(limit, position - 1, self.course.total)
            try:
                with self._timed("load"):
                    seen = drive.observe(position, step.within(share_of(left, position, self.course.total)))
            except MachineError as error:
                return Failure(FailureKind.INTERNAL, f"{error.what} {error.why}".strip(), error.remedy)
            self.folder.save_records(position, seen)
            failure = self._health(server, endpoint, seen, spec)
            if failure is not None:
                return failure
            self.results.append(drive.keep(position, seen))
        return None

    def _health(
        self, server: Server, endpoint: load.Endpoint, seen: Observation, spec: ServerSpec | None
    ) -> Failure | None:
        """Whether the server survived the load point; only failed requests make it ask."""
        failed = any(record.error not in (None, CUT_OFF) for record in seen.records)
        if server.exit_status() is None and not failed and not seen.ended_early:
            return None
        timeout = min(PROBE_TIMEOUT, self.workload.request_timeout)
        answer = ready.still_answers(server.url, endpoint.model, self.workload.endpoint, timeout, self.headers)
        if answer == "answer":
            return None
        deadline = time.monotonic() + DYING
        while (status := server.exit_status()) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if status is None and answer == "fault":
            return None
        if spec is None:
            return _unreachable(server, FailureKind.HUNG_UNDER_LOAD, seen.ended_early or "")
        return self._diagnose(status, "load")

    def _diagnose(self, exit_status: int | None, phase: Phase) -> Failure:
        return self.owner.engine.diagnose(self.folder.read_log(), exit_status, phase)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.monotonic() - began

    def _tell(self, stage: Stage, **more: Any) -> None:
        total = self.course.total
        self.owner.observe(Progress(stage, self.trial, self.candidate, total=total, purpose=self.purpose, **more))


def share_of(seconds: float, position: int, total: int) -> float:
    """Of the seconds left to a launch those of load point `position`, so that all others get as many."""
    return seconds / max(1, total - position + 1)


def too_long(limit: float, done: int, total: int) -> Failure:
    """The failure of a launch whose course takes more than `limit` seconds."""
    return Failure(
        FailureKind.TRIAL_TIMED_OUT,
        f"{done} of {total} load points were measured in {limit:.0f} s.",
        "Raise optimization.timeout_per_iteration, or measure fewer or shorter load points.",
    )


def _unreachable(server: Server, kind: FailureKind, why: object) -> Failure:
    return Failure(
        kind, f"{server.url} gives no token. {why}".strip(), "Look at that server; autotune did not start it."
    )
