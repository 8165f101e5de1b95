"""What the executor makes of Slurm's answers, by a stand-in for its commands; real ones are in tests/hosts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from autotuner.core import Candidate, FailureKind, Progress, ignore_progress
from autotuner.errors import MachineError
from autotuner.execute.remote import RemoteWork
from autotuner.execute.slurm import commands
from autotuner.execute.slurm import executor as slurm_executor
from autotuner.execute.slurm.executor import SlurmExecutor, job_options, job_script
from autotuner.execute.slurm.job_folder import JobFolder
from autotuner.experiment import SlurmSettings
from autotuner.search.launch import Launch
from tests.execute.evaluators import ScriptedEvaluator
from tests.execute.stand_in_slurm import StandInSlurm


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_executor, "RESULT_SECONDS", 0.0)
    monkeypatch.setattr(slurm_executor, "STOP_SECONDS", 0.0)


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> StandInSlurm:
    """Whose jobs wait until a test sets their state."""
    return StandInSlurm(monkeypatch, runs_jobs=False)


def work(limit: int = 1, observe: Any = ignore_progress, gpus: int = 0) -> RemoteWork:
    return RemoteWork(ScriptedEvaluator, limit, observe, source="simulated", gpu_count=lambda _: gpus, time_limit=100.0)


def executor(limit: int = 1, observe: Any = ignore_progress, **settings: Any) -> SlurmExecutor:
    return SlurmExecutor(work(limit, observe), SlurmSettings(**settings), poll_seconds=0.0, look_seconds=0.0)


def launch(x: int = 1, **parameters: Any) -> Launch:
    return Launch(Candidate("sim", {"x": x, **parameters}))


@pytest.mark.parametrize(
    ("state", "kind", "words"),
    [
        ("CANCELLED", FailureKind.JOB_CANCELLED, "Job 1 on n1 was cancelled, and not by this run."),
        ("TIMEOUT", FailureKind.JOB_TIME_LIMIT, "Slurm ended job 1 on n1 at its time limit of 00:07:00."),
        ("NODE_FAIL", FailureKind.NODE_LOST, "The node of job 1 failed on n1: bad fan."),
        ("PREEMPTED", FailureKind.PREEMPTED, "Slurm preempted job 1 on n1 for one of a higher priority."),
        ("SUSPENDED", FailureKind.PREEMPTED, "Slurm preempted job 1 for one of a higher priority."),
        ("OUT_OF_MEMORY", FailureKind.JOB_OUT_OF_MEMORY, "Slurm ended job 1 on n1 at its limit of host memory."),
    ],
)
def test_what_slurm_does_to_a_job_is_the_failure_of_its_trial(slurm, tmp_path, state, kind, words) -> None:
    slurm.details["TimeLimit"] = "00:07:00"
    running = executor()
    running.submit(1, launch(), tmp_path / "1")
    slurm.set_state("1", state)
    failure = running.wait_for_trial().measurement.failure
    assert (failure.kind, failure.message) == (kind, words)
    assert failure.remedy
    assert running.has_room


def test_a_job_that_slurm_has_forgotten_is_given_up(slurm, tmp_path) -> None:
    running = executor()
    running.submit(1, launch(), tmp_path / "1")
    slurm.entries.clear()
    failure = running.wait_for_trial().measurement.failure
    assert (failure.kind, "gone from Slurm's queue" in failure.message) == (FailureKind.NODE_LOST, True)


def test_a_job_that_could_not_start_autotune_ends_the_run_with_its_words(slurm, tmp_path) -> None:
    running = executor()
    running.submit(1, launch(), tmp_path / "1")
    (tmp_path / "1.slurm" / "slurm.log").write_text("/opt/python: not found\n")
    slurm.set_state("1", "FAILED")
    with pytest.raises(MachineError, match=r"on the node n1.*/opt/python: not found.*shared file system"):
        running.wait_for_trial()


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("PartitionTimeLimit", FailureKind.UNSCHEDULABLE), ("launch failed requeued held", FailureKind.NODE_LOST)],
)
def test_a_job_that_would_wait_for_ever_is_removed_from_the_queue(slurm, tmp_path, reason, kind) -> None:
    running = executor()
    running.submit(1, launch(), tmp_path / "1")
    slurm.set_state("1", "PENDING", reason)
    failure = running.wait_for_trial().measurement.failure
    assert (failure.kind, reason in failure.message, slurm.cancelled) == (kind, True, ["1"])


def test_a_job_waits_no_longer_than_the_settings_say(slurm, tmp_path) -> None:
    running = executor(queue_timeout=1e-9)
    running.submit(1, launch(), tmp_path / "1")
    failure = running.wait_for_trial().measurement.failure
    assert (failure.kind, "queue_timeout: Resources" in failure.message) == (FailureKind.UNSCHEDULABLE, True)
    assert slurm.cancelled == ["1"]


def test_an_unusual_reason_to_wait_is_told_once(slurm, tmp_path, caplog) -> None:
    running = executor()
    running.submit(1, launch(), tmp_path / "1")
    with caplog.at_level(logging.WARNING, logger="autotuner"):
        running._ask_queue()
        slurm.set_state("1", "PENDING", "Nodes required for job are DOWN, DRAINED")
        running._ask_queue()
        running._ask_queue()
    assert caplog.messages == ["trial 1 waits in the queue as job 1: Nodes required for job are DOWN, DRAINED"]


def test_the_wait_in_the_queue_counts_apart_from_the_trial(slurm, tmp_path) -> None:
    running = executor()
    running.submit(1, launch(), tmp_path / "1")
    folder = JobFolder(tmp_path / "1.slurm")
    record = folder.record()
    assert record is not None
    running._jobs[0].record = type(record)(**{**vars(record), "submitted": record.submitted - 500})
    slurm.run("1")
    trial = running.wait_for_trial()
    assert trial.measurement.timings["queue"] >= 500
    assert trial.ended - trial.started < 400


def test_a_refusal_that_may_pass_is_tried_again_and_another_one_ends_the_run(slurm, tmp_path) -> None:
    slurm.refusals = ["sbatch: error: Unable to contact slurm controller", "Socket timed out on send/recv operation"]
    running = executor()
    running.submit(1, launch(), tmp_path / "1")
    assert not running.has_room
    running._submit_waiting()
    running._submit_waiting()
    assert list(slurm.entries) == ["1"]
    other = executor()
    slurm.refusals = ["sbatch: error: invalid partition specified: nope"]
    with pytest.raises(MachineError, match="invalid partition specified: nope"):
        other.submit(1, launch(2), tmp_path / "2")


def test_a_job_that_is_too_large_fails_its_trial_alone(slurm, tmp_path) -> None:
    slurm.refusals = ["sbatch: error: Batch job submission failed: Requested node configuration is not available"]
    running = executor()
    running.submit(1, launch(), tmp_path / "1")
    assert running.wait_for_trial().measurement.failure.kind is FailureKind.UNSCHEDULABLE


def test_a_controller_that_does_not_answer_for_long_ends_the_run(slurm, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(slurm_executor, "UNANSWERED_SECONDS", 0.0)
    running = executor()
    running.submit(1, launch(), tmp_path / "1")

    def no_answer() -> Any:
        raise commands.SlurmCommandError("slurm_load_jobs error: Unable to contact slurm controller")

    monkeypatch.setattr(commands, "queue", no_answer)
    with pytest.raises(MachineError, match="Slurm does not answer"):
        running.wait_for_trial()


def test_a_job_that_outlived_its_run_is_taken_over_with_all_it_said(slurm, tmp_path) -> None:
    executor().submit(3, launch(), tmp_path / "3")
    slurm.run("1")
    seen: list[Progress] = []
    resumed = executor(observe=seen.append)
    resumed.submit(2, launch(), tmp_path / "2")
    trial = resumed.wait_for_trial()
    assert (trial.number, trial.failed) == (2, False)
    assert [progress.trial_number for progress in seen] == [2]
    assert (tmp_path / "2" / "cleaned-up").exists()
    assert list(slurm.entries) == ["1"]
    assert not list(tmp_path.glob("*.slurm"))


def test_a_job_whose_id_was_never_written_is_found_in_the_queue(slurm, tmp_path) -> None:
    killed = executor()
    killed.submit(1, launch(), tmp_path / "1")
    record = JobFolder(tmp_path / "1.slurm").record()
    assert record is not None
    JobFolder(tmp_path / "1.slurm").save(type(record)(**{**vars(record), "job_id": ""}))
    resumed = executor()
    resumed.submit(1, launch(), tmp_path / "1")
    assert [job.job_id for job in resumed._jobs] == ["1"]


def test_a_job_is_found_through_another_path_to_its_run(slurm, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    executor().submit(1, launch(), tmp_path / "run" / "1")
    resumed = executor()
    resumed.submit(1, launch(), tmp_path / "link" / "1")
    assert [job.job_id for job in resumed._jobs] == ["1"]
    assert (tmp_path / "run" / "1.slurm").exists()


def test_a_job_that_nobody_asks_for_again_is_cancelled(slurm, tmp_path) -> None:
    killed = executor(2)
    killed.submit(1, launch(1), tmp_path / "1")
    killed.submit(2, launch(2), tmp_path / "2")
    resumed = executor()
    resumed.submit(1, launch(2), tmp_path / "1")
    slurm.run("2")
    assert resumed.wait_for_trial().candidate == launch(2).candidate
    assert slurm.cancelled == ["1"]


def test_a_job_that_ended_without_a_trial_is_submitted_anew(slurm, tmp_path) -> None:
    executor().submit(1, launch(), tmp_path / "1")
    slurm.set_state("1", "CANCELLED")
    resumed = executor()
    resumed.submit(1, launch(), tmp_path / "1")
    assert [job.job_id for job in resumed._jobs] == ["2"]


def test_the_end_of_the_block_cancels_what_is_left(slurm, tmp_path) -> None:
    with executor(2) as running:
        running.submit(1, launch(1), tmp_path / "1")
        running.submit(2, launch(2), tmp_path / "2")
    assert slurm.cancelled == ["1", "2"]


def test_an_interrupt_before_the_id_of_a_job_is_heard_leaves_no_job(slurm, tmp_path, monkeypatch) -> None:
    def interrupted(*arguments: Any) -> str:
        StandInSlurm.submit(slurm, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt), executor() as running:
        running.submit(1, launch(), tmp_path / "1")
    assert slurm.cancelled == ["1"]


def test_the_job_of_another_version_says_so(slurm, tmp_path) -> None:
    running = executor()
    running.submit(1, launch(), tmp_path / "1")
    folder = JobFolder(tmp_path / "1.slurm")
    record = folder.record()
    assert record is not None
    folder.save(type(record)(**{**vars(record), "version": "0.0.1"}))
    slurm.run("1")
    with pytest.raises(MachineError, match=r"and the run is of 0\.0\.1"):
        running.wait_for_trial()


def test_options_and_script_of_a_job() -> None:
    settings = SlurmSettings(
        partition="gpu",
        account="lab",
        gpu_option="--gres=gpu:h100:{gpus}",
        options=("--mem=64G",),
        command_prefix="apptainer exec --nv vllm.sif",
        python="python3",
    )
    options = job_options(settings, work(gpus=2), 2, Path("/runs/100%/001.slurm"))
    assert {"--no-requeue", "--time=7", "--partition=gpu", "--account=lab", "--gres=gpu:h100:2"} <= set(options)
    assert "--output=/runs/100%%/001.slurm/slurm.log" in options
    assert options[-1] == "--mem=64G"
    script = job_script(settings, Path("/runs/a b/001.slurm"))
    last = "exec apptainer exec --nv vllm.sif python3 -P -m autotuner.execute.slurm.job '/runs/a b/001.slurm'"
    assert script.splitlines()[-1] == last
    assert "PYTHONPATH" not in script
    assert not any("gres" in option for option in job_options(settings, work(), 0, Path("/runs")))


def test_a_message_that_is_being_written_is_read_when_it_is_whole(tmp_path) -> None:
    folder = JobFolder(tmp_path)
    with folder.sender() as send:
        send("first")
        send("second")
    data = (tmp_path / "messages").read_bytes()
    (tmp_path / "messages").write_bytes(data[:-3])
    reader = JobFolder(tmp_path)
    assert list(reader.new_messages()) == ["first"]
    (tmp_path / "messages").write_bytes(data)
    assert list(reader.new_messages()) == ["second"]
    with pytest.raises(FileExistsError), folder.sender():
        pass
