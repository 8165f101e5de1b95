"""A stand-in for the commands of Slurm: its jobs run when they are submitted, in this process, or wait for a state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from autotuner.execute.slurm import commands, job
from autotuner.execute.slurm.job_folder import JobFolder


class StandInSlurm:
    """What takes the place of `commands`; without `runs_jobs` a job stays PENDING until a test sets its state."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, runs_jobs: bool = True) -> None:
        self.runs_jobs = runs_jobs
        self.entries: dict[str, commands.QueueEntry] = {}
        self.details: dict[str, str] = {"BatchHost": "n1", "ExitCode": "0:0"}
        self.cancelled: list[str] = []
        self.refusals: list[str] = []
        for name in ("submit", "queue", "cancel", "job_details", "node_reason"):
            monkeypatch.setattr(commands, name, getattr(self, name))

    def submit(self, options: Sequence[str], script: str) -> str:
        if self.refusals:
            raise commands.SlurmCommandError(self.refusals.pop(0))
        folder = Path(next(option for option in options if option.startswith("--chdir=")).removeprefix("--chdir="))
        job_id = str(len(self.entries) + 1)
        self.entries[job_id] = commands.QueueEntry(job_id, "PENDING", "Resources", 60.0, folder)
        if self.runs_jobs:
            self.run(job_id)
        return job_id

    def run(self, job_id: str) -> None:
        """Run a job to its end."""
        status = job.run_work(JobFolder(self.entries[job_id].folder))
        self.set_state(job_id, "FAILED" if status else "COMPLETED")

    def set_state(self, job_id: str, state: str, reason: str = "None") -> None:
        entry = self.entries[job_id]
        self.entries[job_id] = commands.QueueEntry(job_id, state, reason, entry.limit, entry.folder)

    def queue(self) -> dict[str, commands.QueueEntry]:
        return dict(self.entries)

    def cancel(self, job_ids: Iterable[str]) -> None:
        for job_id in sorted(job_ids):
            self.cancelled.append(job_id)
            if job_id in self.entries and self.entries[job_id].state in ("PENDING", "RUNNING", "SUSPENDED"):
                self.set_state(job_id, "CANCELLED")

    def job_details(self, job_id: str) -> dict[str, str]:
        return self.details

    def node_reason(self, node: str) -> str:
        return "bad fan"
