"""Tables of a load test: latencies, throughput with verdicts, and validity checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from autotuner.core import Capacity, Check, Distribution, LoadPointResult, Verdict
from autotuner.errors import as_sentence, pluralize
from autotuner.report.bench.result import BenchResult
from autotuner.report.formatting import SOURCE_NOTES, format_load, format_number, format_share, format_statistic
from autotuner.report.near_misses import describe_terms, near_terms
from autotuner.report.table import ALWAYS_SHOWN, Column, Row, Table, verdict_text
from autotuner.workload.arrivals import TRACE

_TOKEN_COUNT_TEXTS = {
    "events": "tokens are counted by the events of the stream, because the server reports no usage that fits them",
    "listed tokens": "tokens are counted by the token ids or log probabilities, because there is no usage that fits",
}
FAILED_MARK = " !"
"""Suffix of the value of a failed check."""


def latency_table(bench: BenchResult) -> Table:
    """TTFT and TPOT in ms, E2E in s; 95% confidence intervals for p99 and where the upper limit is missing."""
    columns = (
        *_load_columns(bench),
        Column("n", lambda row: f"{row['n']:,}", drop_priority=3),
        Column("TTFT ms", lambda row: _statistic_text(row["ttft"], "mean", 1e3)),
        Column("TTFT p50 ms", lambda row: _percentile_text(row["ttft"], "p50", 1e3), drop_priority=4),
        Column("TTFT p99 ms", lambda row: format_statistic(row["ttft"], "p99", 1e3), drop_priority=1),
        Column("TPOT ms", lambda row: _statistic_text(row["tpot"], "mean", 1e3)),
        Column("TPOT p99 ms", lambda row: format_statistic(row["tpot"], "p99", 1e3), drop_priority=1),
        Column("E2E p50 s", lambda row: _percentile_text(row["e2e"], "p50", 1.0), drop_priority=5),
        Column("E2E p99 s", lambda row: format_statistic(row["e2e"], "p99", 1.0), drop_priority=2),
    )
    return Table(columns, tuple(_row(bench, point) for point in bench.load_points))


def verdict_table(bench: BenchResult) -> Table:
    """Throughput, goodput, errors by class and verdict, with a note for each load point that is not feasible."""
    slo_columns = (
        Column("good requests/s", lambda row: format_number(row["goodput"]), drop_priority=2),
        Column("SLO met %", lambda row: format_share(row["attainment"]).replace("%", "")),
    )
    columns = (
        *_load_columns(bench),
        Column("output tokens/s", lambda row: format_number(row["output_throughput"])),
        Column("total tokens/s", lambda row: format_number(row["total_throughput"]), drop_priority=4),
        Column("requests/s", lambda row: format_number(row["request_throughput"]), drop_priority=1),
        *(slo_columns if bench.slo.terms else ()),
        Column("errors", lambda row: row["errors"], numeric=False),
        Column("verdict", verdict_text, numeric=False),
        Column("source", lambda row: row["source"], numeric=False, drop_priority=3),
    )
    return Table(columns, tuple(_row(bench, point) for point in bench.load_points), _notes(bench))


def capacity_sentences(bench: BenchResult) -> tuple[str, ...]:
    """One sentence for each capacity search."""
    return tuple(_capacity_sentence(capacity, bool(bench.slo.terms)) for capacity in bench.capacities)


def _capacity_sentence(capacity: Capacity, has_targets: bool) -> str:
    unit = "requests/s" if capacity.unit == "rate" else "in flight"
    if not capacity.value:
        return f"No load of {capacity.scenario} meets the targets; the lowest tried was {capacity.high or 0:g} {unit}."
    what = "The highest load that meets the targets" if has_targets else "The knee"
    limit = f" ({capacity.high:g} is too high)" if capacity.high and has_targets else ""
    load_points = pluralize(capacity.load_points, "load point")
    return as_sentence(
        f"{what}, {capacity.scenario}: {capacity.value:g} {unit}{limit}, from {load_points}: {capacity.reason}"
    )


def check_tables(bench: BenchResult) -> dict[str, Table]:
    """Scenario -> table with one row per check and one column per load; `!` marks failed checks."""
    scenarios = dict.fromkeys(point.load_point.scenario for point in bench.load_points)
    return {name: _check_table([p for p in bench.load_points if p.load_point.scenario == name]) for name in scenarios}


def _check_table(points: Sequence[LoadPointResult]) -> Table:
    """A row per validity check, a column per load point."""
    rows: list[Row] = []
    for name in dict.fromkeys(check.name for point in points for check in point.validity):
        row: Row = {"check": name, "limit": ""}
        for index, point in enumerate(points):
            check = next((check for check in point.validity if check.name == name), None)
            row[str(index)] = _check_text(check)
            row["limit"] = check.limit if check and (not row["limit"] or not check.ok) else row["limit"]
        rows.append(row)
    # in a narrow terminal, loads whose checks all passed are dropped first
    all_passed = [all(check.ok for check in point.validity) for point in points]
    loads = [
        Column(title, partial(_cell_text, str(index)), drop_priority=2 if all_passed[index] else ALWAYS_SHOWN)
        for index, title in enumerate(_load_titles(points))
    ]
    return Table(
        (
            Column("check", lambda row: row["check"], numeric=False),
            *loads,
            Column("limit", lambda row: row["limit"], numeric=False, drop_priority=1),
        ),
        tuple(rows),
    )


def _load_titles(points: Sequence[LoadPointResult]) -> list[str]:
    """Each point's load, numbered if repeated: column titles must be unique."""
    loads = [format_load(point.load_point) for point in points]
    repeats = [loads[:index].count(name) for index, name in enumerate(loads)]
    return [f"{name} #{count + 1}" if count else name for name, count in zip(loads, repeats, strict=True)]


def _load_columns(bench: BenchResult) -> tuple[Column, ...]:
    scenarios = {point.load_point.scenario for point in bench.load_points}
    title = "rate" if all(point.load_point.rate for point in bench.load_points) else "load"
    scenario = Column("scenario", lambda row: row["scenario"], numeric=False)
    return (*((scenario,) if len(scenarios) > 1 else ()), Column(title, lambda row: row["load"]))


def _row(bench: BenchResult, point: LoadPointResult) -> Row:
    metrics = point.metrics
    row: dict[str, Any] = {
        "scenario": point.load_point.scenario,
        "load": format_load(point.load_point),
        "n": metrics.requests,
        "ttft": metrics.ttft,
        "tpot": metrics.tpot,
        "e2e": metrics.e2e,
        "output_throughput": metrics.output_throughput,
        "total_throughput": metrics.throughput,
        "request_throughput": metrics.request_throughput,
        "goodput": metrics.goodput,
        "attainment": metrics.attainment,
        "errors": ", ".join(f"{name}: {count}" for name, count in metrics.errors.items()) or "none",
        "verdict": point.verdict.value,
        "near": near_terms(point, bench.slo),
        "failure": None,
        "source": point.source,
    }
    return row


def _statistic_text(distribution: Distribution | None, name: str, scale: float) -> str:
    return "" if distribution is None else format_number(getattr(distribution, name) * scale)


def _percentile_text(distribution: Distribution | None, name: str, scale: float) -> str:
    """A percentile, with its interval only if that has no upper limit."""
    is_bounded = distribution is not None and distribution.intervals.get(name, (0.0, 0.0))[1] is not None
    return (_statistic_text if is_bounded else format_statistic)(distribution, name, scale)


def _cell_text(key: str, row: Row) -> str:
    return str(row[key])


def _check_text(check: Check | None) -> str:
    if check is None or check.value is None:
        return "-"
    is_integer = check.value >= 1 and check.value == int(check.value)
    return (f"{check.value:,.0f}" if is_integer else format_number(check.value)) + ("" if check.ok else FAILED_MARK)


def _notes(bench: BenchResult) -> tuple[str, ...]:
    notes = [SOURCE_NOTES.get(bench.source, "")]
    notes += [
        as_sentence(f"{point.load_point} is {point.verdict}: {bench.reason(point)}")
        for point in bench.load_points
        if point.verdict is not Verdict.FEASIBLE or point.ended_early
    ]
    notes += [
        f"{point.load_point} is near a target: {describe_terms(terms)}."
        for point in bench.load_points
        if (terms := near_terms(point, bench.slo))
    ]
    notes += dict.fromkeys(note for point in bench.load_points for note in bench.notes(point))
    notes += _error_notes(bench)
    notes += _token_count_notes(bench)
    notes += _replay_notes(bench)
    if bench.vocabulary is not None and bench.vocabulary.origin == "server":
        notes.append(f"Prompts use token ids below {bench.vocabulary.size:,}, which this server accepts.")
    return tuple(note for note in notes if note)


def _error_notes(bench: BenchResult) -> Iterator[str]:
    """What the server said or sent, for the first error of each class of each load point."""
    for point in bench.load_points:
        for name, message in point.error_messages.items():
            yield as_sentence(f"{point.load_point}, {name}: {message}")


def _token_count_notes(bench: BenchResult) -> Iterator[str]:
    """Which load points' tokens were not counted by the server's usage."""
    points_by_text: dict[str, list[str]] = {}
    for point in bench.load_points:
        counts = point.metrics.token_counts
        total = sum(counts.values())
        for source, text in _TOKEN_COUNT_TEXTS.items():
            if requests := counts.get(source, 0):
                share = "" if requests == total else f" in {requests:,} of {total:,} answers"
                points_by_text.setdefault(f"{text}{share}", []).append(str(point.load_point))
    for text, points in points_by_text.items():
        yield f"{', '.join(points)}: {text}."


def _replay_notes(bench: BenchResult) -> Iterator[str]:
    """Notes on how much of a replayed trace each window covered."""
    load = bench.experiment.benchmark
    trace_by_scenario = dict(zip(load.traffic_scenarios, load.recorded, strict=False))
    for point in bench.load_points:
        load_point = point.load_point
        if load.arrival != TRACE or load_point.rate is None:
            continue
        trace = trace_by_scenario.get(load_point.scenario)
        if point.decided:
            yield as_sentence(f"{load_point}: {point.decided}")
        elif trace is not None and trace.rate == load_point.rate:
            requests = f"the first {point.metrics.requests:,} of the trace's {trace.requests:,} requests"
            yield f"{load_point}: the window covered {requests} ({trace.seconds:,.0f} s in total)."
