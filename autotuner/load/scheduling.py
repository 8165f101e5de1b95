"""Who gets a core first: the driver before all others, the transcriber after them.

On a busy machine a process of normal priority waits up to hundreds of milliseconds for its core
after bytes have arrived. The driver sleeps until they do, so going first costs others little.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from threading import Thread


@contextlib.contextmanager
def going_first() -> Iterator[None]:
    """Run this thread, and threads it starts, at the lowest real-time priority where that is allowed."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    except (OSError, AttributeError):
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def may_go_first() -> bool:
    """Whether this process is allowed what `going_first` does; nothing is changed."""
    found: list[bool] = []

    def ask() -> None:
        with going_first():
            found.append(hasattr(os, "SCHED_RR") and os.sched_getscheduler(0) == os.SCHED_RR)

    thread = Thread(target=ask)  # priorities are of threads: this one takes it along when it ends
    thread.start()
    thread.join()
    return found[0]


def go_last() -> None:
    """Run this process from now on only where nobody else wants to."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (OSError, AttributeError):
        os.nice(19)
