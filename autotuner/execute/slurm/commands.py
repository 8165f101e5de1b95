"""Slurm's commands: sbatch, squeue, scontrol and scancel, each with a deadline, and errors as paragraphs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotuner.errors import MachineError, as_sentence, shorten_middle

JOB_NAME = "autotune"
"""The name of every job: with its folder it says whose it is, without any other record."""

COMMANDS = ("sbatch", "squeue", "scontrol", "scancel")
COMMAND_SECONDS = 60.0
"""How long a command may take: a busy controller answers after many seconds."""

MAX_MESSAGE_CHARACTERS = 600

TRANSIENT_MESSAGES = re.compile(
    r"unable to contact slurm controller|socket timed out|temporarily unable|connection (refused|timed out|failure)"
    r"|slurm backup controller|submit limit|SubmitJobsPerUser|MaxSubmitJob|zero bytes were transmitted",
    re.IGNORECASE,
)
"""What a command says when the same one may succeed a little later."""

UNFIT_MESSAGES = re.compile(
    r"node configuration is not available|node count specification invalid|licen[cs]e|cpu count per node", re.IGNORECASE
)
"""What sbatch says of a job that is too large for this cluster."""


class SlurmCommandError(Exception):
    """A command of Slurm failed, with what it printed."""

    @property
    def is_transient(self) -> bool:
        """Whether the controller did not answer, or takes no more jobs just now."""
        return TRANSIENT_MESSAGES.search(str(self)) is not None

    @property
    def is_unfit(self) -> bool:
        """Whether no node could ever run the job that was refused."""
        return UNFIT_MESSAGES.search(str(self)) is not None


@dataclass(frozen=True)
class QueueEntry:
    """A job in the queue or ended a short while ago: `state` and `reason` as squeue names them, `limit` in seconds."""

    job_id: str
    state: str
    reason: str
    limit: float | None
    folder: Path


def require_commands() -> None:
    """MachineError unless Slurm's commands are on this machine."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        raise MachineError(
            "There is no Slurm on this machine.",
            why=f"The command {missing[0]} is not found.",
            remedy="Start autotune on a host that submits jobs, such as the cluster's login node.",
        )


def submit(options: Sequence[str], script: str) -> str:
    """Submit a script; the id of its job. SlurmCommandError if it is refused."""
    output = run_command("sbatch", "--parsable", *options, standard_input=script)
    # ID, or ID;CLUSTER; a site's plugin may print lines before
    words = output.split()
    job_id = words[-1].partition(";")[0] if words else ""
    if not job_id.isdigit():
        raise SlurmCommandError(f"sbatch answered '{shorten_middle(output.strip(), 200)}', which is no id of a job")
    return job_id


def check_submission(options: Sequence[str], script: str) -> None:
    """SlurmCommandError if sbatch would refuse the script; submits nothing."""
    run_command("sbatch", "--test-only", *options, standard_input=script)


def queue() -> dict[str, QueueEntry]:
    """This user's jobs of autotune by id, with those that ended within the controller's memory (MinJobAge)."""
    form = "%i|%T|%r|%l|%Z"
    output = run_command(
        "squeue", "--me", "--noheader", "--states=all", f"--name={JOB_NAME}", "--array", f"--format={form}"
    )
    entries = {}
    for line in output.splitlines():
        fields = line.strip().split("|", 4)
        if len(fields) == 5:
            job_id, state, reason, limit, folder = fields
            entries[job_id] = QueueEntry(job_id, state, reason, seconds_of(limit), Path(folder))
    return entries


def job_details(job_id: str) -> dict[str, str]:
    """What the controller knows of a job, such as ExitCode and BatchHost; empty where it has forgotten it."""
    try:
        output = run_command("scontrol", "--oneliner", "show", "job", job_id)
    except SlurmCommandError:
        return {}
    return dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", output))


def node_reason(node: str) -> str:
    """Why a node is down or drained, as its administrator says; empty where nothing is known."""
    try:
        output = run_command("scontrol", "--oneliner", "show", "node", node)
    except SlurmCommandError:
        return ""
    match = re.search(r"\bReason=(.*?)(?: \[\S+@\S+\]|\s\w+=|$)", output)
    return match[1].strip() if match else ""


def cancel(job_ids: Iterable[str]) -> None:
    """End jobs; one that has ended already is no error. SlurmCommandError if the controller does not answer."""
    chosen = sorted(set(job_ids))
    if not chosen:
        return
    try:
        run_command("scancel", *chosen)
    except SlurmCommandError as error:
        if error.is_transient:
            raise


def run_command(*command: str, standard_input: str = "") -> str:
    """The standard output of a command; SlurmCommandError if it fails or does not end in time."""
    # the formats of times and names that squeue prints are the user's choice
    own_formats = ("SQUEUE_", "SLURM_TIME_FORMAT")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own_formats)}
    try:
        done = subprocess.run(
            command,
            input=standard_input,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SlurmCommandError(f"{command[0]}: socket timed out, after {COMMAND_SECONDS:.0f} s") from error
    except OSError as error:
        raise SlurmCommandError(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        text = " ".join((done.stderr or done.stdout).split()) or f"{command[0]} ended with status {done.returncode}"
        raise SlurmCommandError(shorten_middle(text, MAX_MESSAGE_CHARACTERS))
    return done.stdout


def machine_error(purpose: str, error: SlurmCommandError) -> MachineError:
    """The error of a command as a paragraph."""
    if error.is_transient:
        return MachineError(
            f"Slurm does not answer, and was asked to {purpose}.",
            why=as_sentence(str(error)),
            remedy="Look whether `squeue` works; then continue with --resume, which finds the jobs that still run.",
        )
    return MachineError(
        f"Slurm refused to {purpose}.",
        why=as_sentence(str(error)),
        remedy="Correct --partition, --account, --time-limit and deployment.slurm until sbatch takes them; `sinfo` "
        "and `sacctmgr show associations user=$USER` list what there is.",
    )


def seconds_of(limit: str) -> float | None:
    """The seconds of a limit as squeue prints it, [D-]H:MM:SS or M:SS; None for UNLIMITED and other words."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
