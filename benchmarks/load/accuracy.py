"""The errors of the load generator's TTFT and TPOT, pinned to one core.

    python benchmarks/load/accuracy.py --streams 256 1024 2048 --duration 20

Starts the reference server on a core of its own and drives it in a closed loop. The true times of a
request are when the server wrote its first and last token; the error is the client's time minus the
true one, shown beside the client's own estimate of it. `--write` puts the table into a page. Exits
with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from page import machine, table, today, write_section
from reference import LoggedRequest, free_port, percentile, read_log, reference_server

from autotuner.core import LoadPoint, Observation, Verdict, Workload
from autotuner.experiment import Slo
from autotuner.load import Endpoint, measure
from autotuner.scoring import validity
from autotuner.scoring.metrics import summarize
from autotuner.workload.prompts import Prompts

SCENARIO = "D(100,100)"
TTFT_ERROR_TARGETS_MS = {256: (0.5, 2.0), 1024: (1.0, 3.0), 2048: (2.0, 10.0)}
VOCAB_SIZE = 32_000


@dataclass(frozen=True)
class Accuracy:
    """Results at one concurrency: TTFT errors in ms and TPOT errors in percent, each as (mean, p99).

    `client_estimate` is the client's own estimate of its TTFT error in ms, `cpu_share` the share of a
    core it took, `client_limits` the failed checks that make it client-limited.
    """

    streams: int
    requests: int
    tokens_per_second: float
    ttft_error: tuple[float, float]
    ttft_measured: tuple[float, float]
    tpot_error: tuple[float, float]
    client_estimate: tuple[float, float]
    loop_lag: float
    cpu_share: float
    client_limits: tuple[str, ...]
    server_lateness: tuple[float, float]
    extra_seconds: float
    failed_count: int

    @property
    def targets_met(self) -> bool | None:
        """Whether the targets were met; None without targets at this concurrency."""
        limits = TTFT_ERROR_TARGETS_MS.get(self.streams)
        return None if limits is None else all(map(float.__le__, self.ttft_error, limits))


def expected_nonces(salt: str, point: LoadPoint, count: int) -> list[str]:
    """The nonces that the server logs for the requests of the window, by index."""
    prompts = Prompts(
        kind="completions", model="m", vocab_size=VOCAB_SIZE, salt=f"{salt}\n{point}", phase="window", prefix_tokens=0
    )
    pattern = re.compile(rb'"prompt":\[((?: *\d+,){5} *\d+)')
    matches = (pattern.search(prompts.body(index, 100, 100)) for index in range(count))
    return [match[1].decode().replace(" ", "") for match in matches if match is not None]


def latency_errors(
    observation: Observation, salt: str, log: dict[str, LoggedRequest]
) -> tuple[list[float], list[float]]:
    """TTFT errors in ms and relative TPOT errors, one each per successful request of the window."""
    window_records = [record for record in observation.records if record.index >= 0]
    nonces = expected_nonces(salt, observation.load_point, max(record.index for record in window_records) + 1)
    ttft: list[float] = []
    tpot: list[float] = []
    for record in window_records:
        if record.error is None and nonces[record.index] in log:
            sent = log[nonces[record.index]]
            ttft.append((record.chunk_times[0] - sent.first_token) * 1e3)
            true_tpot = (sent.last_token - sent.first_token) / (record.output_token_count - 1)
            assert record.tpot is not None
            tpot.append(record.tpot / true_tpot - 1)
    return ttft, tpot


def measure_accuracy(streams: int, duration: float, warmup: float, cores: tuple[int, int]) -> Accuracy:
    """Measure one concurrency; `cores` are those of client and server."""
    port, salt = free_port(), f"accuracy {time.time_ns()}"
    point = LoadPoint(SCENARIO, concurrency=streams)
    workload = Workload((point,), duration=duration, warmup=warmup)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sent.json")
        with reference_server(port, cores[1], path):
            os.sched_setaffinity(0, {cores[0]})
            start_time = time.monotonic()
            observation = measure(
                Endpoint(f"http://127.0.0.1:{port}", "m", vocab_size=VOCAB_SIZE),
                point,
                workload,
                salt=salt,
                on_phase=lambda phase: None,
            )
            duration_taken = time.monotonic() - start_time
        server = json.loads(path.read_text())
        log = {sent.nonce: sent for sent in read_log(path)}
    ttft, tpot = latency_errors(observation, salt, log)
    delays = [record.client_delay * 1e3 for record in observation.records if record.client_delay is not None]
    checks = validity.check_validity(observation, summarize(observation, Slo()), Slo())
    measured = [record.ttft * 1e3 for record in observation.records if record.ttft is not None]
    return Accuracy(
        streams=streams,
        requests=len(ttft),
        tokens_per_second=server["tokens"] / duration_taken,
        ttft_error=(statistics.fmean(ttft), percentile(ttft, 0.99)),
        ttft_measured=(statistics.fmean(measured), percentile(measured, 0.99)),
        tpot_error=(statistics.fmean(tpot) * 100, percentile([abs(error) for error in tpot], 0.99) * 100),
        client_estimate=(statistics.fmean(delays), percentile(delays, 0.99)),
        loop_lag=observation.loop_lag_p99 * 1e3,
        cpu_share=observation.client_cpu or 0.0,
        client_limits=tuple(
            check.name
            for check in checks
            if not check.ok and validity.CHECK_VERDICTS[check.name] is Verdict.CLIENT_LIMITED
        ),
        server_lateness=(server["late_mean"] * 1e3, server["late_p99"] * 1e3),
        extra_seconds=duration_taken - duration - warmup,
        failed_count=sum(record.error is not None for record in observation.records),
    )


COLUMNS = (
    *("streams", "requests", "tokens/s", "TTFT error/ms mean", "p99", "target", "client's estimate/ms mean", "p99"),
    *("TTFT measured/ms mean", "p99", "TPOT error/% mean", "p99", "loop lag p99/ms", "CPU/%"),
    *("client-limited by", "server lateness/ms mean", "p99"),
)


def row(accuracy: Accuracy) -> list[str]:
    limits = TTFT_ERROR_TARGETS_MS.get(accuracy.streams)
    verdict = {True: "met", False: "missed", None: ""}[accuracy.targets_met]
    target = f"{limits[0]:g} and {limits[1]:g}: {verdict}" if limits else "none"
    return [
        f"{accuracy.streams:,}",
        f"{accuracy.requests:,}",
        f"{accuracy.tokens_per_second:,.0f}",
        *(f"{figure:.3f}" for figure in accuracy.ttft_error),
        target,
        *(f"{figure:.3f}" for figure in accuracy.client_estimate),
        *(f"{figure:.2f}" for figure in accuracy.ttft_measured),
        *(f"{figure:.3f}" for figure in accuracy.tpot_error),
        f"{accuracy.loop_lag:.2f}",
        f"{accuracy.cpu_share * 100:.0f}",
        ", ".join(accuracy.client_limits) or "-",
        *(f"{figure:.2f}" for figure in accuracy.server_lateness),
    ]


def markdown(results: Sequence[Accuracy]) -> str:
    """The table with the date and the machine."""
    failed = sum(result.failed_count for result in results)
    return "\n\n".join(
        (
            f"Measured {today()} on {machine()}; client and decoder on one core, the server on another.",
            table(COLUMNS, [row(result) for result in results]),
            f"{failed} of these requests failed.",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[256, 1024, 2048])
    parser.add_argument("--duration", type=float, default=20.0)
    parser.add_argument("--warmup", type=float, default=5.0)
    parser.add_argument("--client-core", type=int, default=0)
    parser.add_argument("--server-core", type=int, default=1)
    parser.add_argument("--write", type=Path, help="replace the table in this page")
    arguments = parser.parse_args()
    cores = (arguments.client_core, arguments.server_core)
    results = []
    for streams in arguments.streams:
        results.append(measure_accuracy(streams, arguments.duration, arguments.warmup, cores))
        print(" | ".join(row(results[-1])), f"extra {results[-1].extra_seconds:.2f} s", file=sys.stderr, flush=True)
    text = markdown(results)
    print(text)
    if arguments.write:
        write_section(arguments.write, "accuracy", text)
    sys.exit(1 if any(result.targets_met is False for result in results) else 0)


if __name__ == "__main__":
    main()
