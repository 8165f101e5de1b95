"""Runs that are killed, or whose server or daemon is, after they said something."""

from __future__ import annotations

import fcntl
import mmap
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

COMMAND = Path(sys.executable).parent / "autotune"


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
