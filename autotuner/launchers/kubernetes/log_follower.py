"""Copies the log of a pod to a file while it is written, over connections that may break."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterable
from datetime import datetime
from io import FileIO

from lightkube import Client

from autotuner.deploy.kubernetes.pod import CONTAINER
from autotuner.launchers.kubernetes.connection import CONNECTION_ERRORS, NOT_FOUND, status_code

RECONNECT_SECONDS = 1.0
TIMESTAMPED = re.compile(
    r"(?P<second>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d+))?(?P<zone>Z|[+-]\d\d:\d\d) "
)
"""The start of a line of a log with timestamps (RFC 3339, with trailing zeros of the fraction left out)."""


class LogFollower:
    """A thread that appends the pod's output to a file, each line once, until the pod has ended or is gone."""

    def __init__(self, client: Client, pod_name: str, output: FileIO, container: str = CONTAINER) -> None:
        self._client = client
        self._container = container
        self._pod_name = pod_name
        self._output = output
        self._last_stamp = ""
        self._lines_at_last_stamp = 0
        self._last_time: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self, timeout: float) -> None:
        """Wait until the last output of an ended pod is written, at most `timeout` seconds."""
        self._stopping.set()
        self._thread.join(timeout)

    def _follow(self) -> None:
        while True:
            was_stopping = self._stopping.is_set()
            try:
                self.copy(
                    self._client.log(
                        self._pod_name,
                        container=self._container,
                        follow=True,
                        timestamps=True,
                        since=self._since_seconds(),
                    )
                )
            except CONNECTION_ERRORS as error:
                if status_code(error) == NOT_FOUND:
                    return
            except RuntimeError:  # the client was closed
                return
            if was_stopping:  # this read began after the end, and has everything
                return
            self._stopping.wait(RECONNECT_SECONDS)

    def _since_seconds(self) -> int | None:
        """Seconds back to the last line, with some to spare for clocks that differ; None before the first."""
        return None if self._last_time is None else max(1, int(time.time() - self._last_time) + 60)

    def copy(self, lines: Iterable[str]) -> None:
        """Write the lines that were not written before, without their timestamps.

        A connection gives lines again from some seconds before the last: those that are older, and as many with its
        very timestamp as were written.
        """
        resume_after, repeated_lines, is_new = self._last_stamp, self._lines_at_last_stamp, True
        for line in lines:
            match = TIMESTAMPED.match(line)
            if match is not None:  # of a line that progress bars split, only the first part has one
                stamp = f"{match['second']}.{(match['fraction'] or '').ljust(9, '0')}"
                is_new = stamp > resume_after or (stamp == resume_after and repeated_lines == 0)
                if is_new:
                    self._remember(stamp, match["second"] + match["zone"].replace("Z", "+00:00"))
                elif stamp == resume_after:
                    repeated_lines -= 1
            if is_new:
                self._write(line[match.end() if match else 0 :].encode("utf-8", "replace"))

    def _remember(self, stamp: str, time_text: str) -> None:
        """Take down the timestamp of a line that is written."""
        self._lines_at_last_stamp = self._lines_at_last_stamp + 1 if stamp == self._last_stamp else 1
        self._last_stamp = stamp
        self._last_time = datetime.fromisoformat(time_text).timestamp()

    def _write(self, data: bytes) -> None:
        # a full disk must not stop the server; the trial's records will not fit either, and say so
        with contextlib.suppress(OSError, ValueError):
            self._output.write(data)
