"""Options that several commands share, declared once, and how their texts are read."""

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
    *names: str, help: str, panel: str, metavar: str | None = None, default: str | None = None, **more: Any
) -> Any:
    """An option in one group of the help page; `default` says in words what holds where it is not given."""
    shown = True if default is None else default
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar, show_default=shown, **more)


def profile_or(default: str) -> str:
    """A default that profiles may set otherwise."""
    return f"from the profile, else {default}"


DEFAULT_RUNS_FOLDER = Path("runs")
RUNS_FOLDER_OPTION = option("--output", "-o", metavar="FOLDER", help="Folder that holds the runs.", panel=OUTPUT)
RUN_ARGUMENT = typer.Argument(metavar="RUN", help="Run folder, or its name.", show_default="the newest run")
JSON_OPTION = option("--json", help="Machine-readable result on stdout.", panel=OUTPUT)


def api_key_option(panel: str, default: str) -> Any:
    """The key of a server that runs already."""
    return option(
        "--api-key-env",
        metavar="VARIABLE",
        help="Environment variable that holds the API key of a running server; its value is never written.",
        panel=panel,
        default=default,
    )


def scenario_option(default: str) -> Any:
    """Which requests are sent."""
    return option(
        "--scenario",
        metavar="SCENARIO",
        help="Prompt and output tokens of the requests, such as D(1000,200), N(480,240)/(300,150) or"
        " file:trace.jsonl; repeatable.",
        panel=LOAD,
        default=default,
    )


def concurrency_option(default: str) -> Any:
    """The closed loops."""
    return option(
        "--concurrency",
        metavar="N[,N...]",
        help="Closed loop: requests in flight at once; a load point for each.",
        panel=LOAD,
        default=default,
    )


RATE_OPTION = option(
    "--rate",
    metavar="R[,R...]",
    help="Open loop: requests per second; a load point for each. trace replays a trace's own times.",
    panel=LOAD,
    default="none; trace for a trace with times, where no load is named",
)


def duration_option(default: str) -> Any:
    """The window."""
    return option(
        "--duration",
        metavar="SECONDS",
        help="Least length of each load point's window, which goes on until its figures are known well enough.",
        panel=LOAD,
        default=default,
    )


def max_duration_option(default: str) -> Any:
    """The end of the window in any case."""
    return option(
        "--max-duration",
        metavar="SECONDS",
        help="Greatest length of each load point's window; the same as --duration for windows of equal length.",
        panel=LOAD,
        default=default,
    )


def warmup_option(default: str) -> Any:
    """What comes before the window."""
    return option(
        "--warmup", metavar="SECONDS", help="Warm-up before each window; not measured.", panel=LOAD, default=default
    )


def max_requests_option(default: str) -> Any:
    """The most requests of a window."""
    return option(
        "--max-requests",
        metavar="N",
        help="End a window after this many requests; others keep up the load until the last has ended.",
        panel=LOAD,
        default=default,
    )


def slo_option(default: str) -> Any:
    """The targets."""
    return option(
        "--slo",
        metavar="NAME|FILE|TERMS",
        help="Targets: a bundled SLO, a YAML file, or terms in seconds such as ttft=1.0,latency.p90=5; a name alone"
        " is a target for each request, which 95% of them must meet.",
        panel=TARGETS,
        default=default,
    )


def parse_scenarios(texts: Sequence[str] | None) -> list[str] | None:
    """The scenarios of `--scenario D(100,100),D(200,100) --scenario file:trace.jsonl`."""
    if texts is None:
        return None
    return [part for text in texts for part in ([text] if text.startswith("file:") else _OUTSIDE_BRACKETS.split(text))]


def parse_numbers(option_name: str, text: str | None, number_type: type[int] | type[float]) -> list[Any] | None:
    """The numbers of `1,8,64`; UsageError when one is not a number."""
    if text is None:
        return None
    try:
        return [number_type(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"{option_name} '{text}' is not a list of numbers.", remedy=f"Write it as {option_name} 1,8,64."
        ) from error


def parse_rates(text: str | None) -> list[float | str] | None:
    """The rates of `2,4`, and of `trace`, a trace's own."""
    from autotuner.experiment import TRACE_RATE

    parts = text.split(",") if text is not None else []
    named = [part for part in parts if part != TRACE_RATE]
    rates = parse_numbers("--rate", ",".join(named), float) if named else []
    return [*(rates or []), *([TRACE_RATE] if TRACE_RATE in parts else [])] or None


def parse_slo(text: str | None) -> Any:
    """An SLO layer's name, an SLO file, or the mapping that `ttft=1.0,latency.p90=5` says."""
    if text is None or "=" not in text:
        return text
    terms: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        metric, _, statistic = name.strip().partition(".")
        try:
            limit = float(value)
        except ValueError as error:
            raise UsageError(
                f"--slo term '{part}' has no number.", remedy="Write it as ttft=1.0 or latency.p90=5, in seconds."
            ) from error
        if metric == "attainment":
            terms[metric] = limit
        elif statistic:
            terms.setdefault(metric, {})[statistic] = {"threshold": limit}
        else:
            terms.setdefault(metric, {})["threshold"] = limit
    return terms
