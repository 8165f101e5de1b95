"""Who gets a core first: the driver before all others, the transcriber after them.

On a busy machine a process of normal priority waits up to hundreds of milliseconds for its core
after bytes have arrived. The driver sleeps until they do, so going first costs others little.
Servers run as they would without us: what is measured is what they do at their own priority.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

DRIVER_NICE = -10
"""The driver's priority where real time is refused and this is not."""
AUTOGROUP_PATH = Path("/proc/self/autogroup")
"""Linux compares sessions by this before it compares processes by theirs."""


@contextlib.contextmanager
def driver_priority() -> Iterator[None]:
    """Run this thread, and threads it starts, at the lowest real-time priority, else a high one, as far as allowed."""
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
    """Whether this process is allowed real-time priority; nothing is changed."""
    allowed: list[bool] = []
    # priorities are of threads: this one takes it along when it ends
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
    """Set this thread's nice value and its session's, and return what the thread's was; None where that is refused."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, value)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        AUTOGROUP_PATH.write_text(str(value))
    return before


def set_idle_priority() -> None:
    """Run this process from now on only where nobody else wants to."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (OSError, AttributeError):
        os.nice(19)
