"""One trial: a launch evaluated on given GPUs, with the boundary that keeps an internal error inside it."""

from __future__ import annotations

import errno
import traceback
from dataclasses import replace
from pathlib import Path

from autotuner.core import Failure, FailureKind, Measurement, Trial
from autotuner.errors import AutotuneError, RunStoreError
from autotuner.evaluate.protocol import Evaluator
from autotuner.redaction import redact, write_redacted
from autotuner.search.launch import Launch, ListedLoads

ERROR_FILE = "internal-error.txt"

UNWRITABLE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a file system that is full or read-only, which would hit every other trial too."""


def run_trial(evaluator: Evaluator, number: int, launch: Launch, folder: Path, devices: tuple[int, ...] = ()) -> Trial:
    """Evaluate a launch as trial `number` on the GPUs with the indexes `devices`, empty for any.

    Logs and raw records go to `folder`. An unexpected exception fails the trial; AutotuneError is raised, as it
    would hit every other trial too.
    """
    start_time = evaluator.clock()
    try:
        load_plan = launch.load_plan or ListedLoads(evaluator.workload)
        measurement = evaluator.evaluate(launch.candidate, load_plan, folder, number, launch.purpose, devices)
        outcome = replace(load_plan.outcome, max_load_points=load_plan.max_load_points)
        measurement = replace(measurement, outcome=outcome)
    except AutotuneError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE_ERRNOS:
            raise RunStoreError(
                f"The trial's folder '{folder}' cannot be written.",
                why=f"{error.strerror}.",
                remedy="Free some space, and continue with --resume.",
            ) from error
        measurement = Measurement(evaluator.source, (), _internal_failure(error, folder))
    return Trial(number, launch.candidate, measurement, start_time, evaluator.clock(), launch.purpose)


def _internal_failure(error: Exception, folder: Path) -> Failure:
    folder.mkdir(parents=True, exist_ok=True)
    report_path = folder / ERROR_FILE
    write_redacted(report_path, "".join(traceback.format_exception(error)))
    return Failure(
        FailureKind.INTERNAL,
        redact(f"{type(error).__name__}: {error}"),
        f"This is a bug in autotune; please report it with {report_path}.",
    )
