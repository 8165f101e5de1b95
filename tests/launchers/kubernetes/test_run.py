"""A whole run on a small cluster whose pods are processes of this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import autotuner
from autotuner.config import TaskContext, compose
from autotuner.launchers.kubernetes import leftovers
from tests.clusters import fake_cluster, write_kubeconfig

pytestmark = pytest.mark.processes


def test_a_run_measures_pods_and_leaves_nothing_on_the_cluster(tmp_path: Path, monkeypatch, on_a_busy_machine) -> None:
    monkeypatch.setattr(leftovers, "notes_folder", lambda: tmp_path / "notes")
    with fake_cluster() as cluster:
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", cluster.url)
        overrides = {
            "deployment": {"kubeconfig": str(kubeconfig)},
            "runtime": {"image": "autotune:1", "executable": sys.executable, "extra_args": ["--load-seconds", "0"]},
            "parameters": {"max-running-requests": [8]},
            "benchmark": {
                "traffic_scenarios": ["D(20,5)"],
                "num_concurrency": [2],
                "duration": 0.3,
                "warmup": 0.0,
                "max_requests": 10,
            },
            "optimization": {"confirm": 0, "baseline": False},
        }
        context = TaskContext(
            model_name="llama-3.1-8b", base_runtime="sim", deployment_mode="kubernetes", user_overrides=overrides
        )
        result = autotuner.run(compose(context), tmp_path / "runs")
        assert not [plural for plural in ("jobs", "pods", "configmaps") if cluster.all(plural)]
        assert "create jobs" in cluster.requests
    (trial,) = result.trials
    assert trial.measurement.failure is None
    assert trial.measurement.load_points
    assert trial.measurement.server["node"] == "gpu-a"
    record = json.loads((result.path / "trials" / f"{trial.number:03d}" / "pod.json").read_text())
    assert "--max-running-requests" in record["args"]
    assert not list(leftovers.read_notes())
