import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def autotune(tmp_path) -> Callable[..., Said]:
    """Run the installed command in an empty folder."""
    command = Path(sys.executable).parent / "autotune"

    def run(*arguments: str, **environment: str) -> Said:
        done = subprocess.run(
            [str(command), *arguments],
            cwd=tmp_path,
            env={
                **os.environ,
                "AUTOTUNE_CONFIG_HOME": str(tmp_path / "config"),
                "AUTOTUNE_DATA_HOME": str(tmp_path / "data"),
                "COLUMNS": "100",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return run


SHORT = ("--duration", "2", "--warmup", "0.3")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """The runs folder of one short run on the simulated engine."""
    folder = tmp_path_factory.mktemp("finished")
    command = Path(sys.executable).parent / "autotune"
    arguments = ["run", "--profile", "quick-test", "--concurrency", "1,8", *SHORT]
    done = subprocess.run([str(command), *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / "runs"
