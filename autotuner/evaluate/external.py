"""Measures a server that is already running: drives the load points, and stops where it gives no token any more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from autotuner import load
from autotuner.core import (
    CUT_OFF_ERROR,
    EARLY_STOP_ERROR,
    Candidate,
    Failure,
    FailureKind,
    LoadStep,
    Measurement,
    Observation,
    Observer,
    Purpose,
    Source,
    ignore_progress,
)
from autotuner.endpoints.client import Client
from autotuner.endpoints.models import ServedModel
from autotuner.endpoints.token import probe_token
from autotuner.endpoints.version import find_version
from autotuner.engines import engine
from autotuner.errors import EngineError
from autotuner.evaluate.driver import LoadDriver
from autotuner.evaluate.measured import MeasuredEvaluator, MeasuredLaunch
from autotuner.evaluate.trial_folder import TrialFolder
from autotuner.experiment import Experiment
from autotuner.launchers import Server, ready
from autotuner.launchers.environment import launch_environment
from autotuner.launchers.external import ExternalLauncher, ExternalServer
from autotuner.scoring.reasons import CUT_SHORT
from autotuner.search.launch import LoadPlan, ObservingLoadPlan
from autotuner.traces import TraceDescription

log = logging.getLogger(__name__)

READY_SECONDS = 30.0
"""Time for a server that autotune did not start to answer its first request."""

LENGTHS_NOT_HELD = (
    "The server ends its answers before their length, as it does not hold ignore_eos: "
    "they are measured as they are, and the output-length check fails."
)


class ExternalEvaluator(MeasuredEvaluator):
    """Drives load plans on the server at the experiment's URL, whatever the candidate.

    A server that was `served` a moment ago is not asked again whether it is ready, so that load is sent even to one
    that does not answer. `traces` describes the recorded traffic of the load. `save` is called with the measurement
    so far before the load and after each load point.
    """

    def __init__(
        self,
        experiment: Experiment,
        observe: Observer = ignore_progress,
        *,
        served: ServedModel | None = None,
        traces: Sequence[TraceDescription] = (),
        save: Callable[[Measurement], None] = lambda measurement: None,
    ) -> None:
        launcher = ExternalLauncher(experiment.deployment)
        super().__init__(experiment, engine(experiment.base_runtime), launcher, str, observe)
        self.url = launcher.url
        self.served = served
        self.traces = tuple(traces)
        self.save = save

    @property
    def source(self) -> Source:
        """Whether the server is the simulated engine, as far as it was asked."""
        return "simulated" if self.served is not None and self.served.is_simulated else "measured"

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
        return ExternalLoad(self, candidate, load_plan, TrialFolder(folder), trial_number, purpose, devices).measure()


class ExternalLoad(MeasuredLaunch):
    """One load plan on a server that is already running, and its results."""

    evaluator: ExternalEvaluator

    def measure(self) -> Measurement:
        """Wait for the server, drive every load point on it, and ask for its version."""
        served, model = self.evaluator.served, self.experiment.model
        self.server_info["traces"] = [asdict(trace) for trace in self.evaluator.traces]
        self.server_info["remarks"] = list(served.remarks) if served else []
        server, served_model = ExternalServer(self.evaluator.url), model.served_name or model.id_or_path
        self._report_progress("starting")
        failure = None if served else self._wait_for_token(server, served_model)
        if failure is None:
            self._report_progress("ready")
            if isinstance(self.load_plan, ObservingLoadPlan):
                self.load_plan.server_ready({**self.server_info, "source": self.source}, self.timings.get("start", 0.0))
            failure = self._run_load_plan(server, served_model)
        self._report_progress("stopping")
        if any(result.answered_requests for result in self.results):
            with Client(server.url, self.headers, self.tls) as client:
                version = find_version(client)
            self.server_info |= {"version": version} if version else {}
        self.folder.save_environment(launch_environment(None, model, self.server_info))
        return self._measurement(failure)

    def _measurement(self, failure: Failure | None = None) -> Measurement:
        outcome = replace(self.load_plan.outcome, max_load_points=self.load_plan.max_load_points)
        return Measurement(
            self.source, tuple(self.results), failure, self.timings, dict(self.server_info), outcome=outcome
        )

    def _wait_for_token(self, server: ExternalServer, served_model: str) -> Failure | None:
        """Wait for the first token; return the failure if there is none."""
        try:
            with self._timed("start"):
                models = ready.wait_until_ready(
                    server,
                    ready_path=None,
                    model=served_model,
                    timeout=READY_SECONDS,
                    endpoint=self.workload.endpoint,
                    headers=self.headers,
                    form=self.workload.request_form,
                    tls=self.tls,
                )
        except TimeoutError as error:
            return _no_token_failure(FailureKind.START_TIMED_OUT, f"{server.url} gives no token. {error}")
        except EngineError as error:
            return error.failure
        self.source = "simulated" if models.is_simulated else "measured"
        return None

    def _prepare_load(self, endpoint: load.Endpoint) -> None:
        self.server_info["write_delay"] = load.first_token_delay(endpoint, self.workload)
        self.evaluator.save(self._measurement())

    def _observe(self, driver: LoadDriver, position: int, step: LoadStep) -> Observation:
        """Drive one load point; what an interrupt leaves of it is kept."""
        try:
            return driver.observe(position, step)
        except load.MeasurementInterrupted as interrupt:
            if interrupt.observation is not None:
                self._keep(driver, position, replace(interrupt.observation, abort_reason=CUT_SHORT))
            raise

    def _record(self, server: Server, driver: LoadDriver, position: int, observation: Observation) -> Failure | None:
        """Keep a load point; the failure where it failed, and the idle server gives no token either."""
        self._keep(driver, position, observation)
        result = self.results[-1]
        if result.answered_requests and not result.ended_early:
            return None
        workload = self.workload
        if probe_token(driver.endpoint, workload.endpoint, workload.request_timeout, workload.request_form) == "token":
            return None
        errors = ", ".join(f"{name}: {count}" for name, count in result.metrics.errors.items())
        return _no_token_failure(
            FailureKind.HUNG_UNDER_LOAD, result.ended_early or f"No request was answered ({errors or 'none ended'})."
        )

    def _keep(self, driver: LoadDriver, position: int, observation: Observation) -> None:
        if ends_all_answers_early(observation):
            observation = without_early_stops(observation)
            if LENGTHS_NOT_HELD not in self.server_info["remarks"]:
                self.server_info["remarks"].append(LENGTHS_NOT_HELD)
                log.warning(LENGTHS_NOT_HELD)
        self.results.append(driver.record_result(position, observation))
        self.evaluator.save(self._measurement())
        self.folder.save_records(position, observation)


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
