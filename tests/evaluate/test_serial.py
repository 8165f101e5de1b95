"""One candidate at a time, and the boundary that keeps a fault inside its trial."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from autotuner.core import Candidate, FailureKind, LoadPoint, Measurement, Purpose, Source, Workload
from autotuner.errors import MachineError, RunStoreError
from autotuner.evaluate.serial import SerialExecutor
from autotuner.search.launch import Launch, LoadPlan

WORKLOAD = Workload((LoadPoint("D(1,1)", concurrency=1),))


class Answering:
    """An evaluator that does what it is told."""

    source: Source = "simulated"
    workload = WORKLOAD

    def __init__(self, answer: Callable[[], Measurement]) -> None:
        self.answer = answer
        self.asked: list[tuple[Candidate, LoadPlan, Path, int, Purpose]] = []

    def clock(self) -> float:
        return float(len(self.asked))

    def evaluate(
        self, candidate: Candidate, course: LoadPlan, folder: Path, trial: int = 0, purpose: Purpose = "search"
    ) -> Measurement:
        self.asked.append((candidate, course, folder, trial, purpose))
        return self.answer()


def failing(error: BaseException) -> Answering:
    def fail() -> Measurement:
        raise error

    return Answering(fail)


def test_candidates_are_evaluated_in_order_when_asked_for(tmp_path: Path) -> None:
    measurement = Measurement("simulated", ())
    evaluator = Answering(lambda: measurement)
    executor = SerialExecutor(evaluator)
    assert executor.wait_for_trial() is None
    assert executor.has_room
    executor.submit(1, Launch(Candidate("sim", {"tp-size": 1}), "baseline"), tmp_path)
    assert not executor.has_room
    assert evaluator.asked == []
    trial = executor.wait_for_trial()
    assert trial is not None
    assert (trial.number, trial.candidate, trial.measurement) == (1, Candidate("sim", {"tp-size": 1}), measurement)
    assert (trial.started, trial.ended) == (0.0, 1.0)
    (candidate, course, *rest) = evaluator.asked[0]
    assert (candidate, *rest) == (trial.candidate, tmp_path, 1, "baseline")
    step = course.ask()
    assert step is not None
    assert step.workload == WORKLOAD
    assert executor.has_room
    assert executor.wait_for_trial() is None


def test_a_fault_of_autotune_costs_one_trial_and_is_kept(tmp_path: Path) -> None:
    executor = SerialExecutor(failing(ZeroDivisionError("division by zero")))
    executor.submit(1, Launch(Candidate("sim")), tmp_path / "1")
    trial = executor.wait_for_trial()
    assert trial is not None
    assert trial.measurement.source == "simulated"
    failure = trial.measurement.failure
    assert failure is not None
    assert failure.kind is FailureKind.INTERNAL
    assert failure.message == "ZeroDivisionError: division by zero"
    report = (tmp_path / "1" / "internal-error.txt").read_text()
    assert "Traceback" in report
    assert str(tmp_path) in failure.remedy


@pytest.mark.parametrize("error", [MachineError("no vllm"), RunStoreError("not a run"), KeyboardInterrupt()])
def test_what_would_befall_every_candidate_ends_the_run(tmp_path: Path, error: BaseException) -> None:
    executor = SerialExecutor(failing(error))
    executor.submit(1, Launch(Candidate("sim")), tmp_path)
    with pytest.raises(type(error)):
        executor.wait_for_trial()


def test_a_full_disk_ends_the_run_with_a_remedy(tmp_path: Path) -> None:
    executor = SerialExecutor(failing(OSError(errno.ENOSPC, "No space left on device")))
    executor.submit(1, Launch(Candidate("sim")), tmp_path)
    with pytest.raises(RunStoreError, match="No space left on device") as caught:
        executor.wait_for_trial()
    assert "--resume" in caught.value.remedy
