"""The files of a load test, beside those of every run: bench.json, load-points.csv, and four plots."""

from __future__ import annotations

import json
from pathlib import Path

from autotuner.load import records
from autotuner.output_files import write_whole
from autotuner.redaction import redact_data, write_redacted
from autotuner.report.bench.record import bench_csv, bench_record
from autotuner.report.bench.result import BenchResult
from autotuner.runs.store import explain_write_errors

JSON_FILE, CSV_FILE = "bench.json", "load-points.csv"


def write_tables(bench: BenchResult, folder: Path) -> None:
    """Write JSON and CSV atomically; RunStoreError if they cannot be written."""
    record = json.dumps(redact_data(bench_record(bench)), indent=2, ensure_ascii=False) + "\n"
    with explain_write_errors(folder):
        write_whole(folder / JSON_FILE, record.encode("utf-8", "backslashreplace"))
        write_redacted(folder / CSV_FILE, bench_csv(bench))


def draw(bench: BenchResult, folder: Path) -> None:
    """Write the plots as PNG files, if all records are there; RunStoreError if they cannot be written."""
    paths = [folder / str(bench.records_file(index)) for index in range(len(bench.load_points))]
    if not paths or not all(path.exists() for path in paths):
        return
    from autotuner.report.bench.curves import draw_latency_curves, draw_tradeoff
    from autotuner.report.bench.over_time import draw_distributions, draw_timeline
    from autotuner.report.bench.trace import load_point_timeline

    with explain_write_errors(folder):
        timelines = [load_point_timeline(records.read(path)) for path in paths]
        draw_latency_curves(bench, folder / "load.png")
        draw_tradeoff(bench, folder / "tradeoff.png")
        draw_distributions(bench, timelines, folder / "latencies.png")
        draw_timeline(bench, timelines, folder / "timeline.png")
