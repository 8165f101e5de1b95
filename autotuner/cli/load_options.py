"""Options shared by several commands, and the parsers of their values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from autotuner.errors import UsageError

SERVE = "What to serve"
CONFIGURATION = "Configuration"
LOAD = "Load"
TARGETS = "Targets"
SEARCH = "Search"
HARDWARE = "Hardware"
OUTPUT = "Output"

_OUTSIDE_BRACKETS = re.compile(r",(?![^()]*\))")


def option(
    *names: str, help: str, panel: str, metavar: str | None = None, default: str | None = None, **extra: Any
) -> Any:
    """A Typer option in the group `panel` of the help page; `default` describes the default in words."""
    show_default = True if default is None else default
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar, show_default=show_default, **extra)


def profile_or(default: str) -> str:
    """Text of a default that profiles may override."""
    return f"from the profile, else {default}"


DEFAULT_RUNS_FOLDER = Path("runs")
RUNS_FOLDER_OPTION = option("--output", "-o", metavar="FOLDER", help="Folder that holds the runs.", panel=OUTPUT)
RUN_ARGUMENT = typer.Argument(metavar="RUN", help="Run folder or run name.", show_default="the newest run")
JSON_OPTION = option("--json", help="Print the result as JSON on stdout.", panel=OUTPUT)


def api_key_option(panel: str, default: str) -> Any:
    return option(
        "--api-key-env",
        metavar="VARIABLE",
        help="Environment variable with the API key of a running server; its value is never stored.",
        panel=panel,
        default=default,
    )


def scenario_option(default: str) -> Any:
    return option(
        "--scenario",
        metavar="SCENARIO",
        help="Prompt and output tokens per request, such as D(1000,200), N(480,240)/(300,150) or"
        " file:trace.jsonl; repeatable.",
        panel=LOAD,
        default=default,
    )


def concurrency_option(default: str) -> Any:
    return option(
        "--concurrency",
        metavar="N[,N...]",
        help="Closed loop: number of requests in flight; one load point each.",
        panel=LOAD,
        default=default,
    )


RATE_OPTION = option(
    "--rate",
    metavar="R[,R...]",
    help="Open loop: requests per second; one load point each. trace replays the recorded arrival times.",
    panel=LOAD,
    default="none; trace for a timed trace without other load options",
)


def duration_option(default: str) -> Any:
    return option(
        "--duration",
        metavar="SECONDS",
        help="Minimum measurement window per load point; extended until the results are precise enough.",
        panel=LOAD,
        default=default,
    )


def max_duration_option(default: str) -> Any:
    return option(
        "--max-duration",
        metavar="SECONDS",
        help="Maximum measurement window per load point; set it to --duration for windows of equal length.",
        panel=LOAD,
        default=default,
    )


def warmup_option(default: str) -> Any:
    return option(
        "--warmup", metavar="SECONDS", help="Warm-up before each window, not measured.", panel=LOAD, default=default
    )


def max_requests_option(default: str) -> Any:
    return option(
        "--max-requests",
        metavar="N",
        help="End a window after this many requests; further requests keep up the load until the last completes.",
        panel=LOAD,
        default=default,
    )


def slo_option(default: str) -> Any:
    return option(
        "--slo",
        metavar="NAME|FILE|TERMS",
        help="Targets: a bundled SLO, a YAML file, or terms in seconds such as ttft=1.0,latency.p90=5; a metric"
        " without a statistic is a per-request target that 95% of requests must meet.",
        panel=TARGETS,
        default=default,
    )


def parse_scenarios(texts: Sequence[str] | None) -> list[str] | None:
    """Split scenarios at commas outside brackets, as in `D(100,100),D(200,100)`; a file name is kept whole."""
    if texts is None:
        return None
    return [part for text in texts for part in ([text] if text.startswith("file:") else _OUTSIDE_BRACKETS.split(text))]


def parse_numbers(option_name: str, text: str | None, number_type: type[int] | type[float]) -> list[Any] | None:
    """Parse `1,8,64`; UsageError if a part is not a number."""
    if text is None:
        return None
    try:
        return [number_type(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"{option_name} '{text}' is not a list of numbers.", remedy=f"Write it as {option_name} 1,8,64."
        ) from error


def parse_rates(text: str | None) -> list[float | str] | None:
    """Parse `2,4,trace`, where `trace` stands for the recorded arrival times of a trace."""
    from autotuner.experiment import TRACE_RATE

    parts = text.split(",") if text is not None else []
    numbers = [part for part in parts if part != TRACE_RATE]
    rates = parse_numbers("--rate", ",".join(numbers), float) if numbers else []
    return [*(rates or []), *([TRACE_RATE] if TRACE_RATE in parts else [])] or None


def parse_slo(text: str | None) -> Any:
    """Parse `ttft=1.0,latency.p90=500ms` into a mapping; a name or file of an SLO is returned as it is."""
    from autotuner.experiment import LATENCY_METRICS, duration_seconds

    if text is None or "=" not in text:
        return text
    terms: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        metric, _, statistic = name.strip().partition(".")
        limit = duration_seconds(value) if metric in LATENCY_METRICS else None
        try:
            limit = float(value) if limit is None else limit
        except ValueError as error:
            raise UsageError(
                f"--slo term '{part}' has no number.",
                remedy="Write it as ttft=1.0 or latency.p90=5, in seconds, or with a unit as ttft=500ms.",
            ) from error
        if metric == "attainment":
            terms[metric] = limit
        elif statistic:
            terms.setdefault(metric, {})[statistic] = {"threshold": limit}
        else:
            terms.setdefault(metric, {})["threshold"] = limit
    return terms
