"""What of a trial runs on a Ray cluster: a task that starts the trial's process and passes on what it says.

The process runs server, keeper and load generator on that host, on loopback. It ends, and stops its server first, when
the task is cancelled, when Ray ends it with the run, and when the task's own process is killed.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import platform
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autotuner import owner
from autotuner.core import Observer, Trial
from autotuner.execute.parallel import STOP_SECONDS, open_process
from autotuner.execute.trial import run_trial
from autotuner.execute.trial_process import TrialJob
from autotuner.launchers import gpu_locks
from autotuner.redaction import write_redacted

LOOK_SECONDS = 0.2
"""Between two looks for a message, in which a cancelled task notices it."""

OWNER_FILE = "owner"


@dataclass(frozen=True)
class TrialStarted:
    """A trial has what it asked for: its host, and the GPUs that Ray gave it."""

    host: str
    visible_gpus: str


@dataclass(frozen=True)
class RemoteTrial:
    """A trial with its files, as a zip archive; `folder` is where they were on the host."""

    trial: Trial
    folder: str
    files: bytes


@dataclass(frozen=True)
class ProcessEnded:
    """The trial's process has ended, and all it started with it."""

    status: int


@dataclass(frozen=True)
class RayTrialJob(TrialJob):
    """A trial in a folder of the host's own, which is removed with the process; `gpu_count` GPUs are locked there."""

    gpu_count: int

    def run(self, observe: Observer) -> RemoteTrial:
        """Run the trial; it comes with its files."""
        with host_folder() as parent, gpu_locks.reserve_gpus(self.gpu_count) as devices:
            folder = parent / self.folder.name
            evaluator = self.create_evaluator(observe)
            trial = run_trial(evaluator, self.number, self.launch, folder, devices)
            return RemoteTrial(trial, str(folder), packed(folder))


def run_on_host(job: bytes) -> Iterator[bytes]:
    """Run a pickled `RayTrialJob` in a process of its own, and yield its pickled messages; the task's function."""
    process, connection = open_process()
    try:
        with connection:
            yield pickle.dumps(TrialStarted(platform.node(), os.environ.get("CUDA_VISIBLE_DEVICES", "")))
            with contextlib.suppress(ConnectionError, EOFError):
                connection.send_bytes(job)
                while True:
                    # a cancelled task is interrupted between two steps of Python, and in no system call
                    if connection.poll(LOOK_SECONDS):
                        yield connection.recv_bytes()
        yield pickle.dumps(ProcessEnded(process.wait(STOP_SECONDS)))
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def host_folder() -> Iterator[Path]:
    """A folder for the files of one trial; those that killed processes left are removed first."""
    base = Path(tempfile.gettempdir()) / f"autotune-ray-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    if base.is_symlink() or base.stat().st_uid != os.getuid():
        raise PermissionError(f"{base} belongs to somebody else")
    for earlier_folder in base.iterdir():
        with contextlib.suppress(OSError):
            left_owner = owner.parse((earlier_folder / OWNER_FILE).read_text())
            if left_owner is not None and left_owner.is_gone:
                shutil.rmtree(earlier_folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=base, ignore_cleanup_errors=True) as folder:
        write_redacted(Path(folder) / OWNER_FILE, str(owner.this_process()))
        yield Path(folder)


def packed(folder: Path) -> bytes:
    """The files of a trial as a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path in sorted(folder.rglob("*")) if folder.exists() else ():
            if path.is_file() and not path.is_symlink():
                archive.write(path, path.relative_to(folder))
    return buffer.getvalue()


def unpack(files: bytes, folder: Path) -> None:
    """Write the files of a trial into a folder; none can lie outside it."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(files)) as archive:
        archive.extractall(folder)
