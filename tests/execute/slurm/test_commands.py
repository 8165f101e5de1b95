"""Slurm's commands: what is read from their output, and which errors may pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotuner.errors import MachineError
from autotuner.execute.slurm import commands, leftovers
from autotuner.execute.slurm.commands import QueueEntry, SlurmCommandError


def answer(monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    monkeypatch.setattr(commands, "run_command", lambda *command, standard_input="": output)


def test_the_queue_is_read_line_by_line(monkeypatch) -> None:
    answer(monkeypatch, "7|PENDING|(Priority)|1-02:03:04|/runs/a|b\n8|RUNNING|None|UNLIMITED|/x\nslurm is slow today\n")
    assert commands.queue() == {
        "7": QueueEntry("7", "PENDING", "(Priority)", 93784.0, Path("/runs/a|b")),
        "8": QueueEntry("8", "RUNNING", "None", None, Path("/x")),
    }


@pytest.mark.parametrize(("output", "job_id"), [("12\n", "12"), ("12;cluster\n", "12"), ("Welcome!\n12\n", "12")])
def test_the_id_of_a_job_is_read(monkeypatch, output, job_id) -> None:
    answer(monkeypatch, output)
    assert commands.submit([], "") == job_id


def test_an_answer_without_an_id_is_an_error(monkeypatch) -> None:
    answer(monkeypatch, "Submitted")
    with pytest.raises(SlurmCommandError, match="no id of a job"):
        commands.submit([], "")


def test_the_reason_of_a_node_is_read(monkeypatch) -> None:
    answer(monkeypatch, "NodeName=n1 State=DOWN CurrentWatts=0 Reason=bad power supply [root@2026-01-01T00:00:00]")
    assert commands.node_reason("n1") == "bad power supply"


@pytest.mark.parametrize(
    ("text", "transient", "unfit"),
    [
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", True, False),
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", True, False),
        (
            "QOSMaxSubmitJobPerUserLimit: Job violates accounting/QOS policy (job submit limit, user's size)",
            True,
            False,
        ),
        ("allocation failure: Invalid license specification", False, True),
        ("Requested node configuration is not available", False, True),
        ("sbatch: error: invalid partition specified: nope", False, False),
        ("Invalid account or account/partition combination specified", False, False),
    ],
)
def test_errors_that_may_pass_are_told_from_those_that_last(text, transient, unfit) -> None:
    error = SlurmCommandError(text)
    assert (error.is_transient, error.is_unfit) == (transient, unfit)


def test_a_machine_without_slurm_is_told_so(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="no Slurm on this machine"):
        commands.require_commands()
    assert list(leftovers.remove_jobs()) == []


def test_jobs_of_runs_that_nobody_works_on_are_abandoned(tmp_path) -> None:
    assert leftovers._is_abandoned(tmp_path / "deleted" / "trials" / "001.slurm")
    assert not leftovers._is_abandoned(tmp_path / "not-mounted" / "runs" / "x" / "trials" / "001.slurm")
    assert not leftovers._is_abandoned(tmp_path)
    (tmp_path / "no-run").mkdir()
    assert not leftovers._is_abandoned(tmp_path / "no-run" / "trials" / "001.slurm")
