"""How far the load generator's TTFT and TPOT are from the truth, pinned to one core.

    python benchmarks/load/accuracy.py --streams 256 1024 2048 --duration 20

Starts the reference server on a core of its own and drives it in a closed loop. The truth of a
request is when the server wrote its first and last token; the error is what the client's stamp
adds to that. Exits with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from autotuner.core import LoadPoint, Observation, Workload
from autotuner.load import Endpoint, measure
from autotuner.workload.prompts import Prompts

SCENARIO = "D(100,100)"
TARGETS = {256: (0.5, 2.0), 1024: (1.0, 3.0), 2048: (2.0, 10.0)}
VOCABULARY = 32_000


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def reference_server(port: int, core: int, log: Path) -> Iterator[subprocess.Popen[str]]:
    script = Path(__file__).with_name("reference_server.py")
    command = [sys.executable, str(script), "--port", str(port), "--core", str(core), "--log", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def nonces(salt: str, point: LoadPoint, count: int) -> list[str]:
    """Return what the server logs for each request of the window, by index."""
    prompts = Prompts(
        kind="completions", model="m", vocabulary=VOCABULARY, salt=f"{salt}\n{point}", phase="window", prefix=0
    )
    pattern = re.compile(rb'"prompt":\[((?: *\d+,){5} *\d+)')
    found = (pattern.search(prompts.body(index, 100, 100)) for index in range(count))
    return [match[1].decode().replace(" ", "") for match in found if match is not None]


def errors(observation: Observation, salt: str, log: dict[str, tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return the errors of TTFT in ms and of TPOT as a share, one per request of the window."""
    started = [record for record in observation.records if record.index >= 0]
    names = nonces(salt, observation.load_point, max(record.index for record in started) + 1)
    ttft: list[float] = []
    tpot: list[float] = []
    for record in started:
        if record.error is None and names[record.index] in log:
            first, last = log[names[record.index]]
            ttft.append((record.chunk_times[0] - first) * 1e3)
            truth = (last - first) / (record.tokens - 1)
            assert record.tpot is not None
            tpot.append(record.tpot / truth - 1)
    return ttft, tpot


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run(streams: int, duration: float, warmup: float, cores: tuple[int, int]) -> bool:
    """Measure one concurrency, print a line, and say whether the targets were met."""
    port, salt = free_port(), f"accuracy {time.time_ns()}"
    point = LoadPoint(SCENARIO, concurrency=streams)
    workload = Workload((point,), duration=duration, warmup=warmup)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sent.json")
        with reference_server(port, cores[1], path):
            os.sched_setaffinity(0, {cores[0]})
            began = time.monotonic()
            observation = measure(
                Endpoint(f"http://127.0.0.1:{port}", "m", vocabulary=VOCABULARY),
                point,
                workload,
                salt=salt,
                on_phase=lambda phase: None,
            )
            took = time.monotonic() - began
        sent = json.loads(path.read_text())
    ttft, tpot = errors(observation, salt, {nonce: (first, last) for nonce, first, last in sent["requests"]})
    measured = [record.ttft * 1e3 for record in observation.records if record.ttft is not None]
    mean, p99 = statistics.fmean(ttft), percentile(ttft, 0.99)
    limits = TARGETS.get(streams)
    ok = limits is None or (mean <= limits[0] and p99 <= limits[1])
    print(
        f"{streams:6} {len(ttft):8} {sent['tokens'] / took:9.0f} {mean:8.3f} {p99:8.3f} "
        f"{statistics.fmean(measured):8.2f} {percentile(measured, 0.99):8.2f} "
        f"{statistics.fmean(tpot) * 100:8.3f} {percentile([abs(share) for share in tpot], 0.99) * 100:8.3f} "
        f"{observation.loop_lag_p99 * 1e3:7.2f} {sent['late_mean'] * 1e3:7.2f} {sent['late_p99'] * 1e3:7.2f} "
        f"{took - duration - warmup:6.2f} {sum(record.error is not None for record in observation.records):5} "
        f"{'-' if limits is None else 'met' if ok else 'missed'}",
        flush=True,
    )
    return ok


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[256, 1024, 2048])
    parser.add_argument("--duration", type=float, default=20.0)
    parser.add_argument("--warmup", type=float, default=5.0)
    parser.add_argument("--client-core", type=int, default=0)
    parser.add_argument("--server-core", type=int, default=1)
    arguments = parser.parse_args()
    print(
        "streams requests  tokens/s  TTFT error/ms   TTFT measured/ms TPOT error/%      lag p99 server late/ms  rest/s "
        "errors\n                         mean      p99     mean      p99     mean      p99      ms    mean     p99"
    )
    cores = (arguments.client_core, arguments.server_core)
    results = [run(streams, arguments.duration, arguments.warmup, cores) for streams in arguments.streams]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
