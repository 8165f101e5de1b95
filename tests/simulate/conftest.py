from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

READY = re.compile(r"listening on (http://\S+)")
START_TIMEOUT_SECONDS = 120.0


class RunningServer:
    """One simulated engine as a process, and a client of it."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.client = httpx.Client(timeout=60.0, trust_env=False)

    def wait_for(self, pattern: re.Pattern[str]) -> str:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            match = pattern.search(self.log.read_text())
            if match:
                return match.group(1)
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)
        raise AssertionError(self.log.read_text())

    def wait_until_ready(self) -> None:
        self.client.base_url = self.wait_for(READY)

    def metric(self, name: str) -> float:
        text = self.client.get("/metrics").text
        return float(re.search(rf"^autotune_sim_{name} (\S+)$", text, re.MULTILINE).group(1))

    def until_metric(self, name: str, value: float) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while self.metric(name) != value:
            assert time.monotonic() < deadline, f"{name} is {self.metric(name)}"
            time.sleep(0.01)


@contextmanager
def running(folder: Path, *flags: str, wait: bool = True):
    """Start a server on a free port; TERM it by its process id at the end."""
    log = folder / f"server-{time.monotonic_ns()}.log"
    argv = [sys.executable, "-m", "autotuner.simulate.server", "--port", "0", "--load-seconds", "0", *flags]
    with log.open("wb") as file, subprocess.Popen(argv, stdout=file, stderr=subprocess.STDOUT) as process:
        server = RunningServer(process, log)
        try:
            if wait:
                server.wait_until_ready()
            yield server
        finally:
            server.client.close()
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@pytest.fixture
def serve(tmp_path, starts_processes):
    """Start servers with the flags of one test."""

    def start(*flags: str, wait: bool = True):
        return running(tmp_path, *flags, wait=wait)

    return start


@pytest.fixture(scope="module")
def server(tmp_path_factory, starts_processes):
    """One server without faults for the tests of a module; an iteration takes 2 ms."""
    flags = ("--model", "qwen3-0.6b", "--served-model-name", "tiny", "alias", "--fixed-step-ms", "2")
    with running(tmp_path_factory.mktemp("server"), *flags, "--max-model-len", "4096") as started:
        yield started


@pytest.fixture
def run_to_end(starts_processes):
    """Run a server that does not start, and return its exit status and output."""

    def run(*flags: str) -> tuple[int, str]:
        argv = [sys.executable, "-m", "autotuner.simulate.server", *flags]
        process = subprocess.run(argv, capture_output=True, text=True, timeout=START_TIMEOUT_SECONDS, check=False)
        return process.returncode, process.stdout + process.stderr

    return run
