"""Trials on a real Ray cluster of one node on loopback with four pretended GPUs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import autotuner
from autotuner.core import Candidate, FailureKind, ignore_progress
from autotuner.errors import MachineError
from autotuner.execute import ray_executor
from autotuner.execute.ray_executor import RayExecutor
from autotuner.execute.remote import RemoteWork
from autotuner.experiment import RaySettings
from autotuner.search.launch import Launch
from tests.hosts import ray_cluster
from tests.hosts.gpu_evaluator import GpuEvaluator
from tests.hosts.ray_cluster import RayCluster, descendants, title
from tests.hosts.runs import GRID, RANKED, autotune, ranking, wait_until

pytestmark = pytest.mark.filterwarnings("default")

MEASURED = (
    *GRID,
    *("--runtime", "sim", "--executor", "ray", "--concurrency", "2", "--duration", "4", "--max-duration", "4"),
    *("--set", "parameters.tp-size=[1]", "--set", "parameters.max-running-requests=[8]"),
)


@pytest.fixture
def ray() -> RayCluster:
    return ray_cluster.shared()


def work(limit: int, gpus: int) -> RemoteWork:
    return RemoteWork(GpuEvaluator, limit, ignore_progress, "simulated", lambda candidate: gpus, time_limit=60.0)


def launch(number: int) -> Launch:
    return Launch(Candidate("sim", {"x": number}), "search")


def test_six_trials_of_two_gpus_run_on_gpus_that_no_other_has(ray, tmp_path: Path) -> None:
    trials = []
    with RayExecutor(work(3, gpus=2), RaySettings(address=ray.address)) as executor:
        for number in range(1, 7):
            while not executor.has_room:
                trials.append(executor.wait_for_trial())
            executor.submit(number, launch(number), tmp_path / str(number))
        while (trial := executor.wait_for_trial()) is not None:
            trials.append(trial)
    assert sorted(trial.number for trial in trials) == [1, 2, 3, 4, 5, 6]
    served: list[Any] = [trial.measurement.server for trial in trials]
    assert all(len(set(each["gpus"])) == 2 for each in served)
    for one, other in combinations(served, 2):
        if one["started"] < other["ended"] and other["started"] < one["ended"]:
            assert not set(one["gpus"]) & set(other["gpus"])
    assert all((tmp_path / str(number) / "cleaned-up").exists() for number in range(1, 7))


def test_a_trial_of_more_gpus_than_a_node_has_is_refused_at_once(ray, tmp_path: Path) -> None:
    settings = RaySettings(address=ray.address)
    ray_executor.preflight(settings, 4)
    with pytest.raises(MachineError, match="needs 16 GPUs of one node, and the largest node of the cluster has 4"):
        ray_executor.preflight(settings, 16)
    with RayExecutor(work(1, gpus=16), settings) as executor:
        executor.submit(1, launch(1), tmp_path / "1")
        trial = executor.wait_for_trial()
    assert trial is not None
    assert trial.measurement.failure is not None
    assert trial.measurement.failure.kind is FailureKind.UNSCHEDULABLE


def test_a_node_with_another_version_is_refused(ray, monkeypatch) -> None:
    monkeypatch.setattr(autotuner, "__version__", "0.0.1")
    with pytest.raises(MachineError, match=r"and this is 0\.0\.1"):
        ray_executor.preflight(RaySettings(address=ray.address), 1)


def test_the_ranking_is_that_of_one_process(ray, tmp_path: Path) -> None:
    options = ("--executor", "ray", "--ray-address", ray.address, "--parallel-trials", "3")
    remote = autotune("run", *RANKED, *options, "--json", "--output", "remote", folder=tmp_path)
    local = autotune("run", *RANKED, "--json", "--output", "local", folder=tmp_path)
    assert ranking(remote) == ranking(local)


def start_run(ray: RayCluster, folder: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A run whose only trial has a server: its process, and the trial's Ray worker with all that it started."""
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "autotuner", "run", *MEASURED, "--ray-address", ray.address],
            cwd=folder,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    wait_until(lambda: process.poll() is not None or any("keeper.py" in title(pid) for pid in trial_pids(ray)))
    assert process.poll() is None, (folder / "output").read_text()
    return process, trial_pids(ray)


def trial_pids(ray: RayCluster) -> list[int]:
    """The Ray worker that runs a trial, if one does, and all that it started."""
    for worker in ray.worker_pids():
        below = descendants(worker)
        if any("autotuner.execute.trial_process" in title(pid) for pid in below):
            return [worker, *below]
    return []


def is_running(pid: int) -> bool:
    return bool(title(pid))  # a zombie has none


def test_a_killed_worker_leaves_nothing_and_its_trial_runs_again(ray, tmp_path: Path) -> None:
    process, pids = start_run(ray, tmp_path)
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, pids)))
    assert process.wait(200) == 0, (tmp_path / "output").read_text()
    assert "starts again" in (tmp_path / "output").read_text()
    [trial] = map(json.loads, next(tmp_path.glob("runs/*/trials.jsonl")).read_text().splitlines())
    assert trial["measurement"]["failure"] is None


def test_a_killed_run_leaves_nothing_on_the_cluster(ray, tmp_path: Path) -> None:
    process, pids = start_run(ray, tmp_path)
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_running, pids)))
