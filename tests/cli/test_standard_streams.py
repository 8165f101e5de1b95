"""Standard streams as callers leave them: closed, full, or ASCII only."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autotuner.cli.standard_streams import LossyStream

COMMAND = str(Path(sys.executable).parent / "autotune")


class FullStream(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_message_that_cannot_be_written_is_lost_and_ends_nothing() -> None:
    stream = LossyStream(FullStream())
    assert stream.write("lost") == 4
    stream.flush()
    assert not stream.isatty()


@pytest.mark.processes
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    ("redirections", "status"),
    [("2>&-", 2), (">&-", 2), ("2>/dev/full", 2), ("<&-", 2), ("--help >/dev/full", 3), ("--help >&- 2>&-", 0)],
)
def test_a_command_ends_as_ever_whatever_its_streams_are(redirections: str, status: int) -> None:
    arguments = "profiles list" if redirections.startswith("--help") else "run --profile nothing"
    script = f"{COMMAND} {arguments} {redirections.removeprefix('--help')}"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(["sh", "-c", script], capture_output=True, env=environment, timeout=300)
    assert ended.returncode == status
    assert b"did not expect" not in ended.stderr
