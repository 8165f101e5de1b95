"""`autotune bench`: load on a server that runs already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotuner.cli.load_options import (
    LOAD,
    Concurrency,
    Duration,
    MaxRequests,
    Rate,
    Scenario,
    SloTerms,
    Warmup,
    numbers,
    option,
    rates_of,
    scenarios_of,
    slo_of,
)
from autotuner.cli.signals import terminated_as_interrupted

if TYPE_CHECKING:
    from autotuner.report.bench.result import BenchResult

SERVER = "Server"


def bench(
    url: Annotated[str, typer.Argument(help="Address of the server, such as http://127.0.0.1:8000.")],
    model: Annotated[
        str | None,
        option("--model", "-m", help="Served model; found out where there is one.", panel=SERVER),
    ] = None,
    endpoint: Annotated[
        str | None, option("--endpoint", help="completions or chat; found out when left out.", panel=SERVER)
    ] = None,
    header: Annotated[
        list[str] | None,
        option("--header", help="Header of every request; several apply.", panel=SERVER, metavar="NAME:VALUE"),
    ] = None,
    api_key_env: Annotated[
        str | None,
        option("--api-key-env", help="Variable that holds the API key; never written.", panel=SERVER, metavar="NAME"),
    ] = None,
    scenario: Scenario = None,
    concurrency: Concurrency = None,
    rate: Rate = None,
    arrival: Annotated[
        str | None,
        option(
            "--arrival", help="Arrivals at a rate: poisson, constant, gamma:SHAPE, ramp:START-END, trace.", panel=LOAD
        ),
    ] = None,
    max_in_flight: Annotated[
        int | None, typer.Option("--max-in-flight", min=1, help="At most so many at once.", rich_help_panel=LOAD)
    ] = None,
    duration: Duration = None,
    max_requests: MaxRequests = None,
    warmup: Warmup = None,
    request_timeout: Annotated[
        float | None, option("--request-timeout", help="Seconds until a request counts as timed out.", panel=LOAD)
    ] = None,
    seed: Annotated[int | None, option("--seed", help="Seed of lengths and arrivals.", panel=LOAD)] = None,
    slo: SloTerms = None,
    find_capacity: Annotated[
        bool,
        typer.Option(
            "--find-capacity",
            help="Find the highest load inside the SLO, between the loads given or 1 and 1024.",
            rich_help_panel=LOAD,
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder for records, JSON, CSV and plots.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="One row for each load point on stdout.")] = False,
) -> None:
    """Drive load points on a server that runs already, and say what each is worth."""
    from autotuner.cli.watch import watching
    from autotuner.errors import UsageError
    from autotuner.loadtest import Interrupted
    from autotuner.loadtest import bench as drive

    if as_json and as_csv:
        raise UsageError("--json and --csv both want stdout.", remedy="Choose one; --output FOLDER writes both.")
    with terminated_as_interrupted():
        try:
            with watching(targets=slo is not None) as watch:
                result = drive(
                    url,
                    model=model,
                    endpoint=endpoint,
                    scenarios=scenarios_of(scenario),
                    concurrency=numbers("--concurrency", concurrency, int),
                    rates=rates_of(rate),
                    arrival=arrival,
                    max_in_flight=max_in_flight,
                    duration=duration,
                    warmup=warmup,
                    max_requests=max_requests,
                    request_timeout=request_timeout,
                    seed=seed,
                    slo=slo_of(slo),
                    find_capacity=find_capacity,
                    headers=_headers(header or []),
                    api_key_env=api_key_env,
                    output=output,
                    observe=watch,
                )
        except Interrupted as interrupt:
            _show(interrupt.result, as_json, as_csv)
            raise
    _show(result, as_json, as_csv)
    _conclude(result)


def _headers(texts: list[str]) -> dict[str, str]:
    from autotuner.errors import UsageError

    found = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            # a header may be a secret: it is not repeated
            raise UsageError("A --header is not NAME:VALUE.", remedy="Write it as --header x-team:search.")
        found[name.strip()] = value.strip()
    return found


def _show(result: BenchResult, as_json: bool, as_csv: bool) -> None:
    from autotuner.cli import display
    from autotuner.report.bench.record import csv, record

    if as_json:
        display.json(record(result))
    elif as_csv:
        display.text(csv(result))
    else:
        _tables(result)
    if result.path is not None:
        display.note(f"files in {result.path}: {', '.join(sorted(path.name for path in result.path.iterdir()))}")


def _tables(result: BenchResult) -> None:
    from autotuner.cli import display
    from autotuner.report.bench import table

    if not result.load_points:
        return
    scenarios = ", ".join(dict.fromkeys(point.result.load_point.scenario for point in result.load_points))
    heading = f"{result.model} at {result.url}, {result.source}, {scenarios}"
    made = [(heading, table.latencies(result)), ("", table.verdicts(result))]
    made += [(f"checks, {scenario}", checks) for scenario, checks in table.checks(result).items()]
    for title, each in made:
        display.report(each, title)
        display.line()
    for sentence in table.capacities(result):
        display.sentence(sentence)


def _conclude(result: BenchResult) -> None:
    """Raise what the exit code is to tell."""
    from autotuner.errors import EndpointError, NoFeasibleError

    done = f"{len(result.load_points)} of {result.planned} load points were driven."
    if result.stopped is not None:
        raise EndpointError(f"The load test ended early: {result.stopped}", why=done, remedy="Look at that server.")
    if not any(point.answered for point in result.load_points):
        raise EndpointError("No request was answered.", why=done, remedy="The errors are in the table.")
    if not result.meets_slo:
        last = result.load_points[-1]
        raise NoFeasibleError("No load point met the targets.", why=f"The last: {result.reason(last)}.")
