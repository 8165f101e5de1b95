"""Small programs to launch, and servers that run already."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autotuner.core import ServerSpec
from autotuner.launchers import ports
from tests.endpoints.conftest import ScriptedResponses as ScriptedResponses
from tests.endpoints.conftest import serve as serve

Wait = Callable[[Callable[[], bool]], None]


@pytest.fixture
def wait() -> Wait:
    """Wait until something holds; fail after ten seconds."""

    def until(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.01)

    return until


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


@pytest.fixture
def sim_url(tmp_path: Path) -> Iterator[str]:
    """A simulated engine that somebody else started."""
    port = ports.free_port()
    command = [sys.executable, "-m", "autotuner.simulate.server", "--load-seconds", "0", "--port", str(port)]
    with (tmp_path / "external.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def spec(*argv: str, port: int = 1, env: dict[str, str] | None = None) -> ServerSpec:
    return ServerSpec(None, argv, env or {}, (), port, "/health", "a-model")


def python(code: str) -> ServerSpec:
    return spec(sys.executable, "-S", "-c", code)


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
