"""The options of a load, declared once for every command that drives one, and how their texts are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from autotuner.errors import UsageError

LAYERS = "Layers"
LOAD = "Load"
_OUTSIDE_BRACKETS = re.compile(r",(?![^()]*\))")


def option(*names: str, help: str, panel: str, metavar: str | None = None) -> Any:
    """An option in one panel of the help page."""
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar)


Scenario = Annotated[
    list[str] | None, option("--scenario", help="Traffic scenario, such as D(1000,200); several apply.", panel=LOAD)
]
Concurrency = Annotated[str | None, option("--concurrency", help="Requests in flight, such as 1,8,64.", panel=LOAD)]
Rate = Annotated[
    str | None,
    option("--rate", help="Requests per second (open loop), such as 2,4; trace for a trace's own times.", panel=LOAD),
]
Duration = Annotated[float | None, option("--duration", help="Seconds of each load point's window.", panel=LOAD)]
MaxRequests = Annotated[int | None, option("--max-requests", help="End a window after this many requests.", panel=LOAD)]
Warmup = Annotated[float | None, option("--warmup", help="Seconds of warm-up before each window.", panel=LOAD)]
SloTerms = Annotated[
    str | None, option("--slo", help="SLO name, file, or terms: ttft=1.0,latency.p90=5.", panel=LAYERS)
]


def scenarios_of(texts: Sequence[str] | None) -> list[str] | None:
    """The scenarios of `--scenario D(100,100),D(200,100) --scenario file:trace.jsonl`."""
    if texts is None:
        return None
    return [part for text in texts for part in ([text] if text.startswith("file:") else _OUTSIDE_BRACKETS.split(text))]


def numbers(option: str, text: str | None, kind: type[int] | type[float]) -> list[Any] | None:
    """The numbers of `1,8,64`; UsageError when one is not a number."""
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"{option} '{text}' is not a list of numbers.", remedy=f"Write it as {option} 1,8,64."
        ) from error


def rates_of(text: str | None) -> list[float | str] | None:
    """The rates of `2,4`, and of `trace`, a trace's own."""
    from autotuner.experiment import RECORDED

    parts = text.split(",") if text is not None else []
    named = [part for part in parts if part != RECORDED]
    rates = numbers("--rate", ",".join(named), float) if named else []
    return [*(rates or []), *([RECORDED] if RECORDED in parts else [])] or None


def slo_of(text: str | None) -> Any:
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
