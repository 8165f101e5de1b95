"""Whole runs of the command line on a real control plane, whose pods are processes of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane, objects_of_runs

pytestmark = pytest.mark.cluster

COMMAND = [sys.executable, "-m", "autotuner"]
WAIT = 120

SETTINGS: dict[str, Any] = {
    "model": {"id_or_path": "llama-3.1-8b"},
    "runtime": {"image": "autotune:1", "executable": sys.executable, "extra_args": ["--load-seconds", "0"]},
    "parameters": {"max-running-requests": [4, 8, 16]},
    "optimization": {"strategy": "grid_search", "max_iterations": 3, "confirm": 0, "baseline": False},
    "benchmark": {"traffic_scenarios": ["D(20,5)"], "num_concurrency": [2], "duration": 1.0, "warmup": 0.2},
}


@pytest.fixture
def command(kubeconfig: str, tmp_path: Path) -> Callable[..., list[str]]:
    """The command line of a run with these settings over SETTINGS, and options."""

    def build(*options: str, **settings: Any) -> list[str]:
        request = {"base_runtime": "sim", "profiles": [], "overrides": {**SETTINGS, **settings}}
        path = tmp_path / "request.json"
        path.write_text(json.dumps(request))
        # the simulated engine needs no GPU, and every node keeps such pods off
        cluster = ["--deployment", "kubernetes", "--kubeconfig", kubeconfig, "--toleration", "nvidia.com/gpu"]
        return [*COMMAND, "run", "-f", str(path), "--output", str(tmp_path / "runs"), *cluster, *options]

    return build


def test_three_trials_at_once_are_measured_ranked_and_removed(
    plane: ControlPlane, command: Callable[..., list[str]], tmp_path: Path
) -> None:
    words = command("--parallel-trials", "3", "--share-nodes", "--json")
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    folder = Path(result["run"])
    pods = [json.loads(path.read_text()) for path in sorted(folder.glob("trials/*/pod.json"))]
    assert len(pods) == 3
    assert {pod["node"] for pod in pods} <= {"gpu-a", "gpu-b"}
    assert all("--max-running-requests" in pod["args"] for pod in pods)
    trials = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert [trial["measurement"]["failure"] for trial in trials if "measurement" in trial] == [None] * 3
    assert objects_of_runs(plane) == []


def test_a_killed_run_leaves_nothing_once_it_is_cleaned(
    plane: ControlPlane, command: Callable[..., list[str]], tmp_path: Path
) -> None:
    long_points = {**SETTINGS["benchmark"], "duration": 60.0}
    with (tmp_path / "output").open("wb") as output:
        run = subprocess.Popen(command(benchmark=long_points), cwd=tmp_path, stdout=output, stderr=output)
    try:
        _wait_until(
            lambda: run.poll() is not None or any(name.startswith("at-") for name in objects_of_runs(plane)),
            "no Job was made",
        )
        assert run.poll() is None, (tmp_path / "output").read_text()
    finally:
        run.kill()
        run.wait()
    assert objects_of_runs(plane)
    cleaned = subprocess.run([*COMMAND, "clean"], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert cleaned.returncode == 0, cleaned.stderr
    _wait_until(lambda: objects_of_runs(plane) == [], "objects of the killed run are still there")


def _wait_until(is_so: Callable[[], bool], message: str) -> None:
    deadline = time.monotonic() + WAIT
    while not is_so():
        assert time.monotonic() < deadline, message
        time.sleep(0.2)
