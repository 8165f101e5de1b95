"""One-shot timers for the event loop: a Linux timerfd fires within microseconds, asyncio's own round to 1 ms."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable
from typing import Protocol

CLOCK_MONOTONIC = 1
TFD_TIMER_ABSTIME = 1


class Alarm(Protocol):
    """A one-shot timer on the clock of `time.monotonic`."""

    def set(self, deadline: float) -> None:
        """Call back at `deadline`, immediately if it has passed; replaces an earlier deadline."""
        ...

    def close(self) -> None:
        """Cancel the deadline and release the timer."""
        ...


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Itimerspec(ctypes.Structure):
    _fields_ = [("interval", _Timespec), ("value", _Timespec)]


class KernelAlarm:
    """An alarm on a Linux timerfd, by way of ctypes: `os.timerfd_create` needs Python 3.13."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer_spec = _Itimerspec()
        self._timer_fd = self._libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._timer_fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._timer_fd, self._on_expiry)

    def set(self, deadline: float) -> None:
        # A zero value would disarm the timer.
        nanoseconds = max(1, int(deadline * 1e9))
        self._timer_spec.value.seconds, self._timer_spec.value.nanoseconds = divmod(nanoseconds, 1_000_000_000)
        self._libc.timerfd_settime(self._timer_fd, TFD_TIMER_ABSTIME, ctypes.byref(self._timer_spec), None)

    def close(self) -> None:
        self._loop.remove_reader(self._timer_fd)
        os.close(self._timer_fd)

    def _on_expiry(self) -> None:
        # Nothing to read if the timer was re-armed between the wake-up and the read.
        try:
            os.read(self._timer_fd, 8)
        except BlockingIOError:
            return
        self._callback()


class LoopAlarm:
    """An alarm on the event loop's own timers."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None

    def set(self, deadline: float) -> None:
        self.close()
        self._handle = self._loop.call_later(max(0.0, deadline - time.monotonic()), self._callback)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


def create_alarm(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> Alarm:
    """Return the most precise alarm that this operating system offers."""
    return KernelAlarm(loop, callback) if sys.platform == "linux" else LoopAlarm(loop, callback)
