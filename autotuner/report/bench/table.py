"""A load test as tables: latencies, throughput with verdicts, and the checks behind the verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from autotuner.core import Capacity, Check, Distribution, Verdict
from autotuner.errors import counted, sentence
from autotuner.report.bench.result import BenchResult, Driven
from autotuner.report.formatting import SOURCE_NOTES, load, number, share, with_interval
from autotuner.report.near_misses import described, near
from autotuner.report.table import ALWAYS, Column, Row, Table, verdict
from autotuner.workload.arrivals import TRACE

FAILED = " !"
"""Behind the figure of a check that did not hold."""


def latencies(bench: BenchResult) -> Table:
    """TTFT and TPOT in ms, E2E in s; 95% intervals behind what few requests may not support."""
    columns = (
        *_where(bench),
        Column("n", lambda row: f"{row['n']:,}", priority=3),
        Column("TTFT ms", lambda row: _statistic(row["ttft"], "mean", 1e3)),
        Column("TTFT p50 ms", lambda row: _percentile(row["ttft"], "p50", 1e3), priority=4),
        Column("TTFT p99 ms", lambda row: with_interval(row["ttft"], "p99", 1e3), priority=1),
        Column("TPOT ms", lambda row: _statistic(row["tpot"], "mean", 1e3)),
        Column("TPOT p99 ms", lambda row: with_interval(row["tpot"], "p99", 1e3), priority=1),
        Column("E2E p50 s", lambda row: _percentile(row["e2e"], "p50", 1.0), priority=5),
        Column("E2E p99 s", lambda row: with_interval(row["e2e"], "p99", 1.0), priority=2),
    )
    return Table(columns, tuple(_row(bench, point) for point in bench.load_points))


def verdicts(bench: BenchResult) -> Table:
    """Throughput, goodput, errors by class and the verdict, with a note on each that is not feasible."""
    targets = (
        Column("good requests/s", lambda row: number(row["goodput"]), priority=2),
        Column("SLO met %", lambda row: share(row["attainment"]).replace("%", "")),
    )
    columns = (
        *_where(bench),
        Column("output tokens/s", lambda row: number(row["output_throughput"])),
        Column("total tokens/s", lambda row: number(row["total_throughput"]), priority=4),
        Column("requests/s", lambda row: number(row["request_throughput"]), priority=1),
        *(targets if bench.slo.terms else ()),
        Column("errors", lambda row: row["errors"], right=False),
        Column("verdict", verdict, right=False),
        Column("source", lambda row: row["source"], right=False, priority=3),
    )
    return Table(columns, tuple(_row(bench, point) for point in bench.load_points), _notes(bench))


def capacities(bench: BenchResult) -> tuple[str, ...]:
    """A sentence for each capacity that was looked for."""
    return tuple(_capacity(found, bool(bench.slo.terms)) for found in bench.capacities)


def _capacity(found: Capacity, targets: bool) -> str:
    unit = "requests/s" if found.unit == "rate" else "in flight"
    if not found.value:
        return f"No load of {found.scenario} meets the targets; the lowest was {found.high or 0:g} {unit}."
    what = "The highest load that meets the targets" if targets else "The knee"
    over = f"; {found.high:g} is too much" if found.high and targets else ""
    seen = f"{found.value:g} {unit}{over}"
    by = counted(found.load_points, "load point")
    return sentence(f"{what}, {found.scenario}: {seen}, by {by}: {found.reason}")


def checks(bench: BenchResult) -> dict[str, Table]:
    """For each scenario one row for each check, one column for each load; a `!` behind what did not hold."""
    scenarios = dict.fromkeys(point.result.load_point.scenario for point in bench.load_points)
    return {name: _checks([p for p in bench.load_points if p.result.load_point.scenario == name]) for name in scenarios}


def _checks(points: Sequence[Driven]) -> Table:
    rows: list[Row] = []
    for name in dict.fromkeys(check.name for point in points for check in point.result.validity):
        row: Row = {"check": name, "limit": ""}
        for place, point in enumerate(points):
            check = next((check for check in point.result.validity if check.name == name), None)
            row[str(place)] = _checked(check)
            row["limit"] = check.limit if check and (not row["limit"] or not check.ok) else row["limit"]
        rows.append(row)
    # where there is no room for all, the loads whose checks all held say least
    held = [all(check.ok for check in point.result.validity) for point in points]
    loads = [
        Column(title, partial(_cell, str(place)), priority=2 if held[place] else ALWAYS)
        for place, title in enumerate(_titles(points))
    ]
    return Table(
        (
            Column("check", lambda row: row["check"], right=False),
            *loads,
            Column("limit", lambda row: row["limit"], right=False, priority=1),
        ),
        tuple(rows),
    )


def _titles(points: Sequence[Driven]) -> list[str]:
    """Each point's load, numbered where it was driven again: a table has no two columns of one title."""
    loads = [load(point.result.load_point) for point in points]
    again = [loads[:place].count(name) for place, name in enumerate(loads)]
    return [f"{name} #{count + 1}" if count else name for name, count in zip(loads, again, strict=True)]


def _where(bench: BenchResult) -> tuple[Column, ...]:
    scenarios = {point.result.load_point.scenario for point in bench.load_points}
    title = "rate" if all(point.result.load_point.rate for point in bench.load_points) else "load"
    scenario = Column("scenario", lambda row: row["scenario"], right=False)
    return (*((scenario,) if len(scenarios) > 1 else ()), Column(title, lambda row: row["load"]))


def _row(bench: BenchResult, point: Driven) -> Row:
    metrics = point.result.metrics
    row: dict[str, Any] = {
        "scenario": point.result.load_point.scenario,
        "load": load(point.result.load_point),
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
        "verdict": point.result.verdict.value,
        "near": near(point.result, bench.slo),
        "failure": None,
        "source": point.result.source,
    }
    return row


def _statistic(distribution: Distribution | None, name: str, scale: float) -> str:
    return "" if distribution is None else number(getattr(distribution, name) * scale)


def _percentile(distribution: Distribution | None, name: str, scale: float) -> str:
    """The figure alone where its interval is closed, else with it."""
    closed = distribution is not None and distribution.intervals.get(name, (0.0, 0.0))[1] is not None
    return (_statistic if closed else with_interval)(distribution, name, scale)


def _cell(key: str, row: Row) -> str:
    return str(row[key])


def _checked(check: Check | None) -> str:
    if check is None or check.value is None:
        return "-"
    whole = check.value >= 1 and check.value == int(check.value)
    return (f"{check.value:,.0f}" if whole else number(check.value)) + ("" if check.ok else FAILED)


def _notes(bench: BenchResult) -> tuple[str, ...]:
    notes = [SOURCE_NOTES.get(bench.source, "")]
    notes += [
        sentence(f"{point.result.load_point} is {point.result.verdict}: {bench.reason(point)}")
        for point in bench.load_points
        if point.result.verdict is not Verdict.FEASIBLE or point.ended_early
    ]
    notes += [
        f"{point.result.load_point} is near a target: {described(terms)}."
        for point in bench.load_points
        if (terms := near(point.result, bench.slo))
    ]
    notes += _replays(bench)
    if bench.vocabulary is not None and bench.vocabulary.origin == "server":
        notes.append(f"Prompts are of the token ids below {bench.vocabulary.size:,}, which this server takes.")
    return tuple(note for note in notes if note)


def _replays(bench: BenchResult) -> Iterator[str]:
    """How much of a trace a window held."""
    load = bench.experiment.benchmark
    own = dict(zip(load.traffic_scenarios, load.recorded, strict=False))
    for point in bench.load_points:
        asked = point.result.load_point
        if load.arrival != TRACE or asked.rate is None:
            continue
        trace = own.get(asked.scenario)
        if point.decided:
            yield sentence(f"{asked}: {point.decided}")
        elif trace is not None and trace.rate == asked.rate:
            held = f"the first {point.result.metrics.requests:,} of the trace's {trace.requests:,} requests"
            yield f"{asked}: the window held {held}, which take {trace.seconds:,.0f} s."
