"""How late the load generator's own event loop is, and how much of a core its thread takes.

A timer of the kernel becomes readable at a known instant and then waits its turn among the sockets:
what passes until the loop calls back is what a token's bytes would have waited at that instant.
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
from collections.abc import Callable
from random import Random
from time import CLOCK_MONOTONIC, monotonic, thread_time

_LEAST_PAUSE, _LONGEST_PAUSE = 0.005, 0.015
"""Random, so that the instants do not keep step with an engine's iterations."""
LIBRARY = ctypes.CDLL(None, use_errno=True)


class Overhead:
    """Measures from `start` to `stop`, both called on the thread of the event loop.

    `lags` are in seconds, one for each of many random instants, also for those that passed while
    the loop stood still: a loop that does so for a second is late for all that arrives in it.
    """

    def __init__(self) -> None:
        self.lags: list[float] = []
        self._random = Random()
        self._alarm: KernelTimer | LoopTimer | None = None
        self._over = False
        self._due = self._began = self._ended = 0.0
        self._cpu = 0.0

    def start(self) -> None:
        """Begin to measure, unless it is over already."""
        if self._over:
            return
        self._alarm = timer(self._went_off)
        self._began, self._cpu = monotonic(), thread_time()
        self._due = self._began + self._pause()
        self._alarm.set(self._due)

    def stop(self) -> None:
        """End what was begun, if anything was."""
        self._over = True
        if self._alarm is None:
            return
        self._alarm.close()
        self._alarm = None
        self._ended, self._cpu = monotonic(), thread_time() - self._cpu
        self._count(self._ended)

    @property
    def cpu(self) -> float | None:
        """The share of a core that the thread took; None where nothing was measured."""
        wall = self._ended - self._began
        return self._cpu / wall if wall > 0 else None

    @property
    def lag_mean(self) -> float | None:
        """Seconds by which the loop is late on average; None where nothing was measured."""
        return math.fsum(self.lags) / len(self.lags) if self.lags else None

    @property
    def lag_p99(self) -> float:
        """Seconds by which it is later only 1% of the time."""
        return sorted(self.lags)[math.ceil(len(self.lags) * 0.99) - 1] if self.lags else 0.0

    def _went_off(self) -> None:
        self._count(monotonic())
        if self._alarm is not None:
            self._alarm.set(self._due)

    def _count(self, now: float) -> None:
        while self._due <= now:
            self.lags.append(now - self._due)
            self._due += self._pause()

    def _pause(self) -> float:
        return self._random.uniform(_LEAST_PAUSE, _LONGEST_PAUSE)


class KernelTimer:
    """Calls back when the running loop comes to a timer of the kernel that has gone off; OSError where it has none."""

    def __init__(self, callback: Callable[[], None]) -> None:
        try:
            self._file = LIBRARY.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError as error:
            raise OSError("no timerfd") from error
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._file, callback)

    def set(self, instant: float) -> None:
        """Go off at `instant` of the monotonic clock, and take back what went off before."""
        seconds = int(instant)
        once = _Setting(0, 0, seconds, max(1, int((instant - seconds) * 1e9)))
        LIBRARY.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(once), None)

    def close(self) -> None:
        """Never go off again."""
        self._loop.remove_reader(self._file)
        os.close(self._file)


class LoopTimer:
    """The same of the loop's own timers, which it looks at before the sockets: where the kernel has none."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None

    def set(self, instant: float) -> None:
        """Go off at `instant` of the monotonic clock."""
        self._handle = self._loop.call_later(max(0.0, instant - monotonic()), self._callback)

    def close(self) -> None:
        """Never go off again."""
        if self._handle is not None:
            self._handle.cancel()


def timer(callback: Callable[[], None]) -> KernelTimer | LoopTimer:
    """Return a timer that stands in the queue of the sockets, as far as this system has one."""
    try:
        return KernelTimer(callback)
    except OSError:
        return LoopTimer(callback)


_ABSOLUTE = 1


class _Setting(ctypes.Structure):
    """struct itimerspec: seconds and nanoseconds of the interval, then of the first time."""

    _fields_ = [(name, ctypes.c_long) for name in ("every", "every_ns", "first", "first_ns")]
