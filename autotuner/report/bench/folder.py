"""The output folder of a load test.

FOLDER/bench.json         the server, the load, every load point with metrics, validity and verdict
FOLDER/load-points.csv    one row for each load point
FOLDER/records-1.npz      raw request records of the first load point, ...
FOLDER/load.png           TTFT and TPOT against load
FOLDER/tradeoff.png       throughput against interactivity
FOLDER/latencies.png      distributions of TTFT and E2E
FOLDER/timeline.png       throughput and requests in flight over time
"""

from __future__ import annotations

import json
from pathlib import Path

from autotuner.core import Observation
from autotuner.errors import UsageError
from autotuner.load import records
from autotuner.redaction import redact, redact_data
from autotuner.report.bench.record import bench_csv, bench_record
from autotuner.report.bench.result import BenchResult
from autotuner.runs.store import explain_write_errors

JSON_FILE, CSV_FILE = "bench.json", "load-points.csv"


class BenchFolder:
    """Creates and fills the output folder of one load test."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> BenchFolder:
        """Create the folder; UsageError if it is not empty, RunStoreError if it cannot be created."""
        with explain_write_errors(path):
            path.mkdir(0o700, parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise UsageError(f"The folder '{path}' is not empty.", remedy="Name a new one with --output.")
        return cls(path)

    def save_records(self, position: int, observation: Observation) -> str:
        """Write the raw records of one load point; returns the file name."""
        name = f"records-{position}.npz"
        records.save(self.path / name, observation)
        return name

    def write(self, bench: BenchResult) -> None:
        """Write JSON and CSV atomically."""
        with explain_write_errors(self.path):
            record = redact_data(bench_record(bench))
            self._replace(JSON_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
            self._replace(CSV_FILE, redact(bench_csv(bench)))

    def draw(self, bench: BenchResult) -> None:
        """Write the plots as PNG files."""
        with explain_write_errors(self.path):
            self._draw(bench)

    def _replace(self, name: str, text: str) -> None:
        partial = self.path / f"{name}.partial"
        partial.write_text(text, "utf-8", "backslashreplace")
        partial.replace(self.path / name)

    def _draw(self, bench: BenchResult) -> None:
        from autotuner.report.bench.curves import draw_latency_curves, draw_tradeoff
        from autotuner.report.bench.over_time import draw_distributions, draw_timeline
        from autotuner.report.bench.trace import load_point_timeline

        timelines = [
            load_point_timeline(records.read(self.path / point.records)) for point in bench.load_points if point.records
        ]
        draw_latency_curves(bench, self.path / "load.png")
        draw_tradeoff(bench, self.path / "tradeoff.png")
        draw_distributions(bench, timelines, self.path / "latencies.png")
        draw_timeline(bench, timelines, self.path / "timeline.png")
