"""A real vLLM and a model for it, where setup_vllm.py left them; missing ones fail the tests.

Tests that take `place` or `measure` run twice, unless they name the place: the server as a process, and, marked
`docker`, in a container that sees the same vLLM.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from autotuner.core import Candidate, Measurement, Observer, Value, ignore_progress
from autotuner.deploy import render
from autotuner.engines import engine
from autotuner.evaluate.measured import MeasuredEvaluator
from autotuner.experiment import Deployment, Experiment, Model, Runtime
from autotuner.launchers import containers, launcher
from autotuner.model_files import hugging_face_cache
from autotuner.search.launch import ListedLoads
from tests.real.short_load import SHORT_LOAD

IMAGE = os.environ.get("AUTOTUNE_TEST_IMAGE", "autotune-test/base:1")


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.fail(f"{variable} must name a folder; the set-up scripts in tests/real make it, and nox sets it")
    return Path(value)


@pytest.fixture(scope="session")
def vllm() -> Path:
    """The `vllm` executable."""
    return _folder("AUTOTUNE_TEST_VLLM") / "bin" / "vllm"


@pytest.fixture(scope="session")
def sglang() -> Path:
    """The `sglang` executable."""
    return _folder("AUTOTUNE_TEST_SGLANG") / "bin" / "sglang"


@pytest.fixture(scope="session")
def sglang_router() -> Path:
    """The virtual environment of SGLang's router."""
    return _folder("AUTOTUNE_TEST_SGLANG_ROUTER")


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """The model's folder."""
    return _folder("AUTOTUNE_TEST_MODEL")


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[int, str]]:
    """The processes started by the test that run now, by id, with their titles.

    They are known by their working folder: a title that an engine sets overwrites its environment.
    """
    monkeypatch.chdir(tmp_path)

    def running_processes() -> dict[int, str]:
        titles = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (path / "cwd").resolve() == tmp_path and int(path.name) != os.getpid():
                    titles[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        return titles

    return running_processes


class Place(Protocol):
    """Where servers are launched, and which of them remain."""

    deployment: str
    runtime: dict[str, Any]

    def running(self) -> dict[int, str]:
        """The processes of servers, by id, with their titles."""

    def leftovers(self) -> list[str]:
        """The servers that remain, running or not."""


class OnThisMachine:
    """Servers as processes."""

    deployment = "process"
    runtime: dict[str, Any] = {}

    def __init__(self, processes: Callable[[], dict[int, str]]) -> None:
        self.running = processes

    def leftovers(self) -> list[str]:
        return list(self.running().values())


class InContainers:
    """Servers in containers of a bare Debian, with the interpreter and the vLLM of this machine mounted."""

    deployment = "docker"

    def __init__(self, home: Path) -> None:
        import docker

        self.client = docker.from_env()
        hugging_face_cache().mkdir(parents=True, exist_ok=True)  # Docker mounts only what is there; a run makes it
        command = [str(home / "bin" / "python"), "-c", "import sys; print(sys.base_prefix)"]
        base = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        self.runtime = {
            "image": IMAGE,
            "mounts": [f"{path}:{path}" for path in (base, home)],
            "env": {"VLLM_CPU_OMP_THREADS_BIND": "0"},
        }

    def running(self) -> dict[int, str]:
        titles: dict[int, str] = {}
        for container in self._autotune_containers():
            if container.status == "running":
                rows = container.top(ps_args="-eo pid,args")["Processes"]
                titles |= {int(pid): title for pid, title in rows}
        return titles

    def leftovers(self) -> list[str]:
        return [container.name for container in self._autotune_containers()]

    def _autotune_containers(self) -> list[Any]:
        labelled: list[Any] = self.client.containers.list(all=True, filters={"label": containers.OWNER_LABEL})
        return labelled


@pytest.fixture
def process(processes: Callable[[], dict[int, str]]) -> Place:
    return OnThisMachine(processes)


@pytest.fixture
def container(vllm: Path) -> Any:
    place = InContainers(vllm.parents[1])
    yield place
    place.client.close()


@pytest.fixture(params=["process", pytest.param("container", marks=pytest.mark.docker)])
def place(request: pytest.FixtureRequest) -> Place:
    """Where the test's servers run."""
    selected: Place = request.getfixturevalue(request.param)
    assert selected.leftovers() == []
    return selected


@pytest.fixture
def measure(place: Place, vllm: Path, tiny_model: Path, tmp_path: Path) -> Callable[..., Measurement]:
    """Measure one candidate on a real vLLM; two short load points unless told otherwise."""

    def run(
        *extra_args: str,
        model: str = str(tiny_model),
        env: dict[str, str] | None = None,
        observe: Observer = ignore_progress,
        **parameters: Value,
    ) -> Measurement:
        settings = {"executable": str(vllm), "extra_args": extra_args, "network": "host", **place.runtime}
        settings["env"] = {"HF_HUB_OFFLINE": "1", **place.runtime.get("env", {}), **(env or {})}
        fields: dict[str, Any] = {
            "task_name": "real",
            "model": Model(id_or_path=model),
            "base_runtime": "vllm",
            "runtime": Runtime(**settings),
            "deployment": Deployment(mode=place.deployment),
            "parameters": {},
            "benchmark": SHORT_LOAD,
        }
        render_command = partial(render, format="docker" if place.deployment == "docker" else "shell")
        launcher_used = launcher(place.deployment)
        evaluator = MeasuredEvaluator(Experiment(**fields), engine("vllm"), launcher_used, render_command, observe)
        return evaluator.evaluate(Candidate("vllm", parameters), ListedLoads(evaluator.workload), tmp_path)

    return run
