from __future__ import annotations

import os
import subprocess
import sys
from threading import Thread

import pytest

from autotuner.load.scheduling import going_first, may_go_first


def allowed() -> bool:
    code = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_threads_started_while_going_first_go_first_too_and_it_ends():
    """A thread that holds the interpreter's lock at normal priority would hold up the one that goes first."""
    seen: list[int] = []
    with going_first():
        thread = Thread(target=lambda: seen.append(os.sched_getscheduler(0)))
        thread.start()
        thread.join()
    assert seen == [os.SCHED_RR if allowed() else os.SCHED_OTHER]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_where_it_is_not_allowed_everything_runs_as_before(monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with going_first():
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_whether_it_is_allowed_is_known_without_doing_it(monkeypatch: pytest.MonkeyPatch):
    assert may_go_first() is allowed()
    assert os.sched_getscheduler(0) == os.SCHED_OTHER

    def refuse(*arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert not may_go_first()


def test_a_process_that_goes_last_is_idle_or_nicest():
    code = "import os; from autotuner.load.scheduling import go_last; go_last(); "
    code += "print(os.sched_getscheduler(0), os.nice(0))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(found[0]) == os.SCHED_IDLE or int(found[1]) == 19
