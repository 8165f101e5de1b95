"""Compares autotune's load generator with its peers: what each reports against the true metrics.

    python benchmarks/load/peers.py --write docs/reference/load-generator.md

Every client drives the same reference server in the same closed loop, pinned to one core, the
server on another; the true metrics come from the server's log of the requests that the client counted.
Peers are installed by this script, each into an environment of its own (`--environments`); vLLM
through tests/real/setup_vllm.py unless `--vllm-env` names an environment that has it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import platformdirs
from clients import PEERS, TORCH, BenchmarkLoad, Client, ReportedMetrics, autotune_client, vllm_client
from page import machine, table, today, write_section
from reference import TrueMetrics, free_port, read_log, reference_server, true_metrics

import autotuner

ROOT = Path(__file__).parents[2]
TOKENS = 100
GRACE_SECONDS = 120.0
"""The time a client may take beyond its load, for startup and its report."""


@dataclass(frozen=True)
class ClientResult:
    """One client at one number of streams; `failure` is why there is no report."""

    client: str
    version: str
    streams: int
    command_seconds: float
    cpu_seconds: float
    reported: ReportedMetrics | None = None
    true: TrueMetrics | None = None
    failure: str | None = None


def print_progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def install(client: Client, home: Path) -> Path:
    """Create the client's environment if missing, and return it."""
    environment = home / client.name.lower()
    marker = environment / f"installed-{client.version}"
    if client.packages and not marker.exists():
        print_progress(f"installing {' '.join(client.packages)} into {environment}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        pip = [str(environment / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        # without a build of torch for CPU, pip takes the one for CUDA and gigabytes with it
        if subprocess.run([*pip, f"torch=={TORCH}+cpu", *client.packages], stderr=subprocess.DEVNULL).returncode:
            subprocess.run([*pip, f"torch=={TORCH}", *client.packages], check=True)
        marker.touch()
    return environment


def vllm_version(environment: Path) -> str:
    code = "from importlib.metadata import version; print(version('vllm'))"
    return subprocess.check_output([environment / "bin" / "python", "-c", code], text=True).strip()


def set_up(arguments: argparse.Namespace) -> tuple[list[tuple[Client, Path]], Path]:
    """Install what is missing; return the chosen clients with their environments, and a tokenizer folder."""
    home: Path = arguments.environments
    home.mkdir(parents=True, exist_ok=True)
    if arguments.vllm_env is None:
        subprocess.run([sys.executable, ROOT / "tests" / "real" / "setup_vllm.py", home / "engine"], check=True)
        arguments.vllm_env = home / "engine" / "vllm"
    clients = [
        (autotune_client(autotuner.__version__), Path(sys.prefix)),
        (vllm_client(vllm_version(arguments.vllm_env)), arguments.vllm_env),
        *((peer, home / peer.name.lower()) for peer in PEERS),
    ]
    chosen = [pair for pair in clients if arguments.clients is None or pair[0].name in arguments.clients]
    for client, _ in chosen:
        install(client, home)
    tokenizer = home / "tokenizer"
    if not tokenizer.exists():
        script = Path(__file__).with_name("make_tokenizer.py")
        subprocess.run([arguments.vllm_env / "bin" / "python", script, tokenizer], check=True)
    return chosen, tokenizer


def wait(pid: int, deadline: float) -> tuple[int | None, resource.struct_rusage]:
    """Wait for a process until a monotonic instant; return its exit status, None if it still runs, and its usage."""
    while True:
        ended_pid, status, usage = os.wait4(pid, os.WNOHANG)
        if ended_pid:
            return os.waitstatus_to_exitcode(status), usage
        if time.monotonic() > deadline:
            return None, usage
        time.sleep(0.2)


def run_command(command: Sequence[str], client: Client, folder: Path, limit: float) -> tuple[float, float, str | None]:
    """Run a client to its end; return wall seconds, CPU seconds, and why it failed or None."""
    environment = {**os.environ, **client.environment}
    start_time = time.monotonic()
    with (folder / "stdout.txt").open("wb") as output, (folder / "stderr.txt").open("wb") as errors:
        process = subprocess.Popen(
            command, stdout=output, stderr=errors, cwd=folder, env=environment, start_new_session=True
        )
        try:
            status, usage = wait(process.pid, start_time + limit)
        finally:
            # also ends the client's own workers, and all of them when this script is interrupted
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        failure = None if status == 0 else f"ended with status {status}"
        if status is None:
            status, usage = wait(process.pid, math.inf)
            failure = f"was not done after {limit:.0f} s"
        process.returncode = status
    return time.monotonic() - start_time, usage.ru_utime + usage.ru_stime, failure


def last_line(folder: Path) -> list[str]:
    """The last line of stderr, or of stdout when stderr is empty, in a list; empty when there is none."""
    lines = [(folder / name).read_text(errors="replace").strip().splitlines() for name in ("stderr.txt", "stdout.txt")]
    return next(filter(None, lines), [])[-1:]


def compare(client: Client, environment: Path, load: BenchmarkLoad, server_core: int) -> ClientResult:
    """Run one client against a server of its own, and compare its report with the server's log."""
    port = int(load.url.rpartition(":")[2])
    log = load.folder / "sent.json"
    with reference_server(port, server_core, log):
        wall, cpu, failure = run_command(
            client.command(environment, load), client, load.folder, load.seconds + GRACE_SECONDS
        )
    result = ClientResult(client.name, client.version, load.streams, wall, cpu, failure=failure)
    if failure:
        return replace(result, failure=": ".join([failure, *last_line(load.folder)]))
    try:
        reported = client.read(load)
    except (OSError, KeyError, ValueError) as error:
        return replace(result, failure=f"wrote no readable report: {error!r}")
    if not reported.requests:
        return replace(result, failure="counted no request")
    true = true_metrics(read_log(log), reported.requests, TOKENS)
    return ClientResult(client.name, client.version, load.streams, wall, cpu, reported, true)


def row(result: ClientResult) -> list[str]:
    """A row of the table: reported metrics, and their errors against the true ones."""
    name = f"{result.client} {result.version}"
    reported, true = result.reported, result.true
    if reported is None or true is None:
        return [name, "failed", *["" for _ in COLUMNS[2:]]]
    return [
        name,
        f"{reported.requests:,}",
        f"{reported.ttft_mean:.1f}",
        f"{reported.ttft_mean - true.ttft_mean:+.2f}",
        f"{reported.ttft_p99:.1f}",
        f"{reported.ttft_p99 - true.ttft_p99:+.2f}",
        f"{reported.tpot_mean:.3f}",
        f"{(reported.tpot_mean / true.tpot_mean - 1) * 100:+.2f}",
        f"{true.in_flight:,.0f}",
        f"{true.seconds:.1f}",
        f"{result.cpu_seconds:.0f}",
        f"{result.command_seconds:.0f}",
    ]


COLUMNS = (
    *("client", "requests", "TTFT mean/ms", "error/ms", "TTFT p99/ms", "error/ms", "TPOT mean/ms", "error/%"),
    *("in flight", "load/s", "CPU/s", "command/s"),
)


def markdown(results: Sequence[ClientResult]) -> str:
    """One table per number of streams, each with the range of true TTFT over its clients."""
    parts = [f"Measured {today()} on {machine()}; each client on one core, the server on another."]
    for streams in sorted({result.streams for result in results}):
        selected = [result for result in results if result.streams == streams]
        parts.append(f"{streams:,} streams:")
        parts.append(table(COLUMNS, [row(result) for result in selected]))
        means = [result.true.ttft_mean for result in selected if result.true]
        tails = [result.true.ttft_p99 for result in selected if result.true]
        if means:
            parts.append(
                f"True TTFT over these runs: mean {min(means):.2f} to {max(means):.2f} ms, "
                f"p99 {min(tails):.2f} to {max(tails):.2f} ms."
            )
        parts += [f"{result.client} failed: it {result.failure}" for result in selected if result.failure]
        parts += [
            f"{result.client} remarks on its own run: {result.reported.remark}."
            for result in selected
            if result.reported and result.reported.remark
        ]
    return "\n\n".join(parts)


def measure_all(arguments: argparse.Namespace, on_result: Callable[[ClientResult], None]) -> list[ClientResult]:
    """Set up, pin this process and so every client, and compare them one after another."""
    clients, tokenizer = set_up(arguments)
    os.sched_setaffinity(0, {arguments.client_core})
    results = []
    for streams, rounds in zip(arguments.streams, arguments.rounds, strict=True):
        for client, environment in clients:
            with tempfile.TemporaryDirectory(prefix="peers-") as folder:
                load = BenchmarkLoad(
                    url=f"http://127.0.0.1:{free_port()}",
                    streams=streams,
                    requests=streams * rounds,
                    warmup=streams,
                    tokens=TOKENS,
                    seconds=arguments.limit,
                    tokenizer=tokenizer,
                    folder=Path(folder),
                )
                print_progress(f"{client.name} at {streams} streams")
                results.append(compare(client, environment, load, arguments.server_core))
                on_result(results[-1])
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[256, 1024])
    parser.add_argument(
        "--rounds", type=int, nargs="+", help="requests per stream, for each --streams; 5, from 1,024 on 2"
    )
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of load per client and number of streams")
    parser.add_argument("--clients", nargs="+", help="only these, by name")
    parser.add_argument("--environments", type=Path, default=Path(platformdirs.user_cache_dir("autotune")) / "peers")
    parser.add_argument("--vllm-env", type=Path, help="a virtual environment that has vLLM")
    parser.add_argument("--client-core", type=int, default=0)
    parser.add_argument("--server-core", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write everything that was measured here")
    parser.add_argument("--write", type=Path, help="replace the tables in this page")
    parser.add_argument("--install-only", action="store_true")
    arguments = parser.parse_args()
    if arguments.rounds is None:
        arguments.rounds = [5 if streams < 1024 else 2 for streams in arguments.streams]
    if len(arguments.rounds) != len(arguments.streams):
        parser.error("--rounds has as many numbers as --streams")
    if arguments.install_only:
        set_up(arguments)
        return
    results = measure_all(arguments, lambda result: print_progress(" | ".join(row(result))))
    text = markdown(results)
    print(text)
    if arguments.json:
        document = {"date": today(), "machine": machine(), "tokens": TOKENS, "results": list(map(asdict, results))}
        arguments.json.write_text(json.dumps(document, indent=1))
    if arguments.write:
        write_section(arguments.write, "peers", text)


if __name__ == "__main__":
    main()
