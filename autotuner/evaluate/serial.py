"""Evaluates launches one at a time, in this process."""

from __future__ import annotations

import errno
import traceback
from dataclasses import replace
from pathlib import Path

from autotuner.core import Failure, FailureKind, Measurement, Trial
from autotuner.errors import AutotuneError, RunStoreError
from autotuner.evaluate.protocol import Evaluator
from autotuner.search.launch import Launch, ListedLoads

UNWRITABLE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a file system that is full or read-only, which would hit every other trial too."""


class SerialExecutor:
    """Evaluates a submitted launch when its trial is waited for."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self._pending: list[tuple[int, Launch, Path]] = []

    @property
    def has_room(self) -> bool:
        """Whether another launch can be submitted."""
        return not self._pending

    def submit(self, number: int, launch: Launch, folder: Path) -> None:
        """Queue a launch as trial `number`, whose logs and records go to `folder`."""
        self._pending.append((number, launch, folder))

    def wait_for_trial(self) -> Trial | None:
        """Evaluate the queued launch; None if there is none."""
        if not self._pending:
            return None
        number, launch, folder = self._pending.pop(0)
        start_time = self.evaluator.clock()
        measurement = self._evaluate(number, launch, folder)
        return Trial(number, launch.candidate, measurement, start_time, self.evaluator.clock(), launch.purpose)

    def _evaluate(self, number: int, launch: Launch, folder: Path) -> Measurement:
        """Evaluate a launch; an unexpected exception fails this trial and not the run."""
        try:
            load_plan = launch.load_plan or ListedLoads(self.evaluator.workload)
            measurement = self.evaluator.evaluate(launch.candidate, load_plan, folder, number, launch.purpose)
            return replace(measurement, outcome=load_plan.outcome)
        except AutotuneError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in UNWRITABLE_ERRNOS:
                raise RunStoreError(
                    f"The trial's folder '{folder}' cannot be written.",
                    why=f"{error.strerror}.",
                    remedy="Free some space, and continue with --resume.",
                ) from error
            return Measurement(self.evaluator.source, (), _internal_failure(error, folder))


def _internal_failure(error: Exception, folder: Path) -> Failure:
    folder.mkdir(parents=True, exist_ok=True)
    report_path = folder / "internal-error.txt"
    report_path.write_text("".join(traceback.format_exception(error)))
    return Failure(
        FailureKind.INTERNAL,
        f"{type(error).__name__}: {error}",
        f"This is a bug in autotune; please report it with {report_path}.",
    )
