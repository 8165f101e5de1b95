"""One launch at a time, and the boundary that keeps an internal error inside its trial."""

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


class FakeEvaluator:
    """An evaluator that returns what `measure` does."""

    source: Source = "simulated"
    workload = WORKLOAD

    def __init__(self, measure: Callable[[], Measurement]) -> None:
        self.measure = measure
        self.calls: list[tuple[Candidate, LoadPlan, Path, int, Purpose]] = []

    def clock(self) -> float:
        return float(len(self.calls))

    def evaluate(
        self, candidate: Candidate, load_plan: LoadPlan, folder: Path, trial: int = 0, purpose: Purpose = "search"
    ) -> Measurement:
        self.calls.append((candidate, load_plan, folder, trial, purpose))
        return self.measure()


def failing(error: BaseException) -> FakeEvaluator:
    def fail() -> Measurement:
        raise error

    return FakeEvaluator(fail)


def test_launches_are_evaluated_in_order_when_waited_for(tmp_path: Path) -> None:
    measurement = Measurement("simulated", ())
    evaluator = FakeEvaluator(lambda: measurement)
    executor = SerialExecutor(evaluator)
    assert executor.wait_for_trial() is None
    assert executor.has_room
    executor.submit(1, Launch(Candidate("sim", {"tp-size": 1}), "baseline"), tmp_path)
    assert not executor.has_room
    assert evaluator.calls == []
    trial = executor.wait_for_trial()
    assert trial is not None
    assert (trial.number, trial.candidate, trial.measurement) == (1, Candidate("sim", {"tp-size": 1}), measurement)
    assert (trial.started, trial.ended) == (0.0, 1.0)
    (candidate, load_plan, *rest) = evaluator.calls[0]
    assert (candidate, *rest) == (trial.candidate, tmp_path, 1, "baseline")
    step = load_plan.ask()
    assert step is not None
    assert step.workload == WORKLOAD
    assert executor.has_room
    assert executor.wait_for_trial() is None


def test_an_internal_error_fails_one_trial_and_is_saved(tmp_path: Path) -> None:
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
def test_an_error_that_would_hit_every_candidate_ends_the_run(tmp_path: Path, error: BaseException) -> None:
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
