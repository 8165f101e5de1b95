"""What a process asks of the kernel: to end with its parent, and priorities.

Real-time priority for the load generator's driver, idle priority for the transcriber.

On a busy machine a process of normal priority waits up to hundreds of milliseconds for its core
after bytes have arrived. The driver sleeps until they do, so its priority costs others little.
Servers keep their own priority: that is how they are measured.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

_PR_SET_PDEATHSIG = 1
"""prctl(2)."""
DRIVER_NICE = -10
"""The driver's nice value where real-time priority is refused."""
AUTOGROUP_PATH = Path("/proc/self/autogroup")
"""Linux compares the nice values of sessions before those of processes."""


@contextlib.contextmanager
def driver_priority() -> Iterator[None]:
    """Run this thread, and threads it starts, at the lowest real-time priority, else at `DRIVER_NICE` if allowed."""
    if _set_real_time():
        try:
            yield
        finally:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        return
    before = _set_nice(DRIVER_NICE)
    try:
        yield
    finally:
        if before is not None:
            _set_nice(before)


def real_time_allowed() -> bool:
    """Whether this process may take real-time priority; tried on a thread of its own."""
    allowed: list[bool] = []
    # priority belongs to the thread and ends with it
    thread = Thread(target=lambda: allowed.append(_set_real_time()))
    thread.start()
    thread.join()
    return allowed[0]


def _set_real_time() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    except (OSError, AttributeError):
        return False
    return True


def _set_nice(value: int) -> int | None:
    """Set the nice value of this thread and its session; return the thread's previous one, None where refused."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, value)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        AUTOGROUP_PATH.write_text(str(value))
    return before


def end_with_parent() -> None:
    """Have this process killed when its parent ends, even while it is stopped; does nothing where that is not Linux."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def set_idle_priority() -> None:
    """Run this process from now on only on otherwise idle cores."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (OSError, AttributeError):
        os.nice(19)
