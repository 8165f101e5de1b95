"""One launch at a time, in this process."""

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


class SerialExecutor:
    """Evaluates the submitted launch when its result is asked for."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self._pending: list[tuple[int, Launch, Path]] = []

    @property
    def has_room(self) -> bool:
        """Whether no launch is waiting."""
        return not self._pending

    def submit(self, number: int, launch: Launch, folder: Path) -> None:
        """Take a launch on as trial `number`, with a folder for what it leaves behind."""
        self._pending.append((number, launch, folder))

    def wait_for_trial(self) -> Trial | None:
        """Evaluate the next launch to its end; None when there is none."""
        if not self._pending:
            return None
        number, launch, folder = self._pending.pop(0)
        started = self.evaluator.clock()
        measurement = self._evaluate(number, launch, folder)
        return Trial(number, launch.candidate, measurement, started, self.evaluator.clock(), launch.purpose)

    def _evaluate(self, number: int, launch: Launch, folder: Path) -> Measurement:
        """The trial boundary: a fault of autotune itself costs one trial, not the run."""
        try:
            course = launch.load_plan or ListedLoads(self.evaluator.workload)
            measurement = self.evaluator.evaluate(launch.candidate, course, folder, number, launch.purpose)
            return replace(measurement, outcome=course.outcome)
        except AutotuneError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in UNWRITABLE_ERRNOS:
                raise RunStoreError(
                    f"The trial's folder '{folder}' cannot be written.",
                    why=f"{error.strerror}.",
                    remedy="Free some space, and go on with --resume.",
                ) from error
            return Measurement(self.evaluator.source, (), _internal_failure(error, folder))


def _internal_failure(error: Exception, folder: Path) -> Failure:
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "internal-error.txt"
    report.write_text("".join(traceback.format_exception(error)))
    return Failure(
        FailureKind.INTERNAL,
        f"{type(error).__name__}: {error}",
        f"This is a fault of autotune; please report it with {report}.",
    )
