"""Load points on a server that runs already: found, driven, judged, kept. `autotuner.bench` is this."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autotuner import load
from autotuner.config import Overrides, TaskContext, compose, leaves, merge, resolved_context
from autotuner.core import (
    Candidate,
    LoadPointResult,
    Observation,
    Observer,
    Progress,
    Source,
    Stage,
    Verdict,
    Workload,
    ignore_progress,
)
from autotuner.errors import MachineError, RunStoreError
from autotuner.evaluate.driver import LoadDriver, find_vocabulary, load_endpoint
from autotuner.experiment import CAPACITY_SEARCH_RANGE, TRACE_RATE, Experiment, Model
from autotuner.launchers import endpoint as endpoints
from autotuner.launchers import ready
from autotuner.launchers.token_ids import Vocabulary
from autotuner.report.bench.folder import BenchFolder
from autotuner.report.bench.result import CUT_SHORT_REASON, BenchLoadPoint, BenchResult
from autotuner.scoring.judge import decide_verdict
from autotuner.scoring.sequential import precision_stop_rule
from autotuner.search.capacity import CapacitySearch, check_capacity
from autotuner.search.launch import ListedLoads, LoadPlan
from autotuner.workload import arrivals

PLACEHOLDER_MODEL = "model"
"""What the model is called until the server has said."""

PROBE_TIMEOUT_SECONDS = 30.0
"""Seconds an idle server gets for one token after a load point that brought none."""


class LoadTestInterrupted(KeyboardInterrupt):
    """Ctrl-C during a load test; `result` is what was measured until then, its files written."""

    def __init__(self, result: BenchResult) -> None:
        super().__init__()
        self.result = result


def bench(
    url: str,
    *,
    model: str | None = None,
    endpoint: str | None = None,
    scenarios: Sequence[str] | None = None,
    concurrency: Sequence[int] | None = None,
    rates: Sequence[float | str] | None = None,
    arrival: str | None = None,
    max_in_flight: int | None = None,
    duration: float | None = None,
    max_duration: float | None = None,
    warmup: float | None = None,
    max_requests: int | None = None,
    request_timeout: float | None = None,
    seed: int | None = None,
    slo: Mapping[str, Any] | str | None = None,
    find_capacity: bool = False,
    headers: Mapping[str, str] | None = None,
    api_key_env: str | None = None,
    load_plan: Callable[[Workload], LoadPlan] | None = None,
    output: str | Path | None = None,
    observe: Observer = ignore_progress,
    origin: str = "",
) -> BenchResult:
    """Drive load points on the OpenAI-compatible server at `url`, and judge them.

    Every scenario is driven at every concurrency (requests in flight) and every rate (requests
    per second, `arrival` poisson, constant, gamma:SHAPE, ramp:START-END or trace, at most
    `max_in_flight` at once). A rate of "trace" replays a trace as it was recorded, which is what
    happens to traces with times where neither concurrency nor rate is given.
    `duration` and `warmup` are seconds of each load point; a window goes on until the output throughput
    is known to 3% and the targets are decided, for at most `max_duration`, by itself 6 times `duration`.
    `request_timeout` is seconds of each request; `max_requests` may end a window earlier. `slo` is a
    mapping such as {"ttft": 1.0}, or the name or path of an SLO. What is None is as in the bundled
    profiles; `model` and `endpoint`
    ("completions" or "chat") are then found out, as are the token ids that the server takes.
    `api_key_env` names the variable with the key.
    With `find_capacity` the lowest and the highest load, 1 and 1024 in flight where none is given,
    bound the search for the highest one that meets the SLO, or for the knee without one; else
    `course` makes of the workload what chooses the load points. `output` is a new or empty folder
    for records, JSON, CSV and plots. `origin` is what errors call the place of these arguments.

    What the server does wrong is counted in the result, never raised. ConfigError, UsageError: the
    load, the SLO or the folder cannot be used; EndpointError: no model can be found at `url`;
    MachineError: the key's variable is not set; Interrupted: Ctrl-C.
    """
    bounds = CAPACITY_SEARCH_RANGE if find_capacity else None
    if not (concurrency or rates or find_capacity) and arrivals.are_timed_traces(scenarios or [], arrival):
        rates = [TRACE_RATE]
    asked = {
        "traffic_scenarios": scenarios,
        "find_capacity": find_capacity,
        "num_concurrency": concurrency or ([] if rates else bounds),
        "request_rates": rates,
        "arrival": arrival,
        "max_in_flight": max_in_flight,
        "duration": duration,
        "max_duration": max_duration,
        "warmup": warmup,
        "max_requests": max_requests,
        "request_timeout": request_timeout,
        "endpoint": endpoint,
        "seed": seed,
    }
    said = {name: list(v) if isinstance(v, tuple) else v for name, v in asked.items() if v is not None}
    place = {"mode": "external", "url": url, "headers": dict(headers or {}), "api_key_env": api_key_env}
    overrides = {"benchmark": said, "deployment": place}
    context = TaskContext(
        model_name=model or PLACEHOLDER_MODEL,
        base_runtime="openai",
        deployment_mode="external",
        slo_config=slo,
        optimization_objective="maximize_throughput",
        user_overrides=Overrides(overrides, {**dict.fromkeys(leaves(overrides), origin), "deployment.url": "the URL"}),
        origin=origin,
    )
    experiment = compose(context).experiment
    check_capacity(experiment)
    arrivals.check(experiment.workload())
    folder = BenchFolder.create(Path(output)) if output is not None else None
    carried = ready.request_headers(experiment.deployment)
    address = load.Endpoint(url, model or PLACEHOLDER_MODEL).address.base_url
    found = endpoints.find_served_model(
        address, carried, model=model, endpoint=experiment.benchmark.endpoint if endpoint else None
    )
    experiment = _with_server_identity(experiment, found)
    workload = experiment.workload()
    chosen = (
        CapacitySearch(experiment, gpus=1) if find_capacity else (load_plan or _precise_load_plan(experiment))(workload)
    )
    ids = find_vocabulary(address, found.model, experiment.model, carried, workload)
    test = LoadTest(address, experiment, chosen, carried, found.is_simulated, ids, folder, observe)
    return test.run()


def _precise_load_plan(experiment: Experiment) -> Callable[[Workload], LoadPlan]:
    """Courses of load points that last until their throughput is known and their targets are decided."""
    return lambda workload: ListedLoads(workload, lambda point: precision_stop_rule(experiment, point))


def with_served_model(context: TaskContext) -> TaskContext:
    """For a server that runs already: `context` with the model and the endpoint that it is found to have.

    What is named stays as it is, and is checked. Errors are those of a load test.
    """
    model = resolved_context(context).model_name
    composition = compose(context if model else replace(context, model_name=PLACEHOLDER_MODEL))
    experiment = composition.experiment
    deployment, served = experiment.deployment, experiment.model.served_name or model
    if deployment.url is None or experiment.optimization.evaluator != "measured":
        return replace(context, model_name=model or PLACEHOLDER_MODEL)
    named = experiment.benchmark.endpoint if "benchmark.endpoint" in composition.provenance else None
    found = endpoints.find_served_model(deployment.url, ready.request_headers(deployment), model=served, endpoint=named)
    if named is None and found.endpoint != experiment.benchmark.endpoint:
        context = replace(context, user_overrides=_with_endpoint(context.user_overrides or {}, found, deployment.url))
    return context if model else replace(context, model_name=found.model)


def _with_endpoint(overrides: Mapping[str, Any], found: endpoints.ServedModel, url: str) -> Overrides:
    places: Mapping[str, str] = getattr(overrides, "places", {})
    endpoint = {"benchmark": {"endpoint": found.endpoint}}
    return Overrides(merge(overrides, endpoint), {**places, "benchmark.endpoint": f"what {url} answers"})


def _with_server_identity(experiment: Experiment, found: endpoints.ServedModel) -> Experiment:
    """The experiment with what the server said of itself."""
    return experiment.model_copy(
        update={
            "model": Model(id_or_path=found.model),
            "benchmark": experiment.benchmark.model_copy(
                update={"endpoint": found.endpoint, "model_name": found.model}
            ),
        }
    )


@dataclass
class LoadTest:
    """A course on its way, and what came of it so far."""

    url: str
    experiment: Experiment
    load_plan: LoadPlan
    headers: Mapping[str, str]
    simulated: bool
    vocabulary: Vocabulary | None
    folder: BenchFolder | None
    observe: Observer
    load_points: list[BenchLoadPoint] = field(default_factory=list)
    start_time: float = field(default_factory=time.time)
    _is_cut_short: bool = False

    @property
    def source(self) -> Source:
        """What the numbers are."""
        return "simulated" if self.simulated else "measured"

    def run(self) -> BenchResult:
        """Drive the course to its end; Interrupted with what there is at Ctrl-C."""
        drive = LoadDriver(
            load_endpoint(
                self.url, self.experiment.model.id_or_path, self.experiment.model, self.headers, self.vocabulary
            ),
            self.load_plan,
            self.source,
            self.experiment.slo,
            self._report_progress,
        )
        stopped = None
        try:
            for position, step in drive.steps():
                try:
                    seen = self._mask_secrets(drive.observe(position, step))
                except load.MeasurementInterrupted as interrupt:
                    if interrupt.observation is not None:
                        self._is_cut_short = True
                        self._record(drive, position, replace(interrupt.observation, abort_reason=CUT_SHORT_REASON))
                    raise
                self._record(drive, position, seen)
                stopped = self._stop_reason(drive, seen)
                if stopped is not None:
                    break
        except (MachineError, RunStoreError) as error:
            stopped = str(error)
        except KeyboardInterrupt as interrupt:
            raise LoadTestInterrupted(self._result(interrupted=True)) from interrupt
        return self._result(stopped)

    def _mask_secrets(self, observation: Observation) -> Observation:
        """Take header values out of what the server said: some repeat the key they refuse."""
        said = observation.abort_reason
        for value in self.headers.values():
            for secret in (value, value.removeprefix("Bearer ")):
                said = said.replace(secret, "*****") if said and secret else said
        return replace(observation, abort_reason=said)

    def _record(self, driver: LoadDriver, position: int, observation: Observation) -> None:
        records = self.folder.save_records(position, observation) if self.folder else None
        result = driver.record_result(position, observation)
        self.load_points.append(
            BenchLoadPoint(self._with_verdict(result), observation.abort_reason, observation.stop_reason, records)
        )
        if self.folder is not None:
            self.folder.write(self._partial_result())

    def _stop_reason(self, driver: LoadDriver, observation: Observation) -> str | None:
        """Why no more load points are driven: this one was given up, and an idle server gives no token either."""
        last = self.load_points[-1]
        if last.answered_requests and not observation.abort_reason:
            return None
        endpoint = driver.endpoint
        timeout = min(PROBE_TIMEOUT_SECONDS, self.experiment.benchmark.request_timeout)
        kind = self.experiment.benchmark.endpoint
        if endpoints.gives_token(self.url, self.headers, endpoint.model, kind, timeout):
            return None
        errors = ", ".join(f"{name}: {count}" for name, count in last.result.metrics.errors.items())
        return observation.abort_reason or f"No request was answered ({errors or 'none ended'})."

    def _result(self, stopped: str | None = None, *, interrupted: bool = False) -> BenchResult:
        found = self._partial_result(stopped, interrupted=interrupted)
        try:
            if self.folder is not None:
                self.folder.write(found)
                if found.load_points:
                    self.folder.draw(found)
        except RunStoreError as error:  # what was measured is worth more than its files
            return replace(found, stopped=stopped or str(error), path=None)
        except KeyboardInterrupt:
            if not interrupted:
                raise LoadTestInterrupted(replace(found, interrupted=True)) from None
        return found

    def _partial_result(self, stopped: str | None = None, *, interrupted: bool = False) -> BenchResult:
        return BenchResult(
            self.url,
            self.experiment,
            self.source,
            tuple(self.load_points),
            self.load_plan.max_load_points,
            self.start_time,
            stopped,
            interrupted,
            self.folder.path if self.folder else None,
            self.load_plan.outcome.capacities,
            self.vocabulary,
        )

    def _report_progress(self, stage: Stage, /, *, result: LoadPointResult | None = None, **more: Any) -> None:
        candidate = Candidate(self.experiment.base_runtime)
        judged = self._with_verdict(result) if result else None
        self.observe(Progress(stage, 0, candidate, total=self.load_plan.max_load_points, result=judged, **more))

    def _with_verdict(self, result: LoadPointResult) -> LoadPointResult:
        """The result with its verdict; a window that was cut short does not show that the targets are met."""
        reached = decide_verdict(result, self.experiment.slo)
        if self._is_cut_short and reached is Verdict.FEASIBLE:
            reached = Verdict.UNDECIDED
        return replace(result, verdict=reached)
