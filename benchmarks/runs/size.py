"""Time, memory and output of `autotune report` and `run --resume` on large runs, and of a dry run of a large space.

The runs are made in the product's own run folder: one launch is simulated in virtual time, and its results are
written as those of each candidate, with every latency and rate changed by a factor of the candidate's own.

    python benchmarks/runs/size.py --write docs/reference/figures.md
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from autotuner import TaskContext, compose, run
from autotuner.config import Composition
from autotuner.core import Candidate, Distribution, Metrics, Trial
from autotuner.runs.store import TRIALS_FILE, RunStore

RATES = ("interactivity", "output_throughput", "throughput", "request_throughput", "goodput", "token_goodput")
SHAPES = ((5_000, 1), (5_000, 4), (5_000, 20))
"""Trials, and load points of each."""
MARKS = ("<!-- large runs -->", "<!-- end of large runs -->")
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Usage:
    """What one command took: seconds by the clock and of the processor, bytes of memory at most and of its output."""

    wall: float
    cpu: float
    peak_memory: int
    output: int


def experiment_settings(trials: int, points: int) -> dict[str, Any]:
    """The settings of a grid with `trials` combinations and `points` concurrencies for each."""
    optimization = {"strategy": "grid_search", "evaluator": "simulated", "max_iterations": trials}
    return {
        "optimization": {**optimization, "baseline": False, "confirm": 0},
        "benchmark": {"num_concurrency": [1 + 2 * index for index in range(points)]},
        "parameters": {
            "mem-fraction-static": [0.85],
            "enable-chunked-prefill": [True],
            "max-batched-tokens": [1024 + index for index in range(trials)],
        },
        "slo": {"ttft": {"threshold": 0.5}, "tpot": {"threshold": 0.02}},
    }


def compose_run(trials: int, points: int) -> Composition:
    return compose(TaskContext(profiles=["quick-test"], user_overrides=experiment_settings(trials, points)))


def make_run(root: Path, trials: int, points: int) -> Path:
    """A finished run of `trials` launches with `points` load points each."""
    (template,) = run(compose_run(1, points), root / "template").trials
    composition = compose_run(trials, points)
    store = RunStore.create(root, composition.data, {"layers": composition.layers, "values": composition.provenance})
    rng = random.Random(0)
    with patch("os.fsync"):  # 5,000 waits for a disk say nothing here
        for number in range(1, trials + 1):
            parameters = {**template.candidate.parameters, "max-batched-tokens": 1023 + number}
            store.append(scaled_trial(template, number, Candidate("sim", parameters), rng.lognormvariate(0.0, 0.1)))
    return store.path


def scaled_trial(template: Trial, number: int, candidate: Candidate, factor: float) -> Trial:
    """The template as the trial of another candidate, its latencies times `factor` and its rates divided by it."""
    points = tuple(
        replace(result, metrics=scaled_metrics(result.metrics, factor)) for result in template.measurement.load_points
    )
    return replace(
        template, number=number, candidate=candidate, measurement=replace(template.measurement, load_points=points)
    )


def scaled_metrics(metrics: Metrics, factor: float) -> Metrics:
    latencies = {
        field.name: scaled_distribution(value, factor)
        for field in fields(metrics)
        if isinstance(value := getattr(metrics, field.name), Distribution)
    }
    rates = {name: value / factor for name in RATES if (value := getattr(metrics, name)) is not None}
    intervals = {name: (low / factor, high / factor) for name, (low, high) in metrics.intervals.items()}
    changes: dict[str, Any] = {**latencies, **rates, "intervals": intervals}
    return replace(metrics, **changes)


def scaled_distribution(distribution: Distribution, factor: float) -> Distribution:
    def scaled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: scaled(each) for name, each in value.items()}
        if isinstance(value, tuple):
            return tuple(scaled(each) for each in value)
        return None if value is None else value * factor

    names = [field.name for field in fields(distribution) if field.name != "n"]
    return replace(distribution, **{name: scaled(getattr(distribution, name)) for name in names})


def measure(*arguments: str) -> Usage:
    """Run autotune with these arguments; CalledProcessError where it fails."""
    command = [sys.executable, "-m", "autotuner", *arguments]
    with tempfile.TemporaryFile() as output:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - started
        if process.returncode:
            output.seek(0)
            sys.stderr.write(output.read()[-4000:].decode())
            raise subprocess.CalledProcessError(process.returncode, command)
        peak = usage.ru_maxrss * 1024
        return Usage(wall, usage.ru_utime + usage.ru_stime, peak, os.fstat(output.fileno()).st_size)


def row(size: str, command: str, usage: Usage) -> str:
    memory, output = usage.peak_memory / MEBIBYTE, usage.output / MEBIBYTE
    return f"| {size} | {command} | {usage.cpu:.1f} | {usage.wall:.1f} | {memory:,.0f} | {output:.2f} |"


def measure_run(root: Path, trials: int, points: int, add: Callable[[str], None]) -> None:
    """Make a finished run of this size, and `add` a row for each command that reads it."""
    path = make_run(root, trials, points)
    size = f"{trials:,} trials, {trials * points:,} load points, {(path / TRIALS_FILE).stat().st_size / 1e6:,.0f} MB"
    for name, arguments in (
        ("report, the first", ("report", str(path))),
        ("report", ("report", str(path))),
        ("report --json", ("report", str(path), "--json")),
        ("report --format csv", ("report", str(path), "--format", "csv")),
        ("report --format html", ("report", str(path), "--format", "html", "--to", str(root / "page.html"))),
        ("run --resume", ("run", "--resume", str(path))),
    ):
        add(row(size, name, measure(*arguments)))


def measure_dry_run(count: int) -> Usage:
    """A dry run of a grid of `count` combinations of two parameters."""
    settings = (
        "optimization.strategy=grid_search",
        "parameters.max-batched-tokens={from: 1024, to: 2023, step: 1}",
        f"parameters.max-running-requests={{from: 1, to: {count // 1000}, step: 1}}",
    )
    options = (option for setting in settings for option in ("--set", setting))
    return measure("run", "--dry-run", "--evaluator", "simulated", "--profile", "quick-test", *options)


def main() -> None:
    """Measure, print a table, and put it into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default_shapes = " ".join(f"{trials}x{points}" for trials, points in SHAPES)
    parser.add_argument("--shapes", default=default_shapes, help="TRIALSxPOINTS, separated by spaces")
    parser.add_argument("--combinations", type=int, default=100_000, help="of the dry run")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    options = parser.parse_args()
    lines = [
        "| run | command | processor s | wall s | peak memory, MiB | output, MiB |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]

    def add(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    for shape in options.shapes.split():
        trials, points = map(int, shape.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            measure_run(Path(folder), trials, points, add)
    usage = measure_dry_run(options.combinations)
    add(row(f"{options.combinations:,} combinations", "run --dry-run", usage))
    if options.write:
        begin, end = MARKS
        page, table = options.write.read_text(), "\n".join(lines)
        options.write.write_text(re.sub(f"{begin}.*{end}", f"{begin}\n{table}\n{end}", page, flags=re.DOTALL))


if __name__ == "__main__":
    main()
