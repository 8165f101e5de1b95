"""The standard streams as a command may use them, whatever the caller made of them: closed, full, or ASCII only."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, TextIO


def open_standard_streams() -> None:
    """Open closed streams on /dev/null, let no character fail, and let a message that cannot be written be lost.

    A file opened later would get the number of a closed stream, and what is printed would be written into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stderr = LossyStream(sys.stderr)


class LossyStream:
    """A stream for messages: what cannot be written, as on a full disk, is lost and ends nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, or lose it."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        """Write what is buffered, or lose it."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()
