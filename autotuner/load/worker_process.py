"""The parent's handle on a worker process: starts it with a job, exchanges messages, always ends it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from autotuner import owner
from autotuner.core import RequestRecord
from autotuner.errors import MachineError
from autotuner.load import spool
from autotuner.load.job import Job


class WorkerEndedError(MachineError):
    """A process of the load generator ended before its load point did, which says nothing about the server."""


class WorkerProcess:
    """A running worker; select on it to wait for messages. `outcome` is None until the worker has sent it."""

    def __init__(self, process: subprocess.Popen[bytes], job: Job) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.job = job
        self.is_ready = False
        self.outcome: dict[str, Any] | None = None
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self._partial_line = b""
        self._follower = spool.RecordFollower(job.records_path)

    def fileno(self) -> int:
        """The descriptor that is readable when the worker has sent a message."""
        return self._stdout.fileno()

    def send(self, command: str) -> None:
        """Send one line; ignored when the worker has exited."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(command.encode() + b"\n")
            self._stdin.flush()

    def receive(self) -> list[dict[str, Any]]:
        """Wait for output and return the complete messages; MachineError if the worker has died."""
        data = os.read(self.fileno(), 1 << 16)
        if not data:
            raise self._exit_error()
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        return [json.loads(line) for line in lines]

    @property
    def error_messages(self) -> Mapping[str, str]:
        """The first message of each error class among the records read so far; it may repeat secrets."""
        return self._follower.error_messages

    def read_new_records(self) -> list[RequestRecord]:
        """Return the records written since the last call, in the order in which the requests ended."""
        return self._follower.read_new()

    def _exit_error(self) -> WorkerEndedError:
        status = self._process.wait()
        lines = self.job.stderr_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return WorkerEndedError(
            f"The load generator's process ended with status {status} before its load point did.",
            why=lines[-1] if lines else "It wrote no error message.",
            remedy="Run again; if it was killed, free memory on this machine or lower the load.",
        )


@contextlib.contextmanager
def start_worker(job: Job) -> Iterator[WorkerProcess]:
    """Start a worker on `job` in a session of its own; the whole session is killed at the end."""
    Path(job.folder).mkdir()
    with job.stderr_path.open("wb") as errors:
        process = start_process(errors)
    try:
        worker = WorkerProcess(process, job)
        worker.send(job.to_json())
        yield worker
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def start_process(errors: BinaryIO) -> subprocess.Popen[bytes]:
    """Start an interpreter that runs a worker, in a session of its own, which writes its errors to that file."""
    # -P: a file random.py in the user's folder must not shadow the standard module
    command = [sys.executable, "-P", "-m", "autotuner.load.worker"]
    package = str(Path(__file__).parents[2])
    search_path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), package)))
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, owner.OWNER_VARIABLE: str(owner.this_process()), "PYTHONPATH": search_path},
        start_new_session=True,
    )
