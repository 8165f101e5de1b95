"""A load test as JSON-ready data and as CSV: seconds, tokens per second, requests per second."""

from __future__ import annotations

import csv as csv_module
import dataclasses
import io
from typing import Any

from autotuner.core import LoadPointResult
from autotuner.escaping import for_csv
from autotuner.report.bench.result import BenchResult
from autotuner.report.csv import LOAD_POINT_COLUMNS, load_point_row
from autotuner.report.record import load_point_record


def bench_record(bench: BenchResult) -> dict[str, Any]:
    """The server, the load, and every load point; None for missing metrics or bounds."""
    load = bench.experiment.benchmark
    return {
        "url": bench.url,
        "model": bench.model,
        "source": bench.source,
        "endpoint": load.endpoint,
        "write_delay": bench.write_delay,
        "request": {**dataclasses.asdict(load.request_form), "remarks": bench.remarks},
        "insecure": bench.experiment.deployment.insecure,
        "vocabulary": dataclasses.asdict(bench.vocabulary) if bench.vocabulary else None,
        "duration": load.duration,
        "warmup": load.warmup,
        "max_requests": load.max_requests,
        "arrival": load.arrival,
        "recorded": _trace_records(bench),
        "traces": [dataclasses.asdict(trace) for trace in bench.traces],
        "seed": load.seed,
        "slo": _slo_record(bench),
        "started": bench.started,
        "planned": bench.planned,
        "stopped": bench.stopped,
        "interrupted": bench.interrupted,
        "capacities": [dataclasses.asdict(capacity) for capacity in bench.capacities],
        "load_points": [_load_point_entry(bench, index, point) for index, point in enumerate(bench.load_points)],
    }


def _slo_record(bench: BenchResult) -> dict[str, Any] | None:
    terms = [{"metric": t.metric, "statistic": t.statistic, "threshold": t.threshold} for t in bench.slo.terms]
    return {"attainment": bench.slo.attainment, "terms": terms} if terms else None


def _trace_records(bench: BenchResult) -> list[dict[str, Any]]:
    load = bench.experiment.benchmark
    traces = zip(load.traffic_scenarios, load.recorded, strict=False)
    return [{"scenario": name, **trace.model_dump()} for name, trace in traces]


def bench_csv(bench: BenchResult) -> str:
    """CSV with one row per load point, empty for missing values."""
    text = io.StringIO()
    columns = ["model", "source", *LOAD_POINT_COLUMNS, "reason"]
    writer = csv_module.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for point in bench.load_points:
        identity = {"model": bench.model, "source": bench.source, "reason": bench.reason(point)}
        row = load_point_row(point, bench.slo) | identity
        writer.writerow({name: for_csv(value) for name, value in row.items()})
    return text.getvalue()


def _load_point_entry(bench: BenchResult, index: int, point: LoadPointResult) -> dict[str, Any]:
    return {
        **load_point_record(point, bench.slo),
        "reason": bench.reason(point),
        "ended_early": point.ended_early,
        "decided": point.decided,
        "notes": list(bench.notes(point)),
        "records": bench.records_file(index),
        "retry_after": bench.pause_not_kept(point),
    }
