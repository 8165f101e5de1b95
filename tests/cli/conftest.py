import fcntl
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from autotuner.cli import app
from tests.servers import simulated_engine


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def autotune(
    tmp_path, monkeypatch, on_a_busy_machine, forked_load_workers, without_pictures
) -> Iterator[Callable[..., CommandResult]]:
    """Run a command in an empty folder, in this process: most of a short command is starting an interpreter."""
    monkeypatch.chdir(tmp_path)
    log = logging.getLogger("autotuner")
    before = log.level, log.handlers, log.propagate

    def run(*arguments: str, columns: str = "100") -> CommandResult:
        env = settings(tmp_path) | {"COLUMNS": columns}
        ended = CliRunner().invoke(app, arguments, env=env, prog_name="autotune")
        return CommandResult(ended.exit_code, ended.stdout, ended.stderr)

    yield run
    log.level, log.handlers, log.propagate = before


@pytest.fixture
def installed(tmp_path, starts_processes) -> Callable[..., CommandResult]:
    """Run the installed command in an empty folder."""
    command = Path(sys.executable).parent / "autotune"

    def run(*arguments: str) -> CommandResult:
        done = subprocess.run(
            [str(command), *arguments],
            cwd=tmp_path,
            env={**os.environ, **settings(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return CommandResult(done.returncode, done.stdout, done.stderr)

    return run


def settings(folder: Path) -> dict[str, str]:
    """Variables that keep a command to a folder."""
    return {
        "AUTOTUNE_CONFIG_HOME": str(folder / "config"),
        "AUTOTUNE_DATA_HOME": str(folder / "data"),
        "COLUMNS": "100",
    }


SHORT = ("--duration", "2", "--max-duration", "3", "--warmup", "0.3")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, starts_processes: None, worker_id: str) -> Path:
    """The runs folder of one short run on the simulated engine, made once for all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "finished"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            folder.mkdir()
            command = Path(sys.executable).parent / "autotune"
            at_once = ("--set", "runtime.extra_args=[--load-seconds, '0']")
            arguments = ["run", "--profile", "quick-test", "--concurrency", "1,8", *SHORT, *at_once]
            done = subprocess.run([str(command), *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
    return folder / "runs"


@pytest.fixture(scope="session")
def sim(tmp_path_factory: pytest.TempPathFactory, starts_processes: None) -> Iterator[str]:
    """The URL of a simulated engine that runs already."""
    with simulated_engine(tmp_path_factory.mktemp("sim")) as url:
        yield url
