"""Whether autotune and `vllm bench serve` measure the same on a real vLLM, within the noise between repeats.

    python benchmarks/load/agreement.py --vllm-env ENV --model FOLDER --write docs/reference/load-generator.md

Starts vLLM on CPU with a model that tests/real/make_tiny_model.py made and drives it with both
clients in turn, with the same lengths in the same closed loop. Server and client are pinned to a
core each. vLLM's worker runs in the engine's own process: as two processes, the default, both spin
while waiting for each other, and on one core would slow each other down.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from clients import OFFLINE, BenchmarkLoad, Client, ReportedMetrics, measuring_client, vllm_client
from page import machine, table, today, write_section
from peers import print_progress, run_command, vllm_version
from reference import free_port

import autotuner
from autotuner.scoring.intervals import t_quantile

TOKENS = 100
START_SECONDS = 400.0
GRACE_SECONDS = 400.0
MAX_NOISE_SHARE = 0.15
"""With a confidence interval of a larger half-width, relative to the metric, agreement means nothing."""

IN_PROCESS_EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
SERVER_SUMS = {
    "vllm:time_to_first_token_seconds_sum": "ttft",
    "vllm:time_to_first_token_seconds_count": "answers",
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:request_success_total": "requests",
}


@dataclass(frozen=True)
class ServerFigures:
    """The server's own metrics: mean TTFT in ms, without tokenization, and mean prompt tokens."""

    ttft_mean: float
    prompt_tokens: float


@dataclass(frozen=True)
class Repeat:
    """One repeat: what the client reported and what the server measured meanwhile."""

    client: str
    concurrency: int
    repeat: int
    reported: ReportedMetrics
    served: ServerFigures


FIGURES: dict[str, Callable[[Repeat], float]] = {
    "TTFT mean/ms": lambda run: run.reported.ttft_mean,
    "TPOT mean/ms": lambda run: run.reported.tpot_mean,
    "output tokens/s": lambda run: run.reported.output_throughput,
    "server's own TTFT mean/ms": lambda run: run.served.ttft_mean,
    "prompt tokens of a request": lambda run: run.served.prompt_tokens,
}


@dataclass(frozen=True)
class Difference:
    """autotune minus the other client over paired repeats: mean and 95% half-width, and the other's mean."""

    mean: float
    half_width: float
    theirs: float

    @property
    def verdict(self) -> str:
        """Whether the confidence interval contains zero, unless it is too wide to show a difference."""
        if abs(self.mean) > self.half_width:
            return "beyond noise"
        return "within noise" if self.half_width <= MAX_NOISE_SHARE * self.theirs else "too noisy to tell"


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Compare repeats that were run alternately; at least two pairs."""
    differences = [our - their for our, their in zip(ours, theirs, strict=True)]
    standard_error = statistics.stdev(differences) / len(differences) ** 0.5
    half_width = t_quantile(len(differences) - 1) * standard_error
    return Difference(statistics.fmean(differences), half_width, statistics.fmean(theirs))


@contextlib.contextmanager
def vllm_server(environment: Path, model: Path, port: int, core: int, log: Path) -> Iterator[None]:
    """Serve `model` on one core while the context is open."""
    command = [
        *(str(environment / "bin" / "vllm"), "serve", str(model), "--served-model-name", "m", "--port", str(port)),
        *("--enforce-eager", "--no-enable-prefix-caching", "--max-num-seqs", "64", "--max-model-len", "2048"),
        *("--distributed-executor-backend", IN_PROCESS_EXECUTOR),
    ]
    threads = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    variables = {**OFFLINE, **threads, "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdout=output,
            stderr=output,
            env={**os.environ, **variables},
            start_new_session=True,
        )
    try:
        wait_until_healthy(process, port, log)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
            os.killpg(process.pid, signal.SIGKILL)


def wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                return
        time.sleep(0.5)
    raise SystemExit("vLLM did not start:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-20:]))


def server_sums(url: str) -> dict[str, float]:
    """The server's counters and histogram sums under short names."""
    sums = dict.fromkeys(SERVER_SUMS.values(), 0.0)
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        name, _, rest = line.partition("{")
        if name in SERVER_SUMS:
            sums[SERVER_SUMS[name]] += float(rest.rpartition(" ")[2])
    return sums


def server_figures(before: dict[str, float], after: dict[str, float]) -> ServerFigures:
    rise = {name: after[name] - before[name] for name in before}
    return ServerFigures(1e3 * rise["ttft"] / rise["answers"], rise["prompt_tokens"] / rise["requests"])


def run_client(client: Client, environment: Path, load: BenchmarkLoad) -> ReportedMetrics:
    """Run one client once; SystemExit when it fails."""
    _, _, failure = run_command(client.command(environment, load), client, load.folder, load.seconds + GRACE_SECONDS)
    if failure:
        raise SystemExit(f"{client.name} {failure}:\n{(load.folder / 'stderr.txt').read_text(errors='replace')}")
    reported = client.read(load)
    if reported.requests != load.requests:
        raise SystemExit(f"{client.name} counted {reported.requests} of {load.requests} requests")
    return reported


def measure_all(arguments: argparse.Namespace, clients: Sequence[Client]) -> list[Repeat]:
    """Start vLLM, warm it up, and run the clients alternately."""
    runs: list[Repeat] = []
    with tempfile.TemporaryDirectory(prefix="agreement-") as home:
        port = free_port()
        with vllm_server(arguments.vllm_env, arguments.model, port, arguments.server_core, Path(home, "vllm.log")):
            os.sched_setaffinity(0, {arguments.client_core})
            # repeat 0 warms the server up at each concurrency and is not kept; the order of clients alternates
            for concurrency, requests in zip(arguments.concurrency, arguments.requests, strict=True):
                for repeat in range(arguments.repeats + 1):
                    for client in clients[:: 1 if repeat % 2 else -1][: 2 if repeat else 1]:
                        folder = Path(home, f"{concurrency}-{repeat}-{len(runs)}-{client.name.split()[0]}")
                        folder.mkdir()
                        load = BenchmarkLoad(
                            url=f"http://127.0.0.1:{port}",
                            streams=concurrency,
                            requests=requests,
                            warmup=0,
                            tokens=TOKENS,
                            seconds=120.0,
                            tokenizer=arguments.model,
                            folder=folder,
                            seed=1000 * concurrency + repeat,
                        )
                        before = server_sums(load.url)
                        reported = run_client(client, arguments.vllm_env, load)
                        served = server_figures(before, server_sums(load.url))
                        print_progress(f"{concurrency} {repeat} {client.name}: {reported} {served}")
                        if repeat:
                            runs.append(Repeat(client.name, concurrency, repeat, reported, served))
    return runs


def markdown(runs: Sequence[Repeat], names: Sequence[str]) -> str:
    """The table: each metric of both clients with its standard deviation, the difference, and a verdict."""
    rows = []
    for concurrency in sorted({run.concurrency for run in runs}):
        for title, figure in FIGURES.items():
            ours, theirs = (
                [figure(run) for run in runs if (run.client, run.concurrency) == (name, concurrency)] for name in names
            )
            result = difference(ours, theirs)
            rows.append(
                [
                    f"{concurrency}: {title}",
                    *(f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}" for values in (ours, theirs)),
                    f"{result.mean:+.2f} ± {result.half_width:.2f}",
                    f"{result.mean / result.theirs:+.1%}",
                    result.verdict,
                ]
            )
    header = ("concurrency: metric", *names, "difference, 95%", "relative", "verdict")
    repeats = max(run.repeat for run in runs)
    text = (
        f"Measured {today()} on {machine()}; vLLM on one core, the client on the other; {repeats} alternating repeats, "
        f"± the standard deviation between repeats."
    )
    return f"{text}\n\n{table(header, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm-env", type=Path, required=True, help="as tests/real/setup_vllm.py made it")
    parser.add_argument("--model", type=Path, required=True, help="as tests/real/setup_vllm.py made it")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, nargs="+", default=[10, 32, 64], help="for each --concurrency")
    parser.add_argument("--repeats", type=int, default=4, help="at least two")
    parser.add_argument("--client-core", type=int, default=0)
    parser.add_argument("--server-core", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every repeat here")
    parser.add_argument("--write", type=Path, help="replace the table in this page")
    parser.add_argument("--section", default="agreement", help="which table of the page")
    arguments = parser.parse_args()
    arguments.model = arguments.model.resolve()
    clients = (measuring_client(autotuner.__version__), vllm_client(vllm_version(arguments.vllm_env)))
    runs = measure_all(arguments, clients)
    text = markdown(runs, [client.name for client in clients])
    print(text)
    if arguments.json:
        document = {"date": today(), "machine": machine(), "runs": list(map(asdict, runs))}
        arguments.json.write_text(json.dumps(document, indent=1))
    if arguments.write:
        write_section(arguments.write, arguments.section, text)


if __name__ == "__main__":
    main()
