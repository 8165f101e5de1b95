"""Removal of the jobs of runs whose process has ended: the queue itself says which there are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from autotuner.errors import RunStoreError
from autotuner.execute.slurm import commands, job_states
from autotuner.execute.slurm.job_folder import SUFFIX
from autotuner.runs.store import RunStore


def remove_jobs() -> Iterator[str]:
    """Cancel this user's jobs of runs that no process works on, wherever their folders are, and yield their ids.

    None where there is no Slurm, or where it does not answer; those whose folder is not seen from here are left.
    """
    if shutil.which("squeue") is None or shutil.which("scancel") is None:
        return
    try:
        entries = commands.queue()
        job_ids = [
            job_id
            for job_id, entry in entries.items()
            if entry.state in job_states.ACTIVE_STATES and _is_abandoned(entry.folder)
        ]
        commands.cancel(job_ids)
    except commands.SlurmCommandError:
        return
    yield from job_ids


def _is_abandoned(folder: Path) -> bool:
    """Whether a job works in the folder of a run that no process holds, or that was deleted."""
    if not folder.name.endswith(SUFFIX) or folder.parent.name != "trials":
        return False
    run = folder.parent.parent
    if not run.exists():
        return run.parent.exists()
    try:
        with RunStore.open(run).lock():
            return True
    except RunStoreError:
        return False
