"""What the states of Slurm's jobs mean for a trial."""

from __future__ import annotations

from collections.abc import Callable

from autotuner.core import Failure, FailureKind
from autotuner.execute.slurm import commands

WAITING_STATES = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "RESV_DEL_HOLD")
RUNNING_STATES = ("RUNNING", "STAGE_OUT", "SIGNALING", "RESIZING", "STOPPED")
SUSPENDED_STATE, COMPLETING_STATE = "SUSPENDED", "COMPLETING"
ACTIVE_STATES = (*WAITING_STATES, *RUNNING_STATES, SUSPENDED_STATE, COMPLETING_STATE)

HOPELESS_REASONS = ("PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "DependencyNeverSatisfied")
"""Why a job waits that would wait for ever."""

HELD_REASONS = ("launch failed requeued held", "launch_failed_requeued_held", "JobHoldMaxRequeue")
"""Why a job waits that its node could not start."""

ORDINARY_REASONS = ("None", "Priority", "Resources", "Licenses", "BeginTime", "Prolog", "Cleaning", "")
"""Why a job waits on a cluster where nothing is wrong."""

UNFIT_REMEDY = "Choose another --partition or --time-limit, or fewer GPUs; `sinfo` shows what there is."
CANDIDATE_REMEDY = "It says nothing about the candidate."


def is_killed(entry: commands.QueueEntry) -> bool:
    """Whether a job has ended in a state in which it was given no time for a result."""
    return entry.state.split()[0] in _FAILURES


def ended_failure(job_id: str, state: str, details: dict[str, str], last_words: str) -> Failure:
    """The failure of a trial whose job has ended in `state` without a result; `details` are the controller's."""
    node = details.get("BatchHost", "")
    where = f" on {node}" if node and node != "(null)" else ""
    named = _FAILURES.get(state.split()[0] if state else "")
    if named is not None:
        return named(job_id, where, details)
    status, _, number = details.get("ExitCode", "").partition(":")
    how = f"by signal {number}" if number not in ("", "0") else f"with status {status or 'unknown'}"
    return Failure(
        FailureKind.INTERNAL,
        f"Job {job_id}{where} ended {how} and left no result. {last_words}".strip(),
        "If it was killed, ask for more memory with deployment.slurm.options: [--mem=...]; else this is a bug in "
        "autotune.",
    )


def _cancelled(job_id: str, where: str, details: dict[str, str]) -> Failure:
    return Failure(
        FailureKind.JOB_CANCELLED,
        f"Job {job_id}{where} was cancelled, and not by this run.",
        f"Find out by whom. {CANDIDATE_REMEDY}",
    )


def _timed_out(job_id: str, where: str, details: dict[str, str]) -> Failure:
    limit = details.get("TimeLimit", "")
    return Failure(
        FailureKind.JOB_TIME_LIMIT,
        f"Slurm ended job {job_id}{where} at its time limit{f' of {limit}' if limit else ''}.",
        "Raise --time-limit, or leave it out; or measure fewer or shorter load points.",
    )


def _node_lost(job_id: str, where: str, details: dict[str, str]) -> Failure:
    node = details.get("BatchHost", "")
    reason = commands.node_reason(node) if where else ""
    return Failure(
        FailureKind.NODE_LOST,
        f"The node of job {job_id} failed{where}{f': {reason}' if reason else ''}.",
        f"Leave it out with deployment.slurm.options: [--exclude=NODE], or tell its administrator. {CANDIDATE_REMEDY}",
    )


def preempted(job_id: str, where: str, details: dict[str, str]) -> Failure:
    """The failure of a job that made room for another one."""
    return Failure(
        FailureKind.PREEMPTED,
        f"Slurm preempted job {job_id}{where} for one of a higher priority.",
        f"Choose a --partition or an --account whose jobs are not preempted. {CANDIDATE_REMEDY}",
    )


def _out_of_memory(job_id: str, where: str, details: dict[str, str]) -> Failure:
    return Failure(
        FailureKind.JOB_OUT_OF_MEMORY,
        f"Slurm ended job {job_id}{where} at its limit of host memory.",
        "Ask for more with deployment.slurm.options: [--mem=...].",
    )


def gone(job_id: str) -> Failure:
    """The failure of a job that the controller knows no more, without a result."""
    return Failure(
        FailureKind.NODE_LOST,
        f"Job {job_id} is gone from Slurm's queue and left no result.",
        f"Its administrator may know why. {CANDIDATE_REMEDY}",
    )


def unfit(message: str) -> Failure:
    """The failure of a job that no node of the cluster could run."""
    return Failure(FailureKind.UNSCHEDULABLE, message, UNFIT_REMEDY)


_FAILURES: dict[str, Callable[[str, str, dict[str, str]], Failure]] = {
    "CANCELLED": _cancelled,
    "REVOKED": _cancelled,
    "TIMEOUT": _timed_out,
    "DEADLINE": _timed_out,
    "NODE_FAIL": _node_lost,
    "BOOT_FAIL": _node_lost,
    "PREEMPTED": preempted,
    "OUT_OF_MEMORY": _out_of_memory,
}
