"""Measures whether the simulated engine's own CPU work is a bottleneck.

The server is pinned to one core and every iteration is fixed to 10 ms, so each stream should get
100 tokens/s. The table shows, by number of streams, the share of that core the server used, the
token rate that came out, and how late its sends were. Run it as

    python benchmarks/simulate/bottleneck.py [--streams 64 256 1024] [--seconds 10] [--output FILE]
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import IO

STEP_MS = 10
RATE = 1000 / STEP_MS
BUCKET = re.compile(r'^autotune_sim_send_lateness_seconds_bucket\{le="([^"]+)"\} (\d+)$', re.MULTILINE)
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class StreamResult:
    """The result for one number of streams: share of a core, tokens/s per stream, lateness in milliseconds."""

    streams: int
    core_share: float
    tokens_per_second: float
    late_p50: str
    late_p99: str
    late_mean: float


@contextmanager
def server(core: int) -> Iterator[tuple[int, int]]:
    """Start a server on one core; give its process id and port."""
    # A KV cache that holds every stream to its end, so that nothing is preempted.
    engine_flags = ["--model", "qwen3-0.6b", "--gpu", "b300_sxm", "--kv-cache-dtype", "fp8", "--max-model-len", "8192"]
    flags = ["--port", "0", "--load-seconds", "0", "--fixed-step-ms", str(STEP_MS), "--max-running-requests", "4096"]
    with tempfile.TemporaryFile("w+b") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "autotuner.simulate.server", *engine_flags, *flags],
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        try:
            yield process.pid, wait_for_port(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def wait_for_port(process: subprocess.Popen[bytes], log: IO[bytes]) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        log.seek(0)
        match = re.search(rb"listening on http://127\.0\.0\.1:(\d+)", log.read())
        if match:
            return int(match[1])
        time.sleep(0.02)
    raise SystemExit("the server did not start")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def lateness(port: int) -> tuple[dict[float, int], float]:
    """Read the histogram of the server's send lateness: cumulative counts by bound, and the sum."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics") as response:
        text = response.read().decode()
    total = re.search(r"^autotune_sim_send_lateness_seconds_sum (\S+)$", text, re.MULTILINE)
    assert total is not None
    return {float(bound): int(count) for bound, count in BUCKET.findall(text)}, float(total[1])


def quantile(before: dict[float, int], after: dict[float, int], share: float) -> str:
    """The upper bound of the bucket with the quantile, in milliseconds."""
    total = after[float("inf")] - before[float("inf")]
    bounds = sorted(after)
    bound = next(bound for bound in bounds if after[bound] - before[bound] >= share * total)
    return f"<= {bound * 1000:g}" if bound < float("inf") else f"> {bounds[-2] * 1000:g}"


def read_for(seconds: float, selector: selectors.BaseSelector) -> int:
    """Read all streams; return the number of tokens received."""
    tokens, end = 0, time.monotonic() + seconds
    while (remaining := end - time.monotonic()) > 0:
        for key, _ in selector.select(remaining):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            tokens += connection.recv(1 << 18).count(b'"text":')
    return tokens


def measure(streams: int, seconds: float, core: int) -> StreamResult:
    body = b'{"prompt": [1, 2, 3, 4], "max_tokens": 8000, "stream": true}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with server(core) as (pid, port), ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(streams):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(head + body)
            selector.register(connection, selectors.EVENT_READ)
        read_for(1.5, selector)
        (buckets_before, sum_before), cpu_before, start = lateness(port), cpu_seconds(pid), time.monotonic()
        tokens = read_for(seconds, selector)
        cpu_used, elapsed = cpu_seconds(pid) - cpu_before, time.monotonic() - start
        buckets_after, sum_after = lateness(port)
    iterations = buckets_after[float("inf")] - buckets_before[float("inf")]
    return StreamResult(
        streams=streams,
        core_share=cpu_used / elapsed,
        tokens_per_second=tokens / elapsed / streams,
        late_p50=quantile(buckets_before, buckets_after, 0.50),
        late_p99=quantile(buckets_before, buckets_after, 0.99),
        late_mean=(sum_after - sum_before) / max(1, iterations) * 1000,
    )


def machine() -> str:
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    load = os.getloadavg()[0]
    return (
        f"{date.today()}, {model[1] if model else platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, load average {load:.1f}"
    )


def table(rows: list[StreamResult]) -> str:
    lines = [
        f"# The simulated engine on one core, each stream paced at {RATE:g} tokens/s",
        "",
        f"{machine()}.",
        "",
        "| streams | share of one core | tokens/s per stream | sends late, mean ms | p50 ms | p99 ms |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.streams} | {row.core_share:.0%} | {row.tokens_per_second:.1f} | {row.late_mean:.2f} "
        f"| {row.late_p50} | {row.late_p99} |"
        for row in rows
    ]
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[64, 256, 512, 1024])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    server_core = cores[0]
    if len(cores) > 1:
        os.sched_setaffinity(0, set(cores[1:]))
    text = table([measure(streams, options.seconds, server_core) for streams in options.streams])
    print(text)
    if options.output:
        options.output.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
