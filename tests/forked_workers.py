"""Load workers for tests, forked from one process that has imported what they run.

Most of a short load test is the start of an interpreter. A forked worker runs the same code in a process of its own
for a tenth of that. tests/load/test_supervisor.py, and tests of the installed command, start workers as users do.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from autotuner import owner

_REQUEST_BYTES = 1 << 20


class ForkedWorker:
    """What `start_worker` uses of the Popen of a worker."""

    def __init__(self, stdin: BinaryIO, stdout: BinaryIO, report: BinaryIO) -> None:
        self.stdin, self.stdout = stdin, stdout
        self.pid = int(report.readline())
        self._report = report
        self._status: int | None = None

    def wait(self) -> int:
        """Wait for the end of the worker; returns its exit status, below 0 for a signal."""
        if self._status is None:
            with self._report:
                self._status = int(self._report.readline())
        return self._status


def start_process(errors: BinaryIO) -> ForkedWorker:
    """Have a worker forked: what takes the place of `worker_process.start_process`."""
    (stdin, to_worker), (from_worker, stdout), (reported, report) = os.pipe(), os.pipe(), os.pipe()
    environment = {**os.environ, owner.OWNER_VARIABLE: str(owner.this_process())}
    request = json.dumps({"environment": environment, "folder": str(Path.cwd())}).encode()
    descriptors = [stdin, stdout, errors.fileno(), report]
    socket.send_fds(_forking_process(), [request], descriptors)
    for descriptor in (stdin, stdout, report):
        os.close(descriptor)
    return ForkedWorker(os.fdopen(to_worker, "wb"), os.fdopen(from_worker, "rb"), os.fdopen(reported, "rb"))


@cache
def _forking_process() -> socket.socket:
    """Start the process that forks workers until the other end of its socket, which this returns, is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked_workers", str(theirs.fileno())],
            cwd=Path(__file__).parents[1],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def main() -> None:
    """Fork a worker for each request."""
    import autotuner.load.worker
    import autotuner.workload.tokenizer  # noqa: F401 for jobs with words

    gc.freeze()  # collections would copy the pages that the workers share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that wait for workers
    requests = socket.socket(fileno=int(sys.argv[1]))
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 4)
        if not request:
            return
        if not os.fork():
            _fork_and_wait(json.loads(request), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _fork_and_wait(request: dict[str, Any], stdin: int, stdout: int, stderr: int, report: int) -> None:
    """Fork the worker, report its process id and, at its end, its status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    worker = os.fork()
    if not worker:
        os.close(report)
        _run_worker(request, stdin, stdout, stderr)
    for descriptor in (stdin, stdout, stderr):
        os.close(descriptor)
    os.write(report, b"%d\n" % worker)
    _, status = os.waitpid(worker, 0)
    os.write(report, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _run_worker(request: dict[str, Any], *streams: int) -> None:
    from autotuner.load import worker

    status = 1
    try:
        os.setsid()
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        worker.main()
        status = 0
    except BaseException:  # noqa: BLE001 as an interpreter would
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
