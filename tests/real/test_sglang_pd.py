"""A prefill and a decode server of a real SGLang on CPU, started by the commands that are printed for them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autotuner.core import Progress
from tests.gateways import loopback_only
from tests.gateways.bench_command import AUTOTUNE, FEW_REQUESTS, LoadTestOutcome
from tests.real.recorded_run import record_run
from tests.real.sglang_on_cpu import ENVIRONMENT, SMALL_CACHE

pytestmark = pytest.mark.engine

START_SECONDS = 900.0
STOP_SECONDS = 120.0

OWN_ARGUMENTS = (
    *SMALL_CACHE,
    # events of a CUDA stream, which overlapping needs, do not exist on a CPU
    "--disable-overlap-schedule",
    "--disaggregation-transfer-backend",
    "mooncake_tcp",
    # else what a decode server puts aside goes to memory that CUDA pins
    "--disaggregation-decode-retraction-backup",
    "cpu_tensor",
    # two idle schedulers would take both cores of a small machine
    "--sleep-on-idle",
)
OWN_ENVIRONMENT = {
    **ENVIRONMENT,
    # where there is no network but loopback, SGLang finds no address of its own
    "SGLANG_HOST_IP": "127.0.0.1",
    # a sender that is the only rank, and has the indexes of its blocks ready instead of waiting for a CUDA stream
    "SGLANG_DISAGGREGATION_ALL_CP_RANKS_TRANSFER": "1",
}
"""What a user sets for a pair without GPUs; both servers get all of it."""

PROMPTS = ("baba babe babi bebo bufa bega", " ".join(["difu gaga lede mimo"] * 30))


@dataclass(frozen=True)
class Network:
    """Where commands run: in the network of this process, or in that of another one."""

    of_process: int | None = None

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        enter = [] if self.of_process is None else ["nsenter", f"--net=/proc/{self.of_process}/ns/net"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=1800)

    def get(self, *arguments: str) -> str:
        """The body of an answer, by curl; AssertionError for any other status than 200."""
        answer = self.run("curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "300", *arguments)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    def greedy_answers(self, url: str, model: str) -> list[str]:
        """The most likely 24 tokens after each of PROMPTS."""
        bodies = [{"model": model, "prompt": prompt, "max_tokens": 24, "temperature": 0} for prompt in PROMPTS]
        answers = [
            self.get("--header", "content-type: application/json", "--data", json.dumps(body), f"{url}/v1/completions")
            for body in bodies
        ]
        return [json.loads(answer)["choices"][0]["text"] for answer in answers]


def test_the_printed_pair_answers_as_one_server_does_and_is_load_tested_through_its_router(
    sglang: Path, sglang_router: Path, tiny_model: Path, processes: Callable[[], dict[int, str]], tmp_path: Path
) -> None:
    run, answers = run_of_one_server(sglang, str(tiny_model), tmp_path)
    assert all(len(answer.split()) == 24 for answer in answers)

    command = [AUTOTUNE, "command", str(run), "--prefill", "1", "--decode", "1", "--to", str(tmp_path)]
    written = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert written.returncode == 0, written.stderr
    with deployed(tmp_path, sglang_router) as (url, network):
        assert network.greedy_answers(url, str(tiny_model)) == answers
        options = ["--json", "--model", str(tiny_model), "--scenario", "D(64,16)", *FEW_REQUESTS]
        bench = network.run(AUTOTUNE, "bench", url, "--output", str(tmp_path / "load-tests"), *options)
        LoadTestOutcome(bench.returncode, bench.stdout, bench.stderr).assert_all_answered()
        for role in ("prefill", "decode"):
            script = shlex.split((tmp_path / f"{role}-1.sh").read_text())
            counters = network.get(f"http://127.0.0.1:{script[script.index('--port') + 1]}/metrics")
            assert f'sglang:generation_tokens_total{{engine_type="{role}"' in counters
    assert processes() == {}


def run_of_one_server(sglang: Path, model: str, folder: Path) -> tuple[Path, list[str]]:
    """A run of one candidate on a server that serves whole requests, and its answers to PROMPTS."""
    config: dict[str, Any] = {
        "task_name": "pair",
        "model": {"id_or_path": model},
        "base_runtime": "sglang",
        "runtime": {"executable": str(sglang), "env": OWN_ENVIRONMENT, "extra_args": list(OWN_ARGUMENTS)},
        "deployment": {"mode": "process"},
        "parameters": {"tp-size": [1]},
        "benchmark": {
            "traffic_scenarios": ["D(20,5)"],
            "num_concurrency": [1],
            "duration": 120,
            "max_duration": 120,
            "max_requests": 2,
            "warmup": 0,
        },
    }
    answers: list[str] = []

    def ask(progress: Progress) -> None:
        if progress.stage == "ready":
            [printed] = folder.glob("runs/*/trials/*/command.sh")
            words = shlex.split(printed.read_text())
            url = f"http://127.0.0.1:{words[words.index('--port') + 1]}"
            answers.extend(Network().greedy_answers(url, model))

    return record_run(config, folder / "runs", ask).path, answers


@contextmanager
def deployed(folder: Path, router: Path) -> Iterator[tuple[str, Network]]:
    """Start what was written to a folder, where there is no network but loopback; its address and that network."""
    command: Sequence[str] = (sys.executable, str(loopback_only.__file__), "bash", "command.sh")
    log = folder / "all.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PATH": f"{router / 'bin'}:{os.environ['PATH']}"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while "ready: " not in log.read_text():
            assert process.poll() is None, _logs(folder)
            assert time.monotonic() < deadline, _logs(folder)
            time.sleep(0.2)
        yield log.read_text().partition("ready: ")[2].split()[0], Network(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 143, _logs(folder)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _logs(folder: Path) -> str:
    """The end of each log that the start script writes."""
    return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in folder.glob("*.log"))
