"""What a job of Slurm runs: `python -m autotuner.execute.slurm.job FOLDER` evaluates the trial of that folder.

It ends on SIGTERM, by which Slurm cancels and ends jobs; its server is stopped first.
"""

from __future__ import annotations

import logging
import platform
import signal
import sys
from pathlib import Path
from typing import Any

import autotuner
from autotuner.core import Progress
from autotuner.errors import AutotuneError, MachineError
from autotuner.evaluate.clock import steady_unix_time
from autotuner.execute.slurm.job_folder import JobFolder, JobStarted
from autotuner.execute.trial import run_trial
from autotuner.execute.trial_process import INTERRUPTED_STATUS, ConnectionLogHandler
from autotuner.launchers import gpu_locks


def main(path: Path) -> int:
    """Run the work of a job's folder until its end or SIGTERM; the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return run_work(JobFolder(path))
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS


def run_work(folder: JobFolder) -> int:
    """Run the work of a job's folder, with all that is to be told of it as messages; the exit status."""
    record = folder.record()
    log = logging.getLogger("autotuner")
    with folder.sender() as send:
        if record is None or record.version != autotuner.__version__:
            send(_other_version(record.version if record else "another version"))
            return MachineError.exit_code
        work = folder.work()
        send(JobStarted(platform.node(), steady_unix_time()))

        def observe(progress: Progress) -> None:
            send(progress)

        handler = ConnectionLogHandler(send)
        log.setLevel(work.log_level)
        log.addHandler(handler)
        try:
            with gpu_locks.reserve_gpus(work.gpu_count) as devices:
                evaluator = work.create_evaluator(observe)
                send(run_trial(evaluator, work.number, work.launch, folder.files, devices))
        except AutotuneError as error:
            send(_sendable(error))
        finally:
            log.removeHandler(handler)
    return 0


def _other_version(version: str) -> MachineError:
    return MachineError(
        f"The node {platform.node()} has autotune {autotuner.__version__}, and the run is of {version}.",
        remedy="Install the same version there, or name the right Python with deployment.slurm.python.",
    )


def _sendable(error: AutotuneError) -> AutotuneError:
    """The error, or one that says the same where its class is made from something else than texts."""
    if type(error).__init__ is AutotuneError.__init__:
        return error
    return MachineError(error.what, why=error.why, remedy=error.remedy)


def _interrupt(signum: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the cleaning up
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
