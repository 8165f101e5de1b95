"""Waiting for what a server does, and the place of its log."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

Wait = Callable[[Callable[[], bool]], None]


@pytest.fixture
def wait() -> Wait:
    """Wait until something holds; fail after ten seconds."""

    def until(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.01)

    return until


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"
