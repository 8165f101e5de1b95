"""The text of a plan: launches, load, cost, and predicted candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autotuner.cli import display, plan_forecast
from autotuner.cli.time_left import format_duration
from autotuner.experiment import EACH_REQUEST

if TYPE_CHECKING:
    from autotuner.core import Purpose
    from autotuner.experiment import Slo, SloTerm
    from autotuner.forecaster import Forecaster
    from autotuner.search.plan import Plan

UNSET_CELL = "-"
"""Cell of a parameter that is not set."""

_THROUGHPUT_UNITS = {
    "output_throughput": "output tokens/s",
    "request_throughput": "requests/s",
    "goodput": "requests/s",
}
"""Units of targets other than latencies."""

_PURPOSE_TEXTS: dict[Purpose, str] = {
    "baseline": "{} with the engine's own defaults",
    "search": "{} to search",
    "confirmation": "{} to confirm the winner",
}


def summary_lines(plan: Plan) -> list[tuple[str, str]]:
    """Label and text of each line: targets, launches and their purpose, duration of one launch, total cost."""
    usual_cost, max_cost = plan.usual_cost, plan.max_cost
    time_suffix = " of virtual time" if plan.in_virtual_time else ""
    time = f"{format_duration(usual_cost.seconds)}{time_suffix}"
    hours = f"{usual_cost.gpu_hours:.2f}"
    if max_cost.seconds > usual_cost.seconds:
        time += f"; at most {format_duration(max_cost.seconds)}{time_suffix} if windows are extended to --max-duration"
    if max_cost.gpu_hours > usual_cost.gpu_hours:
        hours += f"; at most {max_cost.gpu_hours:.2f}"
    targets = describe_targets(plan.experiment.slo)
    return [
        *([("targets", targets)] if targets else []),
        ("launches", _launches_text(plan)),
        ("each", _launch_duration_text(plan)),
        ("estimate", time),
        ("GPU-hours", hours if any(plan.gpus) else "none, no GPU is taken"),
    ]


def describe_targets(slo: Slo) -> str:
    """The targets as text: `ttft 1 s and tpot 0.05 s at most for 95% of requests; latency.p90 5 s at most`."""
    request_terms = [term for term in slo.terms if term.statistic == EACH_REQUEST and not term.is_minimum]
    other_terms = [term for term in slo.terms if term not in request_terms]
    parts = (
        [f"{' and '.join(map(_describe_target, request_terms))} at most for {slo.attainment * 100:g}% of requests"]
        if request_terms
        else []
    )
    parts += [f"{_describe_target(term)} {'at least' if term.is_minimum else 'at most'}" for term in other_terms]
    return "; ".join(parts)


def _describe_target(term: SloTerm) -> str:
    unit = _THROUGHPUT_UNITS.get(term.metric, "s")
    return f"{term.name} {term.threshold:g} {unit}{' (hard)' if term.hard_fail else ''}"


def print_candidates(plan: Plan, forecaster: Forecaster) -> None:
    """Print the candidates with their prediction at the heaviest load point, and the shared settings."""
    from autotuner.report.candidate_names import CandidateNames
    from autotuner.report.formatting import format_setting

    load_point = plan.workload.load_points[-1]
    baseline = next((launch.candidate for launch in plan.launches if launch.purpose == "baseline"), None)
    names = CandidateNames.from_candidates(plan.candidates, baseline)
    shared = {**names.common_parameters, **names.searched_constants}
    columns = [name for name in plan.experiment.parameters if name not in shared]
    rows: list[dict[str, Any]] = []
    for number, candidate in enumerate(plan.candidates, start=1):
        settings = {name: format_setting(value) for name, value in candidate.parameters.items() if name in columns}
        if baseline is not None and candidate.key == baseline.key:
            settings = {**dict.fromkeys(columns, UNSET_CELL), **settings}
        rows.append({"trial": number, **settings, **plan_forecast.forecast_cells(forecaster, candidate, load_point)})
    has_forecast = any(plan_forecast.FORECAST_COLUMNS[0] in row for row in rows)
    forecast_titles = plan_forecast.column_titles(plan.experiment, plan.candidates) if has_forecast else ()
    display.line()
    display.sentence(f"candidates{f'; predicted, not measured, at {load_point}' if forecast_titles else ''}")
    priorities = dict.fromkeys(forecast_titles[len(plan_forecast.FORECAST_COLUMNS) :], 1)
    display.table(
        rows, ["trial", *columns, *forecast_titles], numeric=["trial", *forecast_titles], priorities=priorities
    )
    if baseline is not None:
        display.sentence(f"trial 1: {names.short_name(baseline)}")
    for text in names.shared_settings():
        display.sentence(text)


def _launches_text(plan: Plan) -> str:
    counts = plan.purposes
    parts = [text.format(counts[purpose]) for purpose, text in _PURPOSE_TEXTS.items() if counts[purpose]]
    limit = "at most " if plan.may_end_early else ""
    remark = "; more if they refute it and the next best is confirmed" if plan.confirmations else ""
    at_once = plan.experiment.optimization.parallel_trials
    side_by_side = f", {at_once} at a time" if at_once > 1 else ""
    return f"{limit}{plan.launch_count}{side_by_side}: {', '.join(parts)}{remark}"


def _launch_duration_text(plan: Plan) -> str:
    """What one launch of the search takes: the start, how many load points, and how long each."""
    load, workload = plan.launch_load, plan.workload
    points = f"{load.points} load point{'' if load.points == 1 else 's'}"
    if load.max_points > load.points:
        points = f"about {points}, at most {load.max_points},"
    warmup = f"{format_duration(workload.warmup)} of warm-up and " if workload.warmup else ""
    window = format_duration(workload.duration)
    if load.max_window > workload.duration:
        window += f" at least and {format_duration(load.max_window)} at most"
    return f"{format_duration(plan.start_seconds)} to start, then {points} of {warmup}a window of {window}"
