"""Whole runs of the installed command on a real Slurm: their rankings, their licences, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from tests.hosts.runs import GRID, RANKED, autotune, ranking, wait_until

SLURM = ("--executor", "slurm", "--set", "deployment.slurm.gpu_option=--licenses=gpu:{gpus}")
MEASURED = (
    *GRID,
    *("--runtime", "sim", "--executor", "slurm", "--parallel-trials", "2"),
    *("--set", "parameters.tp-size=[1]", "--set", "parameters.max-running-requests=[8,16,32,64]"),
    *("--concurrency", "2", "--duration", "4", "--max-duration", "4"),
)


def most_at_once(jobs: list[dict[str, str]]) -> int:
    """The most jobs that ran at one time, by the controller's seconds."""
    times = [tuple(datetime.fromisoformat(job[name]) for name in ("StartTime", "EndTime")) for job in jobs]
    return max(sum(start <= moment < end for start, end in times) for moment, _ in times)


def test_six_trials_run_two_at_a_time_by_licences_and_rank_as_in_one_process(slurm, tmp_path: Path) -> None:
    before = {job["JobId"] for job in slurm.all_jobs()}
    remote = autotune("run", *RANKED, *SLURM, "--parallel-trials", "3", "--json", "--output", "remote", folder=tmp_path)
    local = autotune("run", *RANKED, "--json", "--output", "local", folder=tmp_path)
    assert ranking(remote) == ranking(local)
    jobs = [job for job in slurm.all_jobs() if job["JobId"] not in before]
    assert [job["Licenses"] for job in jobs] == ["gpu:2"] * 6
    assert most_at_once(jobs) <= 2
    assert {job["Requeue"] for job in jobs} == {"0"}


def start_and_kill(slurm, folder: Path) -> Path:
    """Start a run, and kill it when one trial has finished and others run; its folder."""
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "autotuner", "run", *MEASURED],
            cwd=folder,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_until(
            lambda: process.poll() is not None or any(path.read_text() for path in folder.glob("runs/*/trials.jsonl"))
        )
        wait_until(lambda: process.poll() is not None or slurm.active_jobs())
    finally:
        assert process.poll() is None, (folder / "output").read_text()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return next(folder.glob("runs/*/trials.jsonl")).parent


def test_a_killed_run_is_resumed_without_repeating_a_job(slurm, tmp_path: Path) -> None:
    before = {job["JobId"] for job in slurm.all_jobs()}
    run = start_and_kill(slurm, tmp_path)
    kept = (run / "trials.jsonl").read_text().splitlines()
    resumed = autotune("run", "--resume", "--json", folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert (run / "trials.jsonl").read_text().splitlines()[: len(kept)] == kept
    trials = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    assert sorted(trial["number"] for trial in trials) == [1, 2, 3, 4]
    assert not any(trial["measurement"]["failure"] for trial in trials)
    jobs = [job for job in slurm.all_jobs() if job["JobId"] not in before]
    assert len(jobs) == 4
    assert sorted(path.name for path in (run / "trials").iterdir()) == ["001", "002", "003", "004"]


def test_clean_removes_the_jobs_of_a_killed_run(slurm, tmp_path: Path) -> None:
    run = start_and_kill(slurm, tmp_path)
    cleaned = autotune("clean", folder=tmp_path)
    assert "removed job of Slurm" in cleaned.stdout
    wait_until(lambda: not slurm.active_jobs())
    assert not list(run.glob("trials/*.slurm"))
    assert autotune("clean", folder=tmp_path).stdout.strip() == "Nothing was left behind."
