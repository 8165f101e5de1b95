"""One trial: a launch evaluated on given GPUs, with the boundary that keeps an internal error inside it."""

from __future__ import annotations

import contextlib
import copy
import errno
import logging
import traceback
from dataclasses import replace
from pathlib import Path

from autotuner.core import Failure, FailureKind, Measurement, Trial
from autotuner.errors import EXHAUSTED_ERRNOS, AutotuneError, MachineError, RunStoreError, machine_fault
from autotuner.evaluate.measured import MeasuredEvaluator
from autotuner.evaluate.protocol import Evaluator
from autotuner.experiment import CLUSTER_MODES
from autotuner.redaction import redact, write_redacted
from autotuner.search.launch import Launch, ListedLoads

log = logging.getLogger(__name__)

ERROR_FILE = "internal-error.txt"
SERVER_LOG = "server.log"

MAX_EVICTIONS = 3
"""Launches of one trial that a cluster may end, by eviction, preemption or the loss of a node, before the run ends."""

UNWRITABLE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a file system that is full or read-only, which would hit every other trial too."""


def run_trial(evaluator: Evaluator, number: int, launch: Launch, folder: Path, devices: tuple[int, ...] = ()) -> Trial:
    """Evaluate a launch as trial `number` on the GPUs with the indexes `devices`, empty for any.

    Logs and raw records go to `folder`. An unexpected exception fails the trial; AutotuneError is raised, as it
    would hit every other trial too.
    """
    start_time = evaluator.clock()
    try:
        measurement = _evaluate(evaluator, number, launch, folder, devices)
    except AutotuneError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE_ERRNOS:
            raise RunStoreError(
                f"The trial's folder '{folder}' cannot be written.",
                why=f"{error.strerror}.",
                remedy="Free some space, and continue with --resume.",
            ) from error
        if isinstance(error, OSError) and error.errno in EXHAUSTED_ERRNOS and (fault := machine_fault(error)):
            raise fault from error
        measurement = Measurement(evaluator.source, (), _internal_failure(error, folder))
    return Trial(number, launch.candidate, measurement, start_time, evaluator.clock(), launch.purpose)


def _evaluate(evaluator: Evaluator, number: int, launch: Launch, folder: Path, devices: tuple[int, ...]) -> Measurement:
    """Evaluate a launch, again from its start when the cluster has ended its pod, which says nothing of the candidate.

    MachineError if that has happened MAX_EVICTIONS times.
    """
    first_plan = launch.load_plan or ListedLoads(evaluator.workload)
    message = ""
    for attempt in range(1, MAX_EVICTIONS + 1):
        load_plan = copy.deepcopy(first_plan) if may_be_evicted(evaluator) else first_plan
        measurement = evaluator.evaluate(launch.candidate, load_plan, folder, number, launch.purpose, devices)
        if measurement.failure is None or measurement.failure.kind is not FailureKind.EVICTED:
            return replace(measurement, outcome=replace(load_plan.outcome, max_load_points=load_plan.max_load_points))
        message = redact(measurement.failure.message)
        log.warning("trial %d: %s", number, message)
        with contextlib.suppress(FileNotFoundError):
            (folder / SERVER_LOG).replace(folder / f"server-evicted-{attempt}.log")
    raise MachineError(
        f"The cluster ended the pod of trial {number} {MAX_EVICTIONS} times.",
        why=message,
        remedy="Find out why, with `kubectl get events` or its administrator, and continue with --resume.",
    )


def may_be_evicted(evaluator: Evaluator) -> bool:
    """Whether something other than the server or the user may end a server, as a cluster does."""
    return isinstance(evaluator, MeasuredEvaluator) and evaluator.experiment.deployment.mode in CLUSTER_MODES


def _internal_failure(error: Exception, folder: Path) -> Failure:
    folder.mkdir(parents=True, exist_ok=True)
    report_path = folder / ERROR_FILE
    write_redacted(report_path, "".join(traceback.format_exception(error)))
    return Failure(
        FailureKind.INTERNAL,
        redact(f"{type(error).__name__}: {error}"),
        f"This is a bug in autotune; please report it with {report_path}.",
    )
