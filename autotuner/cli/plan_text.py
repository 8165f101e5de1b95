"""A plan's launches, load and cost in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autotuner.cli import display, plan_forecast
from autotuner.cli.time_left import clock
from autotuner.experiment import EACH

if TYPE_CHECKING:
    from autotuner.core import Purpose
    from autotuner.experiment import Slo, SloTerm
    from autotuner.forecaster import Foresight
    from autotuner.search.plan import Plan

DEFAULT = "-"
"""The cell of a parameter that the engine's own defaults leave unset."""

_UNITS = {"output_throughput": "output tokens/s", "request_throughput": "requests/s", "goodput": "requests/s"}
"""Of the targets that are no latency."""

_PURPOSES: dict[Purpose, str] = {
    "baseline": "{} with the engine's own defaults",
    "search": "{} to search",
    "confirmation": "{} to confirm the winner",
}


def lines(plan: Plan) -> list[tuple[str, str]]:
    """Label and text: how many launches and why, what each takes, what all take."""
    usual, most = plan.usual, plan.most
    virtual = " of virtual time" if plan.virtual else ""
    time = f"{clock(usual.seconds)}{virtual}"
    hours = f"{usual.gpu_hours:.2f}"
    if most.seconds > usual.seconds:
        time += f"; at most {clock(most.seconds)}{virtual} where windows go on until the answer is sure"
    if most.gpu_hours > usual.gpu_hours:
        hours += f"; at most {most.gpu_hours:.2f}"
    targets = described(plan.experiment.slo)
    return [
        *([("targets", targets)] if targets else []),
        ("launches", _launches(plan)),
        ("each", _each(plan)),
        ("estimate", time),
        ("GPU-hours", hours if any(plan.gpus) else "none, no GPU is taken"),
    ]


def described(slo: Slo) -> str:
    """The targets in words: `ttft 1 s and tpot 0.05 s at most for 95% of requests; latency.p90 5 s at most`."""
    every = [term for term in slo.terms if term.statistic == EACH and not term.is_minimum]
    others = [term for term in slo.terms if term not in every]
    parts = [f"{' and '.join(map(_target, every))} at most for {slo.attainment * 100:g}% of requests"] if every else []
    parts += [f"{_target(term)} {'at least' if term.is_minimum else 'at most'}" for term in others]
    return "; ".join(parts)


def _target(term: SloTerm) -> str:
    return f"{term.name} {term.threshold:g} {_UNITS.get(term.metric, 's')}{', a hard one,' if term.hard_fail else ''}"


def show_candidates(plan: Plan, foresight: Foresight) -> None:
    """Print the candidates of the search with what is predicted at the heaviest load point, and what all share."""
    from autotuner.report.candidate_names import Names
    from autotuner.report.formatting import setting

    point = plan.workload.load_points[-1]
    baseline = next((launch.candidate for launch in plan.launches if launch.purpose == "baseline"), None)
    names = Names.among(plan.candidates, baseline)
    shared = {**names.common, **names.constant}
    own = [name for name in plan.experiment.parameters if name not in shared]
    rows: list[dict[str, Any]] = []
    for number, candidate in enumerate(plan.candidates, start=1):
        settings = {name: setting(value) for name, value in candidate.parameters.items() if name in own}
        if baseline is not None and candidate.key == baseline.key:
            settings = {**dict.fromkeys(own, DEFAULT), **settings}
        rows.append({"trial": number, **settings, **plan_forecast.columns(foresight, candidate, point)})
    foretold = any(plan_forecast.COLUMNS[0] in row for row in rows)
    known = plan_forecast.titles(plan.experiment, plan.candidates) if foretold else ()
    display.line()
    display.sentence(f"candidates{f'; predicted, not measured, at {point}' if known else ''}")
    priorities = dict.fromkeys(known[len(plan_forecast.COLUMNS) :], 1)
    display.table(rows, ["trial", *own, *known], right=["trial", *known], priorities=priorities)
    if baseline is not None:
        display.sentence(f"trial 1: {names.short(baseline)}")
    for text in names.shared():
        display.sentence(text)


def _launches(plan: Plan) -> str:
    counts = plan.purposes
    parts = [text.format(counts[purpose]) for purpose, text in _PURPOSES.items() if counts[purpose]]
    most = "at most " if plan.may_end_early else ""
    more = "; more where they refute it and the next best is confirmed" if plan.confirmations else ""
    return f"{most}{plan.total}: {', '.join(parts)}{more}"


def _each(plan: Plan) -> str:
    load, workload = plan.load, plan.workload
    points = f"{load.points} load point{'' if load.points == 1 else 's'}"
    if load.most_points > load.points:
        points = f"about {points}, at most {load.most_points},"
    warmup = f"{clock(workload.warmup)} of warm-up and " if workload.warmup else ""
    window = clock(workload.duration)
    if load.window > workload.duration:
        window += f" at least and {clock(load.window)} at most"
    return f"{clock(plan.start_seconds)} to start, then {points} of {warmup}a window of {window}"
