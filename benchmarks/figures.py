"""Measure the command line's own costs: start-up, overhead of a quick-test, peak memory.

    python benchmarks/figures.py

Each command runs as a user would run it, as a process of its own; the figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from autotuner.runs.store import RunStore, find_run

AUTOTUNE = Path(sys.executable).parent / "autotune"
QUESTION = ("--model", "qwen3-32b", "--gpu", "H100", "--isl", "4000", "--osl", "500")


@dataclass(frozen=True)
class Ran:
    """A finished process: wall seconds, and the largest resident set of it and its children in bytes."""

    seconds: float
    peak_bytes: int


def timed(*command: str, cwd: str = ".") -> Ran:
    """Run a command to its end."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=cwd) as process:
        assert process.stderr is not None
        stderr = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{stderr.decode()}")
    return Ran(time.perf_counter() - began, usage.ru_maxrss * 1024)


def start_up(repeats: int, *arguments: str) -> str:
    """Median wall time of a command that measures nothing."""
    timed(str(AUTOTUNE), *arguments)
    runs = sorted(timed(str(AUTOTUNE), *arguments).seconds for _ in range(repeats))
    return f"{statistics.median(runs):.3f} s (min {runs[0]:.3f}, max {runs[-1]:.3f}, n={repeats})"


class OneToken(BaseHTTPRequestHandler):
    """A server that answers at once and notes when the first request of a load came."""

    first: ClassVar[list[float]] = []

    def do_GET(self) -> None:
        """List one model."""
        self._answer(200 if self.path == "/v1/models" else 404, b'{"data": [{"id": "m"}]}')

    def do_POST(self) -> None:
        """Give one token."""
        arrived = time.perf_counter()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["max_tokens"] > 1:  # one token is what a probe asks for
            self.first.append(arrived)
        choice = {"index": 0, "text": " a", "finish_reason": "length"}
        self._answer(200, b"data: %s\n\ndata: [DONE]\n\n" % json.dumps({"choices": [choice]}).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def to_first_request(repeats: int) -> str:
    """Median time from the start of `autotune bench` to the arrival of the first request of its load."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), OneToken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    load = ("--scenario", "D(16,2)", "--concurrency", "1", "--warmup", "0", "--max-requests", "1")
    runs = []
    for _ in range(repeats + 1):
        OneToken.first.clear()
        began = time.perf_counter()
        timed(str(AUTOTUNE), "bench", f"http://127.0.0.1:{server.server_port}", *load)
        runs.append(OneToken.first[0] - began)
    server.shutdown()
    runs = sorted(runs[1:])
    return f"{statistics.median(runs):.2f} s (min {runs[0]:.2f}, max {runs[-1]:.2f}, n={repeats})"


def quick_test() -> list[tuple[str, str, str]]:
    """The main job on the embedded engine: wall time, the share outside start and load, peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        ran = timed(str(AUTOTUNE), "run", "--profile", "quick-test", cwd=folder)
        trials = RunStore.open(find_run(None, Path(folder) / "runs")).trials()
    inside = sum(sum(trial.measurement.timings.values()) for trial in trials)
    share = (ran.seconds - inside) / ran.seconds
    return [
        ("`autotune run --profile quick-test`, wall", f"{ran.seconds:.1f} s", "<= 90 s"),
        ("its time outside engine start and load windows", f"{share:.1%}", "<= 5%"),
        ("its peak memory", f"{ran.peak_bytes / 1e6:.0f} MB", "< 200 MB"),
    ]


def sweeps(repeats: int = 5) -> list[tuple[str, str, str]]:
    """All parallelisms and loads on 32 GPUs, aggregated and split, in this process, and one point; processor time."""
    from autotuner.planning.question import Question
    from autotuner.planning.ranking import rank_options
    from autotuner.predict.harness import AUTOTUNE as AUTOTUNE_HARNESS
    from autotuner.predict.layout import Layout
    from autotuner.predict.predict import predict_closed_loop
    from autotuner.predict.traffic import Software, Traffic

    rows = []
    for model, gpu, target in (("llama-3.1-70b", "h100", "<= 1 s"), ("deepseek-r1", "h200", "<= 3 s")):
        times = []
        for _ in range(repeats):
            began = time.process_time()
            options = rank_options(Question(model, Traffic(4000, 500)), gpu, 32)
            times.append(time.process_time() - began)
        summary = f"{statistics.median(times):.2f} s ({len(options)} options, max {max(times):.2f}, n={repeats})"
        rows.append((f"full sweep of {model} on 32 {gpu}", summary, target))
    deployment = Software().deploy("llama-3.1-70b", "h100", Layout(tp=4))
    cases = (("in closed form", None, "<= 0.2 ms"), ("its schedule simulated", AUTOTUNE_HARNESS, ""))
    for how, harness, target in cases:
        times = []
        for _ in range(1000):
            began = time.process_time()
            predict_closed_loop(deployment, isl=4000, osl=500, concurrency=32, harness=harness)
            times.append(time.process_time() - began)
        rows.append((f"one point in Python, {how}", f"{1000 * statistics.median(times):.3f} ms (n=1000)", target))
    return rows


def main() -> None:
    """Print the figures as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    rows = [
        ("`autotune --help`", start_up(repeats, "--help"), "<= 0.20 s"),
        ("`autotune profiles list`", start_up(repeats, "profiles", "list"), "<= 0.35 s"),
        ("`autotune bench`: command to first request", to_first_request(repeats), "<= 1.5 s"),
        ("`autotune predict point`", start_up(repeats, "predict", "point", *QUESTION, "--tp", "2"), "<= 0.80 s"),
        *sweeps(),
        *quick_test(),
    ]
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| what | measured | target |\n| --- | --- | --- |")
    for what, measured, target in rows:
        print(f"| {what} | {measured} | {target} |")


if __name__ == "__main__":
    main()
