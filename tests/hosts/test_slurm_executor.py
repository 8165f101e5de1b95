"""Trials as jobs of a real Slurm: what it does to them, and what their failures say."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotuner.core import Candidate, FailureKind, Trial, ignore_progress
from autotuner.errors import MachineError
from autotuner.execute.remote import RemoteWork
from autotuner.execute.slurm.executor import SlurmExecutor, preflight
from autotuner.experiment import SlurmSettings
from autotuner.search.launch import Launch
from tests.execute.evaluators import ScriptedEvaluator

LICENCES = {"gpu_option": "--licenses=gpu:{gpus}"}


@pytest.fixture(autouse=True)
def results_are_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of these tests are on one host."""
    monkeypatch.setattr("autotuner.execute.slurm.executor.RESULT_SECONDS", 1.0)


def work(limit: int = 2) -> RemoteWork:
    return RemoteWork(
        ScriptedEvaluator,
        limit,
        ignore_progress,
        source="simulated",
        gpu_count=lambda candidate: candidate.gpus if "tp-size" in candidate.parameters else 0,
        time_limit=60.0,
    )


def executor(limit: int = 2, **settings: Any) -> SlurmExecutor:
    return SlurmExecutor(work(limit), SlurmSettings(**settings), poll_seconds=0.5, look_seconds=0.1)


def launch(**parameters: Any) -> Launch:
    values = {
        name.replace("_", "-"): str(value) if isinstance(value, Path) else value for name, value in parameters.items()
    }
    return Launch(Candidate("sim", values))


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def tells_of_drained_node(running: SlurmExecutor, caplog: pytest.LogCaptureFixture) -> bool:
    running._ask_queue()
    return "DRAINED" in caplog.text


def finish(running: SlurmExecutor, count: int) -> dict[int, Trial]:
    trials = [running.wait_for_trial() for _ in range(count)]
    return {trial.number: trial for trial in trials if trial is not None}


def test_a_cancelled_job_fails_its_trial_alone(slurm, tmp_path: Path) -> None:
    with executor() as running:
        running.submit(1, launch(announces=tmp_path / "a", awaits=tmp_path / "never"), tmp_path / "1")
        running.submit(2, launch(awaits=tmp_path / "go"), tmp_path / "2")
        wait_until((tmp_path / "a").exists)
        slurm.command("scancel", running._jobs[0].job_id)
        cancelled = finish(running, 1)[1].measurement.failure
        (tmp_path / "go").touch()
        assert not finish(running, 1)[2].failed
    assert cancelled.kind is FailureKind.JOB_CANCELLED
    assert "was cancelled, and not by this run" in cancelled.message
    assert (tmp_path / "1" / "cleaned-up").exists()
    assert sorted(path.name for path in tmp_path.glob("*.slurm")) == []


def test_a_job_ends_at_its_time_limit_and_the_run_goes_on(slurm, tmp_path: Path) -> None:
    with executor(1, time_limit="1") as running:
        running.submit(1, launch(awaits=tmp_path / "never"), tmp_path / "1")
        failure = finish(running, 1)[1].measurement.failure
        running.submit(2, launch(x=1), tmp_path / "2")
        assert not finish(running, 1)[2].failed
    assert failure.kind is FailureKind.JOB_TIME_LIMIT
    assert "at its time limit of 00:01:00" in failure.message
    assert "--time-limit" in failure.remedy
    assert (tmp_path / "1" / "cleaned-up").exists()


def test_a_drained_node_ends_its_trial_and_the_next_one_waits_and_says_why(slurm, tmp_path: Path, caplog) -> None:
    with executor(2) as running, caplog.at_level(logging.WARNING, logger="autotuner"):
        running.submit(1, launch(announces=tmp_path / "a", awaits=tmp_path / "go"), tmp_path / "1")
        wait_until((tmp_path / "a").exists)
        slurm.update_node("drain", "bad fan")
        running.submit(2, launch(x=2), tmp_path / "2")
        (tmp_path / "go").touch()
        first = finish(running, 1)[1]
        wait_until(lambda: tells_of_drained_node(running, caplog))
        slurm.update_node("resume")
        second = finish(running, 1)[2]
    assert not first.failed
    assert not second.failed
    assert "trial 2 waits in the queue" in caplog.text
    assert second.measurement.timings["queue"] > second.ended - second.started


def test_a_node_that_goes_down_is_named_with_its_reason(slurm, tmp_path: Path) -> None:
    with executor(1) as running:
        running.submit(1, launch(announces=tmp_path / "a", awaits=tmp_path / "never"), tmp_path / "1")
        wait_until((tmp_path / "a").exists)
        slurm.update_node("down", "power supply")
        failure = finish(running, 1)[1].measurement.failure
        slurm.restore()
        running.submit(2, launch(x=1), tmp_path / "2")
        assert not finish(running, 1)[2].failed
    assert failure.kind is FailureKind.NODE_LOST
    assert "power supply" in failure.message


def test_a_job_that_is_killed_fails_its_trial_alone(slurm, tmp_path: Path) -> None:
    with executor(1) as running:
        running.submit(1, launch(act="die"), tmp_path / "1")
        failure = finish(running, 1)[1].measurement.failure
        running.submit(2, launch(x=1), tmp_path / "2")
        assert not finish(running, 1)[2].failed
    assert failure.kind is FailureKind.INTERNAL
    assert "left no result" in failure.message


def test_a_job_that_no_node_could_run_is_refused(slurm, tmp_path: Path) -> None:
    with executor(1, **LICENCES) as running:
        running.submit(1, launch(tp_size=16), tmp_path / "1")
        failure = finish(running, 1)[1].measurement.failure
    assert failure.kind is FailureKind.UNSCHEDULABLE
    with pytest.raises(MachineError, match="refused to run trials with 16 GPUs"):
        preflight(work(), SlurmSettings(**LICENCES), tmp_path, 16)
    with pytest.raises(MachineError, match="invalid partition specified: nope"):
        preflight(work(), SlurmSettings(partition="nope"), tmp_path, 0)
    preflight(work(), SlurmSettings(**LICENCES), tmp_path, 4)


def test_a_python_that_is_not_on_the_node_ends_the_run(slurm, tmp_path: Path) -> None:
    with executor(1, python="/nowhere/python") as running:
        running.submit(1, launch(x=1), tmp_path / "1")
        with pytest.raises(MachineError, match=r"could not start autotune on the node localhost.*/nowhere/python"):
            running.wait_for_trial()


def test_the_text_of_a_container_stands_before_the_command(slurm, tmp_path: Path) -> None:
    with executor(1, command_prefix="env IN_CONTAINER=yes sh -c 'echo $IN_CONTAINER; exec \"$@\"' sh") as running:
        running.submit(1, launch(x=1), tmp_path / "1")
        assert not finish(running, 1)[1].failed
    assert (tmp_path / "1" / "slurm.log").read_text() == "yes\n"


def test_leaving_the_block_cancels_jobs_and_lets_them_clean_up(slurm, tmp_path: Path) -> None:
    with executor(2, **LICENCES) as running:
        running.submit(1, launch(announces=tmp_path / "a", awaits=tmp_path / "never", tp_size=4), tmp_path / "1")
        running.submit(2, launch(x=2, tp_size=4), tmp_path / "2")
        wait_until((tmp_path / "a").exists)
    assert slurm.active_jobs() == []
    assert (tmp_path / "1" / "cleaned-up").exists()
    assert not list(tmp_path.glob("*.slurm"))
