"""A real Docker Engine, an image with nothing but a Debian, and this interpreter mounted into it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
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
