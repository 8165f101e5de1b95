"""The load generator's own overhead: the lag of its event loop, and the share of a core its thread takes.

A kernel timer becomes readable at a known instant and then waits its turn among the sockets: the time
until the loop calls back is what a token's bytes would have waited at that instant.
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
from collections.abc import Callable
from random import Random
from time import CLOCK_MONOTONIC, monotonic, thread_time

_MIN_PROBE_GAP_SECONDS, _MAX_PROBE_GAP_SECONDS = 0.005, 0.015
"""Random, so that the probes do not keep step with an engine's iterations."""
LIBC = ctypes.CDLL(None, use_errno=True)


class OverheadMeter:
    """Measures from `start` to `stop`, both called on the event loop's thread.

    `lags` are in seconds, one per random probe instant, including those that passed while the loop was
    blocked: a loop blocked for a second is late for everything that arrives in it.
    """

    def __init__(self) -> None:
        self.lags: list[float] = []
        self._rng = Random()
        self._timer: KernelTimer | LoopTimer | None = None
        self._stopped = False
        self._next_probe = self._start_time = self._end_time = 0.0
        self._cpu_seconds = 0.0

    def start(self) -> None:
        """Start measuring, unless stopped before."""
        if self._stopped:
            return
        self._timer = make_timer(self._on_timer)
        self._start_time, self._cpu_seconds = monotonic(), thread_time()
        self._next_probe = self._start_time + self._probe_gap()
        self._timer.set(self._next_probe)

    def stop(self) -> None:
        """Stop measuring, if started."""
        self._stopped = True
        if self._timer is None:
            return
        self._timer.close()
        self._timer = None
        self._end_time, self._cpu_seconds = monotonic(), thread_time() - self._cpu_seconds
        self._record_lags(self._end_time)

    @property
    def cpu_share(self) -> float | None:
        """CPU time of the thread over wall time; None when nothing was measured."""
        wall = self._end_time - self._start_time
        return self._cpu_seconds / wall if wall > 0 else None

    @property
    def lag_mean(self) -> float | None:
        """Mean lag in seconds; None when nothing was measured."""
        return math.fsum(self.lags) / len(self.lags) if self.lags else None

    @property
    def lag_p99(self) -> float:
        """99th percentile of the lag in seconds; 0 when nothing was measured."""
        return sorted(self.lags)[math.ceil(len(self.lags) * 0.99) - 1] if self.lags else 0.0

    def _on_timer(self) -> None:
        self._record_lags(monotonic())
        if self._timer is not None:
            self._timer.set(self._next_probe)

    def _record_lags(self, now: float) -> None:
        while self._next_probe <= now:
            self.lags.append(now - self._next_probe)
            self._next_probe += self._probe_gap()

    def _probe_gap(self) -> float:
        return self._rng.uniform(_MIN_PROBE_GAP_SECONDS, _MAX_PROBE_GAP_SECONDS)


class KernelTimer:
    """A timerfd watched by the running event loop like a socket; OSError if the system has none."""

    def __init__(self, callback: Callable[[], None]) -> None:
        try:
            self._file_descriptor = LIBC.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError as error:
            raise OSError("no timerfd") from error
        if self._file_descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._file_descriptor, callback)

    def set(self, instant: float) -> None:
        """Fire at `instant` of the monotonic clock; this also clears an earlier firing."""
        seconds = int(instant)
        spec = _TimerSpec(0, 0, seconds, max(1, int((instant - seconds) * 1e9)))
        LIBC.timerfd_settime(self._file_descriptor, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None)

    def close(self) -> None:
        """Stop watching, and close the descriptor."""
        self._loop.remove_reader(self._file_descriptor)
        os.close(self._file_descriptor)


class LoopTimer:
    """Fallback on the event loop's own timers, which run before the sockets and so understate the lag."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None

    def set(self, instant: float) -> None:
        """Fire at `instant` of the monotonic clock."""
        self._handle = self._loop.call_later(max(0.0, instant - monotonic()), self._callback)

    def close(self) -> None:
        """Cancel the timer."""
        if self._handle is not None:
            self._handle.cancel()


def make_timer(callback: Callable[[], None]) -> KernelTimer | LoopTimer:
    """A kernel timer where the system has one, else the event loop's."""
    try:
        return KernelTimer(callback)
    except OSError:
        return LoopTimer(callback)


_TFD_TIMER_ABSTIME = 1


class _TimerSpec(ctypes.Structure):
    """struct itimerspec: seconds and nanoseconds of the interval, then of the first time."""

    _fields_ = [(name, ctypes.c_long) for name in ("interval", "interval_ns", "first", "first_ns")]
