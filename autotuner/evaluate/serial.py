"""One candidate at a time, in this process."""

from __future__ import annotations

import errno
import time
import traceback
from pathlib import Path

from autotuner.core import Candidate, Failure, FailureKind, Measurement, Trial
from autotuner.errors import AutotuneError, RunStoreError
from autotuner.evaluate.protocol import Evaluator

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class SerialExecutor:
    """Evaluates the submitted candidate when its result is asked for."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self._waiting: list[tuple[int, Candidate, Path]] = []

    @property
    def has_room(self) -> bool:
        """Whether no candidate is waiting."""
        return not self._waiting

    def submit(self, number: int, candidate: Candidate, folder: Path) -> None:
        """Take a candidate on as trial `number`, with a folder for what it leaves behind."""
        self._waiting.append((number, candidate, folder))

    def next_finished(self) -> Trial | None:
        """Evaluate the next candidate to its end; None when there is none."""
        if not self._waiting:
            return None
        number, candidate, folder = self._waiting.pop(0)
        started = time.time()
        measurement = self._evaluate(number, candidate, folder)
        return Trial(number, candidate, measurement, started, time.time())

    def _evaluate(self, number: int, candidate: Candidate, folder: Path) -> Measurement:
        """The trial boundary: a fault of autotune itself costs one trial, not the run."""
        try:
            return self.evaluator.evaluate(candidate, self.evaluator.workload, folder, number)
        except AutotuneError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise RunStoreError(
                    f"The trial's folder '{folder}' cannot be written.",
                    why=f"{error.strerror}.",
                    remedy="Free some space, and go on with --resume.",
                ) from error
            return Measurement(self.evaluator.source, (), _internal(error, folder))


def _internal(error: Exception, folder: Path) -> Failure:
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "internal-error.txt"
    report.write_text("".join(traceback.format_exception(error)))
    return Failure(
        FailureKind.INTERNAL,
        f"{type(error).__name__}: {error}",
        f"This is a fault of autotune; please report it with {report}.",
    )
