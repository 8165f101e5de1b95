"""Measures a server that is already running: drives the load points, and stops where it gives no token any more."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from autotuner import load
from autotuner.core import (
    CUT_OFF_ERROR,
    EARLY_STOP_ERROR,
    Candidate,
    Failure,
    FailureKind,
    LoadPointResult,
    Measurement,
    Observation,
    Observer,
    Progress,
    Purpose,
    Source,
    Stage,
    Workload,
    ignore_progress,
)
from autotuner.endpoints.client import Client
from autotuner.endpoints.headers import request_headers, tls_trust
from autotuner.endpoints.models import ServedModel
from autotuner.endpoints.token import probe_token
from autotuner.endpoints.version import find_version
from autotuner.errors import EngineError, MachineError
from autotuner.evaluate.driver import LoadDriver, find_vocabulary, load_endpoint
from autotuner.evaluate.measured import load_point_seconds, timeout_failure
from autotuner.evaluate.trial_folder import TrialFolder
from autotuner.experiment import Experiment
from autotuner.launchers import ready
from autotuner.launchers.environment import launch_environment
from autotuner.launchers.external import ExternalLauncher, ExternalServer
from autotuner.scoring.reasons import CUT_SHORT
from autotuner.search.launch import LoadPlan
from autotuner.traces import TraceDescription

log = logging.getLogger(__name__)

READY_SECONDS = 30.0
"""Time for a server that autotune did not start to answer its first request."""

LENGTHS_NOT_HELD = (
    "The server ends its answers before their length, as it does not hold ignore_eos: "
    "they are measured as they are, and the output-length check fails."
)


class ExternalEvaluator:
    """Drives load plans on the server at the experiment's URL, whatever the candidate.

    A server that was `served` a moment ago is not asked again whether it is ready, so that load is sent even to one
    that does not answer. `traces` describes the recorded traffic of the load. `save` is called with the measurement
    so far before the load and after each load point. Without `keep_records` no file is written.
    """

    def __init__(
        self,
        experiment: Experiment,
        observe: Observer = ignore_progress,
        *,
        served: ServedModel | None = None,
        traces: Sequence[TraceDescription] = (),
        save: Callable[[Measurement], None] = lambda measurement: None,
        keep_records: bool = True,
    ) -> None:
        self.experiment = experiment
        self.observe = observe
        self.served = served
        self.traces = tuple(traces)
        self.save = save
        self.keep_records = keep_records

    @property
    def source(self) -> Source:
        """Whether the server is the simulated engine, as far as it was asked."""
        return "simulated" if self.served is not None and self.served.is_simulated else "measured"

    @property
    def workload(self) -> Workload:
        """The experiment's load points."""
        return self.experiment.workload()

    def clock(self) -> float:
        return time.time()

    def evaluate(
        self,
        candidate: Candidate,
        load_plan: LoadPlan,
        folder: Path,
        trial_number: int = 0,
        purpose: Purpose = "search",
        devices: tuple[int, ...] = (),
    ) -> Measurement:
        """Measure the server under `load_plan`; see Evaluator."""
        trial_folder = TrialFolder(folder) if self.keep_records else None
        return ExternalLoad(self, candidate, load_plan, trial_folder, trial_number, purpose).measure()


class ExternalLoad:
    """One load plan on a server that is already running, and its results."""

    def __init__(
        self,
        evaluator: ExternalEvaluator,
        candidate: Candidate,
        load_plan: LoadPlan,
        folder: TrialFolder | None,
        trial_number: int,
        purpose: Purpose,
    ) -> None:
        self.evaluator = evaluator
        self.experiment = evaluator.experiment
        self.candidate = candidate
        self.load_plan = load_plan
        self.workload = evaluator.workload
        self.folder = folder
        self.trial_number = trial_number
        self.purpose = purpose
        self.url = ExternalLauncher(self.experiment.deployment).url
        self.headers = request_headers(self.experiment.deployment)
        self.tls = tls_trust(self.experiment.deployment)
        self.start_time = time.monotonic()
        self.source: Source = evaluator.source
        self.results: list[LoadPointResult] = []
        self.timings: dict[str, float] = {}
        self.remarks = list(evaluator.served.remarks) if evaluator.served else []
        self.server_info: dict[str, Any] = {"traces": [asdict(trace) for trace in evaluator.traces]}

    def measure(self) -> Measurement:
        """Wait for the server, drive every load point on it, and ask for its version."""
        self._report_progress("starting")
        failure = None if self.evaluator.served else self._wait_until_ready()
        if failure is None:
            self._report_progress("ready")
            load_start = time.monotonic()
            failure = self._run_load_plan()
            self.timings["load"] = time.monotonic() - load_start
        self._report_progress("stopping")
        if self.folder is not None:
            if any(result.answered_requests for result in self.results):
                with Client(self.url, self.headers, self.tls) as client:
                    version = find_version(client)
                self.server_info |= {"version": version} if version else {}
            self.folder.save_environment(launch_environment(None, self.experiment.model, self.server_info))
        return self._measurement(failure)

    def _measurement(self, failure: Failure | None = None) -> Measurement:
        server_info = {**self.server_info, "remarks": list(self.remarks)}
        outcome = replace(self.load_plan.outcome, max_load_points=self.load_plan.max_load_points)
        return Measurement(self.source, tuple(self.results), failure, self.timings, server_info, outcome=outcome)

    @property
    def _served_model(self) -> str:
        return self.experiment.model.served_name or self.experiment.model.id_or_path

    def _wait_until_ready(self) -> Failure | None:
        """Wait for the first token; return the failure if there is none."""
        try:
            models = ready.wait_until_ready(
                ExternalServer(self.url),
                ready_path=None,
                model=self._served_model,
                timeout=READY_SECONDS,
                endpoint=self.workload.endpoint,
                headers=self.headers,
                form=self.workload.request_form,
                tls=self.tls,
            )
        except TimeoutError as error:
            return _no_token_failure(FailureKind.START_TIMED_OUT, f"{self.url} gives no token. {error}")
        except EngineError as error:
            return error.failure
        self.timings["start"] = time.monotonic() - self.start_time
        self.source = "simulated" if models.is_simulated else "measured"
        return None

    def _run_load_plan(self) -> Failure | None:
        """Drive the load points of the plan; return the failure that ended it early."""
        launch_timeout, total = self.experiment.optimization.timeout_per_iteration, self.load_plan.max_load_points
        target = (self.url, self._served_model, self.experiment.model, self.headers)
        try:
            vocabulary = find_vocabulary(*target, self.workload, self.tls)
            endpoint = load_endpoint(*target, vocabulary, self.tls)
            self.server_info["vocabulary"] = asdict(vocabulary) if vocabulary else None
            self.server_info["write_delay"] = load.first_token_delay(endpoint, self.workload)
            self.evaluator.save(self._measurement())
            driver = LoadDriver(endpoint, self.load_plan, self.source, self.experiment.slo, self._report_progress)
            for position, step in driver.steps():
                remaining = launch_timeout - (time.monotonic() - self.start_time)
                if remaining < 0:
                    return timeout_failure(launch_timeout, position - 1, total)
                step = step.with_time_limit(load_point_seconds(remaining, position, total))
                try:
                    observation = driver.observe(position, step)
                except load.MeasurementInterrupted as interrupt:
                    if interrupt.observation is not None:
                        self._record(driver, position, replace(interrupt.observation, abort_reason=CUT_SHORT))
                    raise
                self._record(driver, position, observation)
                failure = self._idle_failure(endpoint, self.results[-1])
                if failure is not None:
                    return failure
        except MachineError as error:
            return Failure(FailureKind.INTERNAL, f"{error.what} {error.why}".strip(), error.remedy)
        return None

    def _record(self, driver: LoadDriver, position: int, observation: Observation) -> None:
        """Keep the result and the records of a load point."""
        if ends_all_answers_early(observation):
            observation = without_early_stops(observation)
            if LENGTHS_NOT_HELD not in self.remarks:
                self.remarks.append(LENGTHS_NOT_HELD)
                log.warning(LENGTHS_NOT_HELD)
        self.results.append(driver.record_result(position, observation))
        if self.folder is not None:
            self.folder.save_records(position, observation)
        self.evaluator.save(self._measurement())

    def _idle_failure(self, endpoint: load.Endpoint, result: LoadPointResult) -> Failure | None:
        """The failure where a load point failed, and the idle server gives no token either."""
        if result.answered_requests and not result.ended_early:
            return None
        workload = self.workload
        if probe_token(endpoint, workload.endpoint, workload.request_timeout, workload.request_form) == "token":
            return None
        errors = ", ".join(f"{name}: {count}" for name, count in result.metrics.errors.items())
        return _no_token_failure(
            FailureKind.HUNG_UNDER_LOAD, result.ended_early or f"No request was answered ({errors or 'none ended'})."
        )

    def _report_progress(self, stage: Stage, **more: Any) -> None:
        total = self.load_plan.max_load_points
        self.evaluator.observe(
            Progress(stage, self.trial_number, self.candidate, total=total, purpose=self.purpose, **more)
        )


def _no_token_failure(kind: FailureKind, message: str) -> Failure:
    return Failure(kind, message, "Look at that server; autotune did not start it.")


def ends_all_answers_early(observation: Observation) -> bool:
    """Whether the server ended every answer of the window before its length."""
    errors = {record.error for record in observation.records if record.index >= 0 and record.error != CUT_OFF_ERROR}
    return errors == {EARLY_STOP_ERROR}


def without_early_stops(observation: Observation) -> Observation:
    """The observation with answers that ended early as answers, and not as errors."""
    records = (
        replace(record, error=None) if record.error == EARLY_STOP_ERROR else record for record in observation.records
    )
    return replace(observation, records=tuple(records))
