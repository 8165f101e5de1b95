"""`autotune bench`: load-test a server that is already running."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotuner.cli.gate import FAIL_ON_OPTION, Gate
from autotuner.cli.load_options import (
    JSON_OPTION,
    LOAD,
    OUTPUT,
    RATE_OPTION,
    api_key_option,
    concurrency_option,
    duration_option,
    max_duration_option,
    max_requests_option,
    option,
    parse_numbers,
    parse_rates,
    parse_scenarios,
    parse_slo,
    scenario_option,
    slo_option,
    warmup_option,
)
from autotuner.cli.signals import terminated_as_interrupted

if TYPE_CHECKING:
    from autotuner.report.bench.result import BenchResult
    from autotuner.traces import TimeUnit

SERVER_OPTIONS = "Server"
server_option = partial(option, panel=SERVER_OPTIONS)
load_option = partial(option, panel=LOAD)
output_option = partial(option, panel=OUTPUT)


def bench(
    url: Annotated[str, typer.Argument(metavar="URL", help="Server address, such as http://127.0.0.1:8000.")],
    model: Annotated[
        str | None,
        server_option(
            "--model", "-m", metavar="NAME", help="Model name on the server.", default="the one the server lists"
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        server_option(
            "--endpoint",
            metavar="completions|chat",
            help="API endpoint: /v1/completions or /v1/chat/completions.",
            default="completions, or chat if only that answers",
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        server_option(
            "--header", metavar="NAME:VALUE", help="HTTP header sent with every request; repeatable.", default="none"
        ),
    ] = None,
    api_key_env: Annotated[str | None, api_key_option(SERVER_OPTIONS, "none")] = None,
    extra_body: Annotated[
        str | None,
        server_option(
            "--extra-body",
            metavar="JSON",
            help="Fields merged into every request, such as '{\"min_p\": 0.1}'.",
            default="none",
        ),
    ] = None,
    omit: Annotated[
        list[str] | None,
        server_option(
            "--omit",
            metavar="FIELD",
            help="Field left out of every request, such as ignore_eos; repeatable.",
            default="those that the server refuses",
        ),
    ] = None,
    ca_file: Annotated[
        Path | None,
        server_option(
            "--ca-file",
            metavar="FILE",
            help="PEM certificates of the authorities that the server's certificate is checked against.",
            default="the system's",
        ),
    ] = None,
    insecure: Annotated[
        bool, server_option("--insecure", help="Do not check the server's certificate; the result says so.")
    ] = False,
    scenario: Annotated[list[str] | None, scenario_option("D(100,100)")] = None,
    concurrency: Annotated[str | None, concurrency_option("1,4")] = None,
    rate: Annotated[str | None, RATE_OPTION] = None,
    arrival: Annotated[
        str | None,
        load_option(
            "--arrival",
            metavar="PROCESS",
            help="Arrival process of --rate: poisson, constant, gamma:SHAPE, ramp:START-END or trace.",
            default="poisson",
        ),
    ] = None,
    time_unit: Annotated[
        str | None,
        load_option(
            "--time-unit", metavar="s|ms|us|ns", help="Unit of a trace's timestamps.", default="detected, and said"
        ),
    ] = None,
    trace_scale: Annotated[
        float | None, load_option("--trace-scale", metavar="X", help="Replay a trace X times as fast.", default="1")
    ] = None,
    max_in_flight: Annotated[
        int | None,
        load_option(
            "--max-in-flight",
            metavar="N",
            help="Maximum requests in flight with --rate; further ones wait.",
            default="no limit",
            min=1,
        ),
    ] = None,
    duration: Annotated[float | None, duration_option("20")] = None,
    max_duration: Annotated[float | None, max_duration_option("6 times --duration")] = None,
    warmup: Annotated[float | None, warmup_option("5")] = None,
    max_requests: Annotated[int | None, max_requests_option("no limit")] = None,
    request_timeout: Annotated[
        float | None,
        load_option(
            "--request-timeout",
            metavar="SECONDS",
            help="Time after which a request is aborted and counts as an error.",
            default="300",
        ),
    ] = None,
    honour_retry_after: Annotated[
        bool,
        load_option(
            "--honour-retry-after", help="Closed loop: after a refusal, wait as long as its Retry-After asks for."
        ),
    ] = False,
    seed: Annotated[
        int | None, load_option("--seed", metavar="N", help="Random seed of request lengths and arrivals.", default="0")
    ] = None,
    find_capacity: Annotated[
        bool,
        load_option(
            "--find-capacity",
            help="Find the highest load that meets the targets, between the given loads or 1 and 1024 in flight.",
        ),
    ] = False,
    slo: Annotated[str | None, slo_option("none")] = None,
    output: Annotated[
        Path | None,
        output_option(
            "--output", "-o", metavar="FOLDER", help="New folder for raw records, JSON, CSV and plots.", default="none"
        ),
    ] = None,
    fail_on: Annotated[str, FAIL_ON_OPTION] = "infeasible",
    as_json: Annotated[bool, JSON_OPTION] = False,
    as_csv: Annotated[bool, output_option("--csv", help="CSV on stdout, one row per load point.")] = False,
) -> None:
    """Load-test a running server, judge every load point, and check that its measurements are valid."""
    from autotuner.cli import display
    from autotuner.cli.live_view import live_view_for
    from autotuner.config.overrides import COMMAND_LINE
    from autotuner.errors import UsageError
    from autotuner.loadtest import LoadTestInterrupted, bench_setup, run_load_test

    if as_json and as_csv:
        raise UsageError(
            "--json and --csv cannot both write to stdout.", remedy="Choose one; --output FOLDER writes both."
        )
    gate = Gate.parse(fail_on)
    display.relay_log()
    with terminated_as_interrupted():
        setup = bench_setup(
            url,
            model=model,
            endpoint=endpoint,
            scenarios=parse_scenarios(scenario),
            concurrency=parse_numbers("--concurrency", concurrency, int),
            rates=parse_rates(rate),
            arrival=arrival,
            time_unit=_parse_time_unit(time_unit),
            trace_scale=trace_scale,
            max_in_flight=max_in_flight,
            duration=duration,
            max_duration=max_duration,
            warmup=warmup,
            max_requests=max_requests,
            request_timeout=request_timeout,
            seed=seed,
            slo=parse_slo(slo),
            find_capacity=find_capacity,
            headers=parse_headers(header or []),
            api_key_env=api_key_env,
            ca_file=ca_file,
            insecure=insecure,
            extra_body=_parse_extra_body(extra_body),
            omit=[name.strip() for text in omit or () for name in text.split(",") if name.strip()],
            honour_retry_after=honour_retry_after,
            output=output,
            origin=COMMAND_LINE,
        )
        try:
            with live_view_for(setup.plan, (), is_load_test=True) as view:
                result = run_load_test(setup, view)
        except LoadTestInterrupted as interrupt:
            _print_result(interrupt.result, as_json, as_csv)
            raise
    _print_result(result, as_json, as_csv)
    _raise_on_failure(result, gate)


def _parse_time_unit(text: str | None) -> TimeUnit | None:
    from autotuner.errors import UsageError
    from autotuner.traces import TIME_UNITS

    unit = next((unit for unit in TIME_UNITS if unit == text), None)
    if text is not None and unit is None:
        raise UsageError(f"--time-unit '{text}' is not a unit.", remedy=f"Use {', '.join(TIME_UNITS)}.")
    return unit


def parse_headers(texts: list[str]) -> dict[str, str]:
    """The headers of `NAME:VALUE` texts; UsageError, which repeats none of them, where one is not of that form."""
    from autotuner.errors import UsageError

    headers = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            # a header may be a secret: it is not repeated
            raise UsageError("A --header is not NAME:VALUE.", remedy="Write it as --header x-team:search.")
        headers[name.strip()] = value.strip()
    return headers


def _parse_extra_body(text: str | None) -> dict[str, Any] | None:
    from autotuner.errors import UsageError

    if text is None:
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise UsageError("--extra-body is not a JSON object.", remedy="""Write it as --extra-body '{"min_p": 0.1}'.""")
    return fields


def _print_result(result: BenchResult, as_json: bool, as_csv: bool) -> None:
    from autotuner.cli import display
    from autotuner.cli.results import print_load_test

    print_load_test(result, "json" if as_json else "csv" if as_csv else "table")
    if result.path is not None:
        names = sorted(path.name for path in result.path.iterdir() if not path.name.startswith("."))
        display.note(f"files in {result.path}: {', '.join(names)}")


def _raise_on_failure(result: BenchResult, gate: Gate) -> None:
    """Raise the error that sets the exit code; return where the load test passed."""
    from autotuner.endpoints.headers import key_remedy
    from autotuner.errors import EndpointError, as_sentence

    driven = len(result.load_points)
    progress_text = f"{driven} of {result.planned} load points {'was' if driven == 1 else 'were'} driven."
    failure = result.measurement.failure
    if failure is not None:
        wants_key = re.search(r"http-40[13]\b", failure.message)
        deployment = result.experiment.deployment
        header_names = [*deployment.headers, *(["Authorization"] if deployment.api_key_env else [])]
        remedy = key_remedy(header_names) if wants_key else failure.remedy
        raise EndpointError(f"The load test ended early: {failure.message}", why=progress_text, remedy=remedy)
    if not any(point.metrics.requests for point in result.load_points):
        raise EndpointError(
            "No request was sent in a window.",
            why="In an open loop none was due, in a closed loop those of the warm-up lasted longer.",
            remedy="Raise --duration, or the rate.",
        )
    if not any(point.answered_requests for point in result.load_points):
        messages = next((point.error_messages for point in result.load_points if point.error_messages), {})
        quotes = [as_sentence(f"{name}: {message}") for name, message in messages.items()]
        raise EndpointError(
            "No request was answered.", why=" ".join([progress_text, *quotes]), remedy="The errors are in the table."
        )
    gate.check_load_test(result)
