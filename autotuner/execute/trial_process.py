"""The process of one trial: reads its job from a connection, and sends progress, log records and the trial back.

It ends when the connection is closed, however the other process ended, and on SIGTERM; its server is stopped first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from autotuner.core import Observer, Progress
from autotuner.errors import AutotuneError
from autotuner.evaluate.protocol import Evaluator
from autotuner.execute.trial import run_trial
from autotuner.search.launch import Launch

INTERRUPTED_STATUS = 130


@dataclass(frozen=True)
class TrialJob:
    """What a trial's process needs, and how it runs it: everything is pickled."""

    create_evaluator: Callable[[Observer], Evaluator]
    number: int
    launch: Launch
    folder: Path
    devices: tuple[int, ...]
    log_level: int

    def run(self, observe: Observer) -> Any:
        """Run the trial; what is sent of it. AutotuneError if it ends the run."""
        return run_trial(self.create_evaluator(observe), self.number, self.launch, self.folder, self.devices)


class ConnectionLogHandler(logging.Handler):
    """Sends log records, with their text made, to the other process."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        super().__init__()
        self.send = send

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args, record.exc_info = record.getMessage(), None, None
        self.send(record)


def main(connection: Connection) -> int:
    """Run the job that the connection brings; the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process decides, and sends SIGTERM
    lock = threading.Lock()  # GPU meters and log records of threads

    def send(message: Any) -> None:
        with lock, contextlib.suppress(ConnectionError):
            connection.send(message)

    def observe(progress: Progress) -> None:
        send(progress)

    try:
        job: TrialJob = connection.recv()
        threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
        log = logging.getLogger("autotuner")
        log.setLevel(job.log_level)
        log.addHandler(ConnectionLogHandler(send))
        send(job.run(observe))
    except AutotuneError as error:
        send(error)
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS
    return 0


def _interrupt(signum: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the cleaning up
    raise KeyboardInterrupt


def _end_with_parent(connection: Connection) -> None:
    """Wait until the other end is closed, which nobody writes to any more."""
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Connection(int(sys.argv[1]))))
