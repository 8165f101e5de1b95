"""A trial of a run on a small cluster whose pods are processes of this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from autotuner.core import ignore_progress
from autotuner.launchers.kubernetes import leftovers
from autotuner.run_setup import RunSetup
from autotuner.search.launch import Launch
from tests import factories
from tests.clusters import fake_cluster, write_kubeconfig

pytestmark = pytest.mark.processes


def test_a_trial_measures_its_pod_and_the_run_leaves_nothing_on_the_cluster(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(leftovers, "notes_folder", lambda: tmp_path / "notes")
    with fake_cluster() as cluster:
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", cluster.url)
        experiment = factories.experiment(
            model={"id_or_path": "llama-3.1-8b"},
            deployment={"mode": "kubernetes", "kubeconfig": str(kubeconfig)},
            runtime={"image": "autotune:1", "executable": sys.executable, "extra_args": ["--load-seconds", "0"]},
            parameters={"max-running-requests": [8]},
            benchmark={
                "traffic_scenarios": ["D(20,5)"],
                "num_concurrency": [2],
                "duration": 0.3,
                "warmup": 0.0,
                "max_requests": 10,
            },
        )
        setup = RunSetup.from_experiment(experiment)
        setup.preflight(tmp_path)
        (candidate,) = setup.space.candidates
        with setup.executor(ignore_progress) as executor:
            executor.submit(1, Launch(candidate), tmp_path / "a-run" / "trials" / "001")
            trial = executor.wait_for_trial()
        assert not [plural for plural in ("jobs", "pods", "configmaps") if cluster.all(plural)]
        assert "create jobs" in cluster.requests
    assert trial.measurement.failure is None
    assert trial.measurement.load_points
    assert trial.measurement.server["node"] == "gpu-a"
    record = json.loads((tmp_path / "a-run" / "trials" / "001" / "pod.json").read_text())
    assert "--max-running-requests" in record["args"]
    assert not list(leftovers.read_notes())
