"""The folder of a trial's job, beside the trial's own: what the job is to do, and what it says while it does it.

trials/001.slurm/job.json    the candidate, when it was submitted, and the job's id
trials/001.slurm/work        what the job runs, pickled
trials/001.slurm/messages    what the job says, appended: progress, log records and in the end the trial
trials/001.slurm/slurm.log   what it prints
trials/001.slurm/files/      the trial's logs and records, moved to its folder when it has ended

A resumed run empties the folder of an unfinished trial, but not this one, so that it finds a job that went on.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import autotuner
from autotuner.core import Candidate, Observer, Purpose
from autotuner.evaluate.protocol import Evaluator
from autotuner.output_files import write_whole
from autotuner.search.launch import Launch

SUFFIX = ".slurm"
JOB_FILE, WORK_FILE, MESSAGES_FILE, LOG_FILE, FILES_FOLDER = "job.json", "work", "messages", "slurm.log", "files"

SIZE_BYTES = 8
"""Before each message: its size, so that a reader sees where one that is being written ends."""


@dataclass(frozen=True)
class JobWork:
    """What a job does: everything is pickled. `gpu_count` GPUs are locked on its host, of those that Slurm gave it."""

    create_evaluator: Callable[[Observer], Evaluator]
    number: int
    launch: Launch
    gpu_count: int
    log_level: int


@dataclass(frozen=True)
class JobStarted:
    """The first message: the job runs, on `host` since `time` (Unix seconds)."""

    host: str
    time: float


@dataclass(frozen=True)
class JobRecord:
    """What is written down of a job before it is submitted, and its id afterwards; `submitted` in Unix seconds."""

    runtime: str
    parameters: dict[str, Any]
    purpose: Purpose
    submitted: float
    version: str = autotuner.__version__
    job_id: str = ""

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.runtime, self.parameters)


class JobFolder:
    """The files of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_bytes = 0

    @classmethod
    def beside(cls, trial_folder: Path) -> JobFolder:
        """The folder of a trial's job."""
        return cls(trial_folder.with_name(f"{trial_folder.name}{SUFFIX}"))

    @classmethod
    def all_in(cls, trials: Path) -> list[JobFolder]:
        """The folders of jobs that are in a run's folder of trials."""
        return [cls(path) for path in sorted(trials.glob(f"*{SUFFIX}")) if path.is_dir()]

    @property
    def files(self) -> Path:
        return self.path / FILES_FOLDER

    @property
    def log(self) -> Path:
        return self.path / LOG_FILE

    def create(self, work: JobWork, record: JobRecord) -> None:
        """Make the folder anew, with what the job is to do."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True, mode=0o700)
        (self.path / WORK_FILE).write_bytes(pickle.dumps(work))
        self.save(record)

    def work(self) -> JobWork:
        """What the job is to do."""
        work = pickle.loads((self.path / WORK_FILE).read_bytes())  # written by this user, as the folder shows
        assert isinstance(work, JobWork)
        return work

    def save(self, record: JobRecord) -> None:
        write_whole(self.path / JOB_FILE, json.dumps(asdict(record)).encode())

    def record(self) -> JobRecord | None:
        """What was written down of the job; None where there is nothing, or something else."""
        try:
            return JobRecord(**json.loads((self.path / JOB_FILE).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    @contextlib.contextmanager
    def sender(self) -> Iterator[Callable[[Any], None]]:
        """What appends a message; threads may call it at once. FileExistsError if the job has been started before."""
        lock = threading.Lock()
        with (self.path / MESSAGES_FILE).open("xb") as file:

            def send(message: Any) -> None:
                data = pickle.dumps(message)
                with lock:
                    file.write(len(data).to_bytes(SIZE_BYTES, "big") + data)
                    file.flush()

            yield send

    def new_messages(self) -> Iterator[Any]:
        """The messages that were not read before; one that is being written is left for the next time.

        The file is opened each time: only then does a shared file system show what another host has written.
        """
        try:
            with (self.path / MESSAGES_FILE).open("rb") as file:
                file.seek(self._read_bytes)
                data = file.read()
        except FileNotFoundError:
            return
        position = 0
        while len(data) >= position + SIZE_BYTES:
            end = position + SIZE_BYTES + int.from_bytes(data[position : position + SIZE_BYTES], "big")
            if len(data) < end:
                return
            message = pickle.loads(data[position + SIZE_BYTES : end])
            self._read_bytes += end - position
            position = end
            yield message

    def all_messages(self) -> list[Any]:
        """Every message, as `new_messages` of a reader that has read none."""
        return list(JobFolder(self.path).new_messages())

    def last_lines(self, count: int = 3) -> str:
        """The end of what the job printed, on one line; empty where it printed nothing."""
        try:
            lines = self.log.read_text("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return " ".join(line.strip() for line in [line for line in lines if line.strip()][-count:])

    def move_files(self, trial_folder: Path) -> None:
        """Move logs and records into the folder of the trial, and remove this one."""
        trial_folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            for path in self.files.iterdir():
                path.replace(trial_folder / path.name)
        with contextlib.suppress(FileNotFoundError):
            self.log.replace(trial_folder / LOG_FILE)
        self.remove()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
