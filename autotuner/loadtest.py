"""A load test of a server that is already running, and its options: `autotune bench` and `autotuner.bench`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from autotuner import traces
from autotuner.bench_record import BenchRecord, LoadTestInterrupted
from autotuner.bench_setup import BenchSetup
from autotuner.config import Overrides, TaskContext, leaves
from autotuner.core import Observer, Workload, ignore_progress
from autotuner.evaluate.external import ExternalEvaluator
from autotuner.execute.serial import SerialExecutor
from autotuner.experiment import CAPACITY_SEARCH_RANGE, TRACE_RATE
from autotuner.report.bench.result import BenchResult
from autotuner.running_server import PLACEHOLDER_MODEL
from autotuner.scoring.objective import THROUGHPUT
from autotuner.search.launch import LoadPlan
from autotuner.search.single import SingleLaunch
from autotuner.tune import tune
from autotuner.workload import arrivals

__all__ = ["BenchOptions", "LoadTestInterrupted", "bench", "bench_setup", "run_load_test"]

BENCHMARK_OPTIONS = {
    "scenarios": "traffic_scenarios",
    "concurrency": "num_concurrency",
    "rates": "request_rates",
    "time_unit": "trace_time_unit",
    **{name: name for name in ("arrival", "trace_scale", "max_in_flight", "duration", "max_duration", "warmup")},
    **{name: name for name in ("max_requests", "request_timeout", "seed", "find_capacity", "endpoint", "extra_body")},
    **{name: name for name in ("omit", "honour_retry_after")},
}
DEPLOYMENT_OPTIONS = {name: name for name in ("headers", "api_key_env", "ca_file", "insecure")}
"""Option -> its name in the configuration's section."""

NO_TIME_LIMIT = 1e9
"""Seconds: a load test ends when its load has been driven."""


class BenchOptions(TypedDict, total=False):
    """Options of a load test; one that is missing or None has the value of the bundled profiles.

    Every one of `scenarios` is driven at every `concurrency` (requests in flight) and every rate of `rates` (requests
    per second, with `arrival` poisson, constant, gamma:SHAPE, ramp:START-END or trace, and at most `max_in_flight` in
    flight). A rate of "trace" replays a trace at its recorded times, the default for traces that have them,
    `trace_scale` times as fast; `time_unit` is the unit of its timestamps where the detected one is wrong.
    With `find_capacity` the lowest and the highest load, by default concurrency 1 and 1024, bound the search for the
    highest load that meets the SLO, or for the saturation knee without one; otherwise `load_plan` makes the plan of a
    workload.

    `duration` and `warmup` are seconds per load point; the window is extended until the output throughput is known to
    3% and the verdict is decided, up to `max_duration`, by default 6 times `duration`. `request_timeout` is seconds
    per request; `max_requests` may end a window earlier. `slo` is a mapping such as {"ttft": 1.0}, or the name or path
    of an SLO.

    `model`, `endpoint` ("completions" or "chat") and the vocabulary are detected from the server. `api_key_env` names
    the environment variable with the API key. Certificates are checked against the authorities in `ca_file`, by
    default the system's, or not at all if `insecure`. `extra_body` is merged into every request and the fields of
    `omit` are left out, and so are those that the server refuses. With `honour_retry_after` a client of a closed loop
    waits as long as a refusal asks for.

    `output` is a new or empty folder for the run: records, JSON, CSV and plots. `origin` is how errors refer to these
    options.
    """

    model: str | None
    endpoint: str | None
    scenarios: Sequence[str] | None
    concurrency: Sequence[int] | None
    rates: Sequence[float | str] | None
    arrival: str | None
    time_unit: traces.TimeUnit | None
    trace_scale: float | None
    max_in_flight: int | None
    duration: float | None
    max_duration: float | None
    warmup: float | None
    max_requests: int | None
    request_timeout: float | None
    seed: int | None
    slo: Mapping[str, Any] | str | None
    find_capacity: bool
    headers: Mapping[str, str] | None
    api_key_env: str | None
    ca_file: str | Path | None
    insecure: bool
    extra_body: Mapping[str, Any] | None
    omit: Sequence[str] | None
    honour_retry_after: bool
    load_plan: Callable[[Workload], LoadPlan] | None
    output: str | Path | None
    origin: str


def bench(url: str, *, observe: Observer = ignore_progress, **options: Unpack[BenchOptions]) -> BenchResult:
    """Load-test the OpenAI-compatible server at `url`, and judge each load point against the SLO.

    The options are those of `BenchOptions`; `observe` is called with every step. Errors of the server are counted in
    the result and never raised. ConfigError or UsageError: the load, the SLO or the folder is invalid; EndpointError:
    no model is found at `url`; MachineError: the variable with the key is not set; LoadTestInterrupted: Ctrl-C.
    """
    return run_load_test(bench_setup(url, **options), observe)


def run_load_test(setup: BenchSetup, observe: Observer = ignore_progress) -> BenchResult:
    """Drive the load, in one trial of the tuning loop, and write the report; LoadTestInterrupted on Ctrl-C.

    Errors of the server are counted in the result; it has what was measured, even where files cannot be written.
    """
    record = BenchRecord(setup)
    evaluator = ExternalEvaluator(setup.experiment, observe, served=setup.served, traces=setup.traces, save=record.save)
    with record.reported(), SerialExecutor(evaluator) as executor:
        tune(setup.experiment, SingleLaunch(setup.launch), executor, record, observe)
    return record.result


def bench_setup(url: str, **options: Unpack[BenchOptions]) -> BenchSetup:
    """Compose the options, and ask the server what it serves; errors are those of `bench`."""
    origin, output = options.get("origin", ""), options.get("output")
    overrides = {
        "benchmark": _benchmark_section(options),
        "deployment": {"mode": "external", "url": url, **_section(options, DEPLOYMENT_OPTIONS)},
        "optimization": {"strategy": "grid_search", "timeout_per_iteration": NO_TIME_LIMIT},
    }
    context = TaskContext(
        model_name=options.get("model") or PLACEHOLDER_MODEL,
        base_runtime="openai",
        deployment_mode="external",
        slo_config=options.get("slo"),
        optimization_objective=THROUGHPUT.name,
        user_overrides=Overrides(overrides, {**dict.fromkeys(leaves(overrides), origin), "deployment.url": "the URL"}),
        origin=origin,
    )
    return BenchSetup.from_context(context, options.get("load_plan"), Path(output) if output is not None else None)


def _benchmark_section(options: BenchOptions) -> dict[str, Any]:
    """The load, as a configuration has it."""
    section = _section(options, BENCHMARK_OPTIONS)
    scenarios, arrival = options.get("scenarios") or [], options.get("arrival")
    if options.get("concurrency") or options.get("rates"):
        return {"num_concurrency": [], **section}
    if options.get("find_capacity"):
        return {**section, "num_concurrency": list(CAPACITY_SEARCH_RANGE)}
    if arrivals.are_timed_traces(scenarios, arrival):
        return {**section, "num_concurrency": [], "request_rates": [TRACE_RATE]}
    return section


def _section(options: BenchOptions, names: Mapping[str, str]) -> dict[str, Any]:
    """The options in `names` that have a value, by their names in a configuration, as data of one."""
    values = {key: value for name, key in names.items() if (value := options.get(name)) not in (None, [], (), {}, "")}
    return {key: _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
