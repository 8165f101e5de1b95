"""A simulated engine that somebody else started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotuner.launchers import ports, ready
from autotuner.launchers.external import ExternalServer


@pytest.fixture
def sim_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = ports.free_port()
    command = [sys.executable, "-m", "autotuner.simulate.server", "--load-seconds", "0", "--port", str(port)]
    log: Path = tmp_path_factory.mktemp("external") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        ready.wait_until_ready(ExternalServer(url), ready_path="/health", model="llama-3.1-8b", timeout=30)
        yield url
    finally:
        process.terminate()
        process.wait()
