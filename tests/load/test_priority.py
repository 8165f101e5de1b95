from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from autotuner.load import priority
from autotuner.load.priority import driver_priority, real_time_allowed


def allowed() -> bool:
    code = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.processes
def test_threads_started_at_driver_priority_have_it_too_and_it_ends():
    """A thread that holds the interpreter's lock at normal priority would hold up the one that goes first."""
    policies: list[int] = []
    with driver_priority():
        thread = Thread(target=lambda: policies.append(os.sched_getscheduler(0)))
        thread.start()
        thread.join()
    assert policies == [os.SCHED_RR if allowed() else os.SCHED_OTHER]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def refuse(*arguments: object) -> None:
    raise PermissionError


def test_without_permissions_priorities_stay_as_they_were(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(os, "setpriority", refuse)
    before = os.nice(0)
    with driver_priority():
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
        assert os.nice(0) == before


def test_where_real_time_is_refused_a_high_priority_is_taken_and_given_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    values: list[tuple[int, int, int]] = []
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(os, "setpriority", lambda *arguments: values.append(arguments))
    monkeypatch.setattr(priority, "AUTOGROUP_PATH", tmp_path / "autogroup")
    with driver_priority():
        assert values == [(os.PRIO_PROCESS, 0, -10)]
        assert (tmp_path / "autogroup").read_text() == "-10"
    assert values[1:] == [(os.PRIO_PROCESS, 0, os.nice(0))]
    assert (tmp_path / "autogroup").read_text() == str(os.nice(0))


@pytest.mark.processes
def test_asking_whether_real_time_is_allowed_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    assert real_time_allowed() is allowed()
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert not real_time_allowed()


@pytest.mark.processes
def test_a_process_of_idle_priority_is_idle_or_nicest():
    code = "import os; from autotuner.load.priority import set_idle_priority; set_idle_priority(); "
    code += "print(os.sched_getscheduler(0), os.nice(0))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(output[0]) == os.SCHED_IDLE or int(output[1]) == 19
