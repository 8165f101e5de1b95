"""Trials side by side: their GPUs, their messages, and how they end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from autotuner.core import Candidate, FailureKind, Progress, Trial, Value
from autotuner.execute.parallel import ParallelExecutor
from autotuner.search.launch import Launch
from tests.execute.evaluators import ScriptedEvaluator

pytestmark = pytest.mark.processes


def executor(limit: int = 3, **options: Any) -> ParallelExecutor:
    return ParallelExecutor(
        ScriptedEvaluator,
        limit,
        options.pop("observe", lambda progress: None),
        source="simulated",
        gpu_count=lambda candidate: candidate.gpus,
        **options,
    )


def launch(**parameters: Value) -> Launch:
    return Launch(Candidate("sim", {name.replace("_", "-"): value for name, value in parameters.items()}))


def finish(running: ParallelExecutor, count: int) -> dict[int, Trial]:
    trials = [running.wait_for_trial() for _ in range(count)]
    return {trial.number: trial for trial in trials if trial is not None}


def devices(trial: Trial) -> set[int]:
    return set(trial.measurement.server["devices"])


def test_trials_run_at_the_same_time_on_disjoint_gpus(tmp_path: Path) -> None:
    with executor(3, devices=(0, 1, 2, 3)) as running:
        running.submit(1, launch(announces="1", awaits="2"), tmp_path / "a")
        running.submit(2, launch(announces="2", awaits="3", tp_size=2), tmp_path / "b")
        running.submit(3, launch(announces="3", awaits="1"), tmp_path / "c")
        assert not running.has_room
        trials = finish(running, 3)
    held = [devices(trials[number]) for number in (1, 2, 3)]
    assert [len(indexes) for indexes in held] == [1, 2, 1]
    assert set.union(*held) == {0, 1, 2, 3}
    assert [trials[number].parallel_trials for number in (1, 2, 3)] == [(2, 3), (1, 3), (1, 2)]


def test_a_trial_waits_until_its_gpus_are_free(tmp_path: Path) -> None:
    with executor(3, devices=(0, 1)) as running:
        running.submit(1, launch(awaits="go"), tmp_path / "1")
        running.submit(2, launch(tp_size=2), tmp_path / "2")
        (tmp_path / "go").touch()
        trials = finish(running, 2)
    assert devices(trials[2]) == {0, 1}
    assert trials[2].started >= trials[1].ended
    assert trials[2].parallel_trials == ()


def test_the_closest_free_gpus_are_taken(tmp_path: Path) -> None:
    with executor(2, devices=(0, 1, 2, 3), closest_first=lambda indexes: sorted(indexes, reverse=True)) as running:
        running.submit(1, launch(tp_size=2), tmp_path / "1")
        assert devices(finish(running, 1)[1]) == {2, 3}


def test_a_process_that_is_killed_fails_its_trial_alone(tmp_path: Path) -> None:
    with executor(2) as running:
        running.submit(1, launch(act="die"), tmp_path / "1")
        running.submit(2, launch(x=1), tmp_path / "2")
        trials = finish(running, 2)
    failure = trials[1].measurement.failure
    assert failure is not None
    assert failure.kind is FailureKind.INTERNAL
    assert "ended with status -9" in failure.message
    assert not trials[2].failed


def test_leaving_the_block_lets_running_trials_clean_up(tmp_path: Path) -> None:
    seen: list[Progress] = []
    with executor(2, observe=seen.append) as running:
        running.submit(1, launch(awaits="never"), tmp_path / "1")
        running.submit(2, launch(x=1), tmp_path / "2")
        finish(running, 1)
        processes = [trial.process for trial in running._running]
        while not any(progress.trial_number == 1 for progress in seen):
            running._receive(running._running[0])
    assert [process.returncode for process in processes] == [130]
    assert (tmp_path / "1" / "cleaned-up").exists()


def test_progress_and_log_records_of_all_trials_arrive(tmp_path: Path, caplog: Any) -> None:
    seen: list[Progress] = []
    with caplog.at_level(logging.DEBUG, logger="autotuner"), executor(2, observe=seen.append) as running:
        running.submit(1, launch(x=1), tmp_path / "1")
        running.submit(2, launch(x=2), tmp_path / "2")
        finish(running, 2)
    assert sorted(progress.trial_number for progress in seen) == [1, 2]
    assert sorted(caplog.messages) == ["trial 1 on ()", "trial 2 on ()"]


def test_in_virtual_time_trials_hold_no_more_gpus_than_there_are(tmp_path: Path) -> None:
    with executor(3, in_virtual_time=True, devices=(0, 1)) as running:
        running.submit(1, launch(awaits="go", tp_size=2), tmp_path / "1")
        running.submit(2, launch(x=2), tmp_path / "2")
        running.submit(3, launch(tp_size=4), tmp_path / "3")
        assert len(running._running) == 1
        (tmp_path / "go").touch()
        trials = finish(running, 3)
    first, second, third = (trials[number] for number in (1, 2, 3))
    assert first.ended <= second.started <= second.ended <= third.started
    assert devices(third) == {0, 1}


def test_in_virtual_time_a_trial_starts_where_the_one_before_it_in_its_place_ended(tmp_path: Path) -> None:
    with executor(2, in_virtual_time=True) as running:
        running.submit(1, launch(awaits="go"), tmp_path / "1")
        running.submit(2, launch(x=2), tmp_path / "2")
        second = finish(running, 1)[2]
        running.submit(3, launch(x=3), tmp_path / "3")
        third = finish(running, 1)[3]
        (tmp_path / "go").touch()
        first = finish(running, 1)[1]
    assert first.started == second.started
    assert third.started == second.ended
