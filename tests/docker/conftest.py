"""A real Docker Engine, an image with nothing but a Debian, and this interpreter mounted into it."""

from __future__ import annotations

import fcntl
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

import autotuner
from autotuner.core import ServerSpec
from autotuner.launchers import containers, ports

REPOSITORY = Path(autotuner.__file__).parents[1]
IMAGE = os.environ.get("AUTOTUNE_TEST_IMAGE", "autotune-test/base:1")
COMMAND = Path(sys.executable).parent / "autotune"
MOUNTED_PATHS = tuple(dict.fromkeys((sys.base_prefix, sys.prefix, str(REPOSITORY))))
"""What a container needs of this machine to run autotune: the interpreter, its environment, the code."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("docker")


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    with_daemon = docker.from_env()
    with_daemon.images.get(IMAGE)
    yield with_daemon
    with_daemon.close()


def autotune_containers(client: docker.DockerClient) -> list[Any]:
    """Every container autotune made, running or not."""
    return client.containers.list(all=True, filters={"label": containers.OWNER_LABEL})


@pytest.fixture(autouse=True)
def _nothing_is_left(client: docker.DockerClient) -> Iterator[None]:
    assert autotune_containers(client) == []
    yield
    leftovers = autotune_containers(client)
    for container in leftovers:
        container.remove(force=True)
    assert leftovers == []


@pytest.fixture(autouse=True)
def _own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def spec() -> Callable[..., ServerSpec]:
    """A spec of a Python program in a container, or of any other command."""

    def make(code: str = "", **changes: Any) -> ServerSpec:
        port = ports.free_port()
        fields: dict[str, Any] = {
            "image": IMAGE,
            "argv": (),
            "env": {},
            "mounts": (),
            "port": port,
            "ready_path": "/health",
            "served_model": "m",
            "container_argv": ("python3", "-c", code, str(port)),
        }
        return ServerSpec(**fields | changes)

    return make


SIM = {
    "runtime": {
        "image": IMAGE,
        "executable": sys.executable,
        "mounts": [f"{path}:{path}" for path in MOUNTED_PATHS],
        "env": {"PYTHONDONTWRITEBYTECODE": "1"},
        "extra_args": ["--load-seconds", "0"],
    }
}
SHORT = ("--duration", "2", "--warmup", "0.3", "--concurrency", "4", "--max-iterations", "1")


@pytest.fixture
def sim(tmp_path: Path) -> tuple[str, ...]:
    """Arguments of a short run with the simulated engine in a container."""
    settings = tmp_path / "sim.yaml"
    settings.write_text(yaml.safe_dump(SIM))
    return ("--profile", "quick-test", "--runtime", "sim", "--deployment", "docker", "-c", str(settings), *SHORT)


class RunInStep:
    """`autotune run`, whose output goes through a pipe that holds one piece: it waits until that was read.

    So what is done after a line was read happens before the run is more than a line further, on a machine
    that is busy too.
    """

    def __init__(self, folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        reader, writer = os.pipe2(os.O_DIRECT)
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, mmap.PAGESIZE)
        with os.fdopen(writer, "wb") as output:
            self.process = subprocess.Popen(
                [str(COMMAND), "run", *arguments],
                cwd=folder,
                env={**os.environ, **(env or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._output = os.fdopen(reader)

    def wait_for(self, text: str) -> None:
        """Read until a line has this text; AssertionError if the run ends without it."""
        lines = []
        for line in self._output:
            lines.append(line)
            if text in line:
                return
        raise AssertionError(f"the run ended without saying '{text}':\n{''.join(lines)}")

    def kill(self) -> None:
        """Kill it where it is."""
        self.process.kill()
        self.end()

    def end(self) -> tuple[int, str]:
        """Let it go on to its end; its exit code, and what it said meanwhile."""
        with self._output:
            rest = self._output.read()
        return self.process.wait(120), rest


@pytest.fixture
def autotune(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the installed command in an empty folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(COMMAND), *arguments],
            cwd=tmp_path,
            env={**os.environ, "AUTOTUNE_CONFIG_HOME": str(tmp_path / "config"), **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run
