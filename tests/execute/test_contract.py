"""The contract of every executor; `nox -s hosts` holds a real Slurm and a real Ray to it, else Slurm is a stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from autotuner.core import Candidate, FailureKind, Progress, Value, ignore_progress
from autotuner.errors import MachineError, RunStoreError
from autotuner.execute.parallel import ParallelExecutor
from autotuner.execute.ray_executor import RayExecutor
from autotuner.execute.remote import RemoteWork
from autotuner.execute.serial import SerialExecutor
from autotuner.execute.slurm.executor import SlurmExecutor
from autotuner.experiment import RaySettings, SlurmSettings
from autotuner.search.launch import Launch
from tests.execute.evaluators import ScriptedEvaluator
from tests.execute.stand_in_slurm import StandInSlurm
from tests.hosts import ray_cluster, slurm_cluster

pytestmark = pytest.mark.processes


def create(
    name: str, observe: Callable[[Progress], None], **options: Any
) -> SerialExecutor | ParallelExecutor | SlurmExecutor | RayExecutor:
    if name == "ray":
        return RayExecutor(remote_work(observe), RaySettings(address=ray_cluster.shared().address))
    if name == "slurm":
        return SlurmExecutor(remote_work(observe), SlurmSettings(), poll_seconds=0.2, look_seconds=0.02)
    if name == "serial":
        return SerialExecutor(ScriptedEvaluator(observe), options.get("devices", ()))
    return ParallelExecutor(ScriptedEvaluator, int(name), observe, source="simulated", **options)


def remote_work(observe: Callable[[Progress], None]) -> RemoteWork:
    return RemoteWork(ScriptedEvaluator, 2, observe, source="simulated", gpu_count=lambda candidate: 0, time_limit=60.0)


RAY = [pytest.param("ray", marks=pytest.mark.hosts)] if ray_cluster.is_installed() else []


@pytest.fixture(params=["serial", "1", "3", "slurm", *RAY])
def executor_for(request, monkeypatch) -> Iterator[Callable[..., Any]]:
    with ExitStack() as stack:
        if request.param == "slurm" and slurm_cluster.is_set_up():
            stack.enter_context(slurm_cluster.shared())
        elif request.param == "slurm":
            StandInSlurm(monkeypatch)

        def start(observe: Callable[[Progress], None] = ignore_progress, **options: Any) -> Any:
            return stack.enter_context(create(request.param, observe, **options))

        yield start


def launch(**parameters: Value) -> Launch:
    return Launch(Candidate("sim", parameters), "baseline")


def test_a_submitted_launch_becomes_a_trial(executor_for, tmp_path: Path) -> None:
    seen: list[Progress] = []
    executor = executor_for(seen.append)
    assert executor.wait_for_trial() is None
    assert executor.has_room
    executor.submit(7, launch(x=1), tmp_path / "7")
    trial = executor.wait_for_trial()
    assert (trial.number, trial.candidate, trial.purpose) == (7, launch(x=1).candidate, "baseline")
    assert (trial.measurement.server["devices"], trial.measurement.server["load_point"]) == ([], "D(1,1) @ 1")
    assert [path.name for path in (tmp_path / "7").iterdir() if path.suffix != ".log"] == ["cleaned-up"]
    assert trial.started <= trial.ended
    assert [(progress.stage, progress.trial_number) for progress in seen] == [("starting", 7)]
    assert executor.has_room
    assert executor.wait_for_trial() is None


def test_it_takes_launches_while_it_has_room_and_returns_each_once(executor_for, tmp_path: Path) -> None:
    executor = executor_for()
    numbers: list[int] = []
    submitted = 0
    while len(numbers) < 5:
        while executor.has_room and submitted < 5:
            submitted += 1
            executor.submit(submitted, launch(x=submitted), tmp_path / str(submitted))
        numbers.append(executor.wait_for_trial().number)
    assert sorted(numbers) == [1, 2, 3, 4, 5]


def test_an_internal_error_fails_one_trial_and_is_saved(executor_for, tmp_path: Path) -> None:
    executor = executor_for()
    executor.submit(1, launch(act="zero"), tmp_path / "1")
    failure = executor.wait_for_trial().measurement.failure
    assert (failure.kind, failure.message) == (FailureKind.INTERNAL, "ZeroDivisionError: division by zero")
    assert "Traceback" in (tmp_path / "1" / "internal-error.txt").read_text()
    assert str(tmp_path) in failure.remedy


LIMITS = "Raise the limits of this shell, which `ulimit -a` shows, or end other programs."


@pytest.mark.parametrize(
    ("act", "error", "parts"),
    [
        ("machine", MachineError, ("no vllm", "It is not installed.", "Install it.")),
        ("store", RunStoreError, ("not a run", "", "")),
        ("files", MachineError, ("The operating system refuses what a run takes.", "Too many open files.", LIMITS)),
    ],
)
def test_an_error_that_would_hit_every_candidate_ends_the_run(executor_for, tmp_path, act, error, parts) -> None:
    executor = executor_for()
    executor.submit(1, launch(act=act), tmp_path / "1")
    with pytest.raises(error) as caught:
        executor.wait_for_trial()
    assert (caught.value.what, caught.value.why, caught.value.remedy) == parts


def test_a_full_disk_ends_the_run_with_a_remedy(executor_for, tmp_path: Path) -> None:
    executor = executor_for()
    executor.submit(1, launch(act="disk"), tmp_path / "1")
    with pytest.raises(RunStoreError, match="No space left on device") as caught:
        executor.wait_for_trial()
    assert "--resume" in caught.value.remedy
