"""Load tests of a server that is already running: `autotuner.bench`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autotuner import load, traces
from autotuner.config import Overrides, TaskContext, compose, leaves, merge, resolved_context
from autotuner.config.advice import slo_warnings
from autotuner.core import (
    CUT_OFF_ERROR,
    EARLY_STOP_ERROR,
    Candidate,
    LoadPoint,
    LoadPointResult,
    Observation,
    Observer,
    Progress,
    Source,
    Stage,
    StopRule,
    Verdict,
    Workload,
    ignore_progress,
)
from autotuner.endpoints.address import Address
from autotuner.endpoints.headers import request_headers, tls_trust
from autotuner.endpoints.models import ServedModel, find_served_model
from autotuner.endpoints.patience import FIRST_TOKEN_SECONDS
from autotuner.endpoints.token import probe_token
from autotuner.endpoints.token_ids import Vocabulary
from autotuner.errors import MachineError, RunStoreError
from autotuner.evaluate.driver import LoadDriver, find_vocabulary, load_endpoint
from autotuner.experiment import CAPACITY_SEARCH_RANGE, TRACE_RATE, Experiment, Model
from autotuner.report.bench.folder import BenchFolder
from autotuner.report.bench.result import CUT_SHORT_REASON, BenchLoadPoint, BenchResult
from autotuner.scoring.judge import decide_verdict
from autotuner.scoring.objective import THROUGHPUT
from autotuner.scoring.sequential import precision_stop_rule
from autotuner.search.capacity import CapacitySearch, check_capacity
from autotuner.search.launch import ListedLoads, LoadPlan
from autotuner.workload import arrivals
from autotuner.workload.prompts import EndpointKind
from autotuner.workload.scenarios import parse as parse_scenario

log = logging.getLogger(__name__)

LENGTHS_NOT_HELD = (
    "The server ends its answers before their length, as it does not hold ignore_eos: "
    "they are measured as they are, and the output-length check fails."
)

PLACEHOLDER_MODEL = "model"
"""The model's name until the server reports the real one."""


class LoadTestInterrupted(KeyboardInterrupt):
    """Ctrl-C during a load test; `result` has what was measured until then, and its files are written."""

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
    time_unit: traces.TimeUnit | None = None,
    trace_scale: float | None = None,
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
    ca_file: str | Path | None = None,
    insecure: bool = False,
    extra_body: Mapping[str, Any] | None = None,
    omit: Sequence[str] | None = None,
    honour_retry_after: bool = False,
    load_plan: Callable[[Workload], LoadPlan] | None = None,
    output: str | Path | None = None,
    observe: Observer = ignore_progress,
    origin: str = "",
) -> BenchResult:
    """Load-test the OpenAI-compatible server at `url`, and judge each load point against the SLO.

    Every scenario is driven at every concurrency (requests in flight) and every rate (requests per second,
    with `arrival` poisson, constant, gamma:SHAPE, ramp:START-END or trace, and at most `max_in_flight` in
    flight). A rate of "trace" replays a trace at its recorded times, the default for traces that have them,
    `trace_scale` times as fast; `time_unit` is the unit of its timestamps where the detected one is wrong.
    `duration` and `warmup` are seconds per load point; the window is extended until the output throughput is
    known to 3% and the verdict is decided, up to `max_duration`, by default 6 times `duration`.
    `request_timeout` is seconds per request; `max_requests` may end a window earlier. `slo` is a mapping
    such as {"ttft": 1.0}, or the name or path of an SLO. Arguments of None take the values of the bundled
    profiles, and `model`, `endpoint` ("completions" or "chat") and the vocabulary are detected from the
    server. `api_key_env` names the environment variable with the API key. Certificates are checked against the
    authorities in `ca_file`, by default the system's, or not at all if `insecure`. `extra_body` is merged into
    every request and the fields of `omit` are left out, and so are those that the server refuses. With
    `honour_retry_after` a client of a closed loop waits as long as a refusal asks for.
    With `find_capacity` the lowest and the highest load, by default concurrency 1 and 1024, bound the search
    for the highest load that meets the SLO, or for the saturation knee without one; otherwise `load_plan`
    makes the plan of a workload. `output` is a new or empty folder for records, JSON, CSV and plots.
    `origin` is how errors refer to these arguments.

    Errors of the server are counted in the result and never raised. ConfigError or UsageError: the load, the
    SLO or the folder is invalid; EndpointError: no model is found at `url`; MachineError: the variable with
    the key is not set; LoadTestInterrupted: Ctrl-C.
    """
    search_range = CAPACITY_SEARCH_RANGE if find_capacity else None
    if not (concurrency or rates or find_capacity) and arrivals.are_timed_traces(scenarios or [], arrival):
        rates = [TRACE_RATE]
    options = {
        "traffic_scenarios": scenarios,
        "find_capacity": find_capacity,
        "num_concurrency": concurrency or ([] if rates else search_range),
        "request_rates": rates,
        "arrival": arrival,
        "trace_time_unit": time_unit,
        "trace_scale": trace_scale,
        "max_in_flight": max_in_flight,
        "duration": duration,
        "max_duration": max_duration,
        "warmup": warmup,
        "max_requests": max_requests,
        "request_timeout": request_timeout,
        "endpoint": endpoint,
        "seed": seed,
        "extra_body": dict(extra_body) if extra_body else None,
        "omit": list(omit) if omit else None,
        "honour_retry_after": honour_retry_after or None,
    }
    benchmark = {name: list(v) if isinstance(v, tuple) else v for name, v in options.items() if v is not None}
    deployment = {
        "mode": "external",
        "url": url,
        "headers": dict(headers or {}),
        "api_key_env": api_key_env,
        "ca_file": str(ca_file) if ca_file else None,
        "insecure": insecure,
    }
    overrides = {"benchmark": benchmark, "deployment": deployment}
    context = TaskContext(
        model_name=model or PLACEHOLDER_MODEL,
        base_runtime="openai",
        deployment_mode="external",
        slo_config=slo,
        optimization_objective=THROUGHPUT.name,
        user_overrides=Overrides(overrides, {**dict.fromkeys(leaves(overrides), origin), "deployment.url": "the URL"}),
        origin=origin,
    )
    experiment = compose(context).experiment
    check_capacity(experiment)
    arrivals.check(experiment.workload())
    for warning in slo_warnings(experiment.slo):
        log.warning("%s", warning)
    descriptions = _describe_traces(experiment)
    for description in descriptions:
        log.info("%s", description)
    folder = BenchFolder.create(Path(output)) if output is not None else None
    all_headers = request_headers(experiment.deployment)
    named_endpoint = experiment.benchmark.endpoint if endpoint else None
    served = _find_served_model(experiment, url, all_headers, model, named_endpoint)
    experiment = _with_server_identity(experiment, served)
    tls = tls_trust(experiment.deployment)
    workload = experiment.workload()
    make_load_plan = load_plan or _precise_load_plan(experiment)
    chosen_plan = CapacitySearch(experiment, gpus=1) if find_capacity else make_load_plan(workload)
    vocabulary = find_vocabulary(served.url, served.model, experiment.model, all_headers, workload, tls)
    is_simulated = served.is_simulated
    test = LoadTest(
        served.url,
        experiment,
        chosen_plan,
        all_headers,
        is_simulated,
        vocabulary,
        folder,
        observe,
        served.remarks,
        traces=descriptions,
    )
    return test.run()


def _describe_traces(experiment: Experiment) -> tuple[traces.TraceDescription, ...]:
    load = experiment.benchmark
    parsed = map(parse_scenario, dict.fromkeys(load.traffic_scenarios))
    recorded = [scenario for scenario in parsed if isinstance(scenario, traces.RecordedTrace)]
    return tuple(trace.describe(load.trace_time_unit if trace.timestamps else None) for trace in recorded)


def _find_served_model(
    experiment: Experiment,
    url: str,
    headers: Mapping[str, str],
    model: str | None,
    endpoint: EndpointKind | None,
) -> ServedModel:
    benchmark = experiment.benchmark
    return find_served_model(
        url,
        headers,
        model=model,
        endpoint=endpoint,
        form=benchmark.request_form,
        tls=tls_trust(experiment.deployment),
        time_limit=min(FIRST_TOKEN_SECONDS, benchmark.request_timeout),
    )


def _precise_load_plan(experiment: Experiment) -> Callable[[Workload], LoadPlan]:
    """Plans that drive each load point until its throughput is precise and its verdict decided.

    An open loop without targets has neither to wait for: its throughput is its rate. Its window lasts `duration`.
    """

    def stop_rule(point: LoadPoint) -> StopRule | None:
        return precision_stop_rule(experiment, point) if point.rate is None or experiment.slo.terms else None

    return lambda workload: ListedLoads(workload, stop_rule)


def with_served_model(context: TaskContext) -> TaskContext:
    """Add the model and the endpoint of a running server to `context`, unless it names them.

    Names in `context` are checked against the server. Errors are those of `bench`.
    """
    model = resolved_context(context).model_name
    composition = compose(context if model else replace(context, model_name=PLACEHOLDER_MODEL))
    experiment = composition.experiment
    deployment, served_name = experiment.deployment, experiment.model.served_name or model
    if deployment.url is None or experiment.optimization.evaluator != "measured":
        return replace(context, model_name=model or PLACEHOLDER_MODEL)
    named_endpoint = experiment.benchmark.endpoint if "benchmark.endpoint" in composition.provenance else None
    headers = request_headers(deployment)
    served = _find_served_model(experiment, deployment.url, headers, served_name, named_endpoint)
    detected = _detected(experiment, served)
    if detected:
        overrides = _with_detected(context.user_overrides or {}, detected, deployment.url)
        context = replace(context, user_overrides=overrides)
    return context if model else replace(context, model_name=served.model)


def _detected(experiment: Experiment, served: ServedModel) -> dict[str, Any]:
    """The overrides with which requests are as the server takes them; empty if it takes the usual ones."""
    benchmark = experiment.benchmark
    accepted = {"endpoint": served.endpoint, **_form_fields(served)}
    changed = {name: value for name, value in accepted.items() if value != getattr(benchmark, name)}
    changed = {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}
    is_moved = Address.from_url(experiment.deployment.url or served.url) != Address.from_url(served.url)
    sections = {"benchmark": changed, "deployment": {"url": served.url} if is_moved else {}}
    return {name: section for name, section in sections.items() if section}


def _form_fields(served: ServedModel) -> dict[str, Any]:
    form = served.form
    return {"prompts": form.prompts, "length_field": form.length_field, "omit": form.omit}


def _with_detected(overrides: Mapping[str, Any], detected: Mapping[str, Any], url: str) -> Overrides:
    places: Mapping[str, str] = getattr(overrides, "places", {})
    detected_places = dict.fromkeys(leaves(detected), f"detected at {url}")
    return Overrides(merge(overrides, detected), {**places, **detected_places})


def _with_server_identity(experiment: Experiment, served: ServedModel) -> Experiment:
    """The experiment with the model and endpoint that the server reports."""
    update = {"endpoint": served.endpoint, "model_name": served.model, **_form_fields(served)}
    benchmark = experiment.benchmark.model_copy(update=update)
    return experiment.model_copy(update={"model": Model(id_or_path=served.model), "benchmark": benchmark})


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


@dataclass
class LoadTest:
    """A running load test and its results so far."""

    url: str
    experiment: Experiment
    load_plan: LoadPlan
    headers: Mapping[str, str]
    is_simulated: bool
    vocabulary: Vocabulary | None
    folder: BenchFolder | None
    observe: Observer
    remarks: tuple[str, ...] = ()
    load_points: list[BenchLoadPoint] = field(default_factory=list)
    start_time: float = field(default_factory=time.time)
    traces: tuple[traces.TraceDescription, ...] = ()
    write_delay: float | None = None
    _is_cut_short: bool = False

    @property
    def source(self) -> Source:
        """Whether the results are measured or simulated."""
        return "simulated" if self.is_simulated else "measured"

    def run(self) -> BenchResult:
        """Drive the load plan to its end; LoadTestInterrupted with the results so far on Ctrl-C."""
        model, slo = self.experiment.model, self.experiment.slo
        tls = tls_trust(self.experiment.deployment)
        endpoint = load_endpoint(self.url, model.id_or_path, model, self.headers, self.vocabulary, tls)
        driver = LoadDriver(endpoint, self.load_plan, self.source, slo, self._report_progress)
        stop_reason = None
        try:
            self.write_delay = load.first_token_delay(endpoint, self.experiment.workload())
            for position, step in driver.steps():
                try:
                    observation = driver.observe(position, step)
                except load.MeasurementInterrupted as interrupt:
                    if interrupt.observation is not None:
                        self._is_cut_short = True
                        self._record(driver, position, replace(interrupt.observation, abort_reason=CUT_SHORT_REASON))
                    raise
                self._record(driver, position, observation)
                stop_reason = self._stop_reason(driver, observation)
                if stop_reason is not None:
                    break
        except (MachineError, RunStoreError) as error:
            stop_reason = str(error)
        except KeyboardInterrupt as interrupt:
            raise LoadTestInterrupted(self._result(interrupted=True)) from interrupt
        return self._result(stop_reason)

    def _record(self, driver: LoadDriver, position: int, observation: Observation) -> None:
        if ends_all_answers_early(observation):
            observation = without_early_stops(observation)
            if LENGTHS_NOT_HELD not in self.remarks:
                self.remarks = (*self.remarks, LENGTHS_NOT_HELD)
                log.warning(LENGTHS_NOT_HELD)
        records = self.folder.save_records(position, observation) if self.folder else None
        result = self._with_verdict(driver.record_result(position, observation))
        benchmark = self.experiment.benchmark
        is_kept = benchmark.honour_retry_after and observation.load_point.rate is None
        retry_after = None if is_kept else observation.retry_after
        reasons = observation.abort_reason, observation.stop_reason
        self.load_points.append(BenchLoadPoint(result, *reasons, records, retry_after))
        if self.folder is not None:
            self.folder.write(self._partial_result())

    def _stop_reason(self, driver: LoadDriver, observation: Observation) -> str | None:
        """Why the test ends here: the load point failed, and the idle server produces no token either."""
        load_point = self.load_points[-1]
        if load_point.answered_requests and not observation.abort_reason:
            return None
        benchmark = self.experiment.benchmark
        form = benchmark.request_form
        if probe_token(driver.endpoint, benchmark.endpoint, benchmark.request_timeout, form) == "token":
            return None
        errors = ", ".join(f"{name}: {count}" for name, count in load_point.result.metrics.errors.items())
        return observation.abort_reason or f"No request was answered ({errors or 'none ended'})."

    def _result(self, stop_reason: str | None = None, *, interrupted: bool = False) -> BenchResult:
        """The final result, its files written."""
        result = self._partial_result(stop_reason, interrupted=interrupted)
        try:
            if self.folder is not None:
                self.folder.write(result)
                if result.load_points:
                    self.folder.draw(result)
        except RunStoreError as error:  # a failed write must not lose the measurements
            return replace(result, stopped=stop_reason or str(error), path=None)
        except KeyboardInterrupt:
            if not interrupted:
                raise LoadTestInterrupted(replace(result, interrupted=True)) from None
        return result

    def _partial_result(self, stop_reason: str | None = None, *, interrupted: bool = False) -> BenchResult:
        return BenchResult(
            self.url,
            self.experiment,
            self.source,
            tuple(self.load_points),
            self.load_plan.max_load_points,
            self.start_time,
            stop_reason,
            interrupted,
            self.folder.path if self.folder else None,
            self.load_plan.outcome.capacities,
            self.vocabulary,
            self.write_delay,
            self.traces,
            self.remarks,
        )

    def _report_progress(self, stage: Stage, /, *, result: LoadPointResult | None = None, **more: Any) -> None:
        candidate = Candidate(self.experiment.base_runtime)
        result = self._with_verdict(result) if result else None
        self.observe(Progress(stage, 0, candidate, total=self.load_plan.max_load_points, result=result, **more))

    def _with_verdict(self, result: LoadPointResult) -> LoadPointResult:
        """Add the verdict to a result; an interrupted window cannot show that the targets are met."""
        verdict = decide_verdict(result, self.experiment.slo)
        if self._is_cut_short and verdict is Verdict.FEASIBLE:
            verdict = Verdict.UNDECIDED
        return replace(result, verdict=verdict)
