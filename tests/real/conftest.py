"""A real vLLM and a model for it, where setup_vllm.py left them; missing ones fail the tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def _folder(variable: str) -> Path:
    given = os.environ.get(variable)
    if not given or not Path(given).is_dir():
        pytest.fail(f"{variable} must name a folder; tests/real/setup_vllm.py makes it, and `nox -s engines` sets it")
    return Path(given)


@pytest.fixture(scope="session")
def vllm() -> Path:
    """The `vllm` executable."""
    return _folder("AUTOTUNE_TEST_VLLM") / "bin" / "vllm"


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

    def now() -> dict[int, str]:
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (path / "cwd").resolve() == tmp_path and int(path.name) != os.getpid():
                    found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        return found

    return now
