"""Runs the reference server as a subprocess and computes the true metrics from its log."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class LoggedRequest(NamedTuple):
    """One request of the server's log: when it was received, and its first and last token sent (monotonic clock)."""

    nonce: str
    received: float
    first_token: float
    last_token: float


@dataclass(frozen=True)
class TrueMetrics:
    """What a client should have reported for a set of requests, in ms; `in_flight` is the mean number in flight."""

    requests: int
    ttft_mean: float
    ttft_p99: float
    tpot_mean: float
    seconds: float
    in_flight: float


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def reference_server(port: int, core: int, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Serve on `core`; `log` is written when the context ends."""
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


def read_log(path: Path) -> list[LoggedRequest]:
    return [LoggedRequest(*row) for row in json.loads(path.read_text())["requests"]]


def true_metrics(log: Sequence[LoggedRequest], count: int, tokens: int) -> TrueMetrics:
    """Summarise the last `count` requests, of `tokens` tokens each: earlier ones were the client's warm-up.

    `in_flight` counts all requests, between the first and the last of these being received.
    """
    requests = sorted(log, key=lambda sent: sent.received)[-count:]
    ttft = [(sent.first_token - sent.received) * 1e3 for sent in requests]
    start, end = requests[0].received, requests[-1].received
    request_seconds = sum(max(0.0, min(sent.last_token, end) - max(sent.received, start)) for sent in log)
    return TrueMetrics(
        requests=len(requests),
        ttft_mean=statistics.fmean(ttft),
        ttft_p99=percentile(ttft, 0.99),
        tpot_mean=statistics.fmean((sent.last_token - sent.first_token) * 1e3 / (tokens - 1) for sent in requests),
        seconds=max(sent.last_token for sent in requests) - start,
        in_flight=request_seconds / (end - start) if end > start else 0.0,
    )


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
