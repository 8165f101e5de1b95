"""A trial whose pod the cluster ends is measured again, and the run ends when that recurs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotuner.core import Candidate, Failure, FailureKind, Measurement
from autotuner.errors import MachineError
from autotuner.evaluate.measured import MeasuredEvaluator
from autotuner.execute.trial import MAX_EVICTIONS, run_trial
from autotuner.search.launch import Launch
from tests import factories

EVICTED = Failure(FailureKind.EVICTED, "The node was low on memory.", "")


class EvictingEvaluator(MeasuredEvaluator):
    """Measures nothing: its first launches are evicted after their first load point."""

    def __init__(self, evictions: int) -> None:
        self.experiment = factories.experiment(deployment={"mode": "kubernetes"})
        self.evictions = evictions
        self.launches = 0

    @property
    def source(self) -> Any:
        return "measured"

    def evaluate(self, candidate: Candidate, load_plan: Any, folder: Path, *options: Any) -> Measurement:
        self.launches += 1
        folder.mkdir(exist_ok=True)
        (folder / "server.log").write_text(f"launch {self.launches}")
        assert load_plan.ask() is not None
        return Measurement("measured", (), EVICTED if self.launches <= self.evictions else None)


def test_an_evicted_trial_is_measured_again_from_its_first_load_point(tmp_path):
    evaluator = EvictingEvaluator(evictions=2)
    trial = run_trial(evaluator, 1, Launch(Candidate("sim")), tmp_path / "001")
    assert trial.measurement.failure is None
    assert evaluator.launches == 3
    logs = {path.name: path.read_text() for path in (tmp_path / "001").iterdir()}
    assert logs == {
        "server-evicted-1.log": "launch 1",
        "server-evicted-2.log": "launch 2",
        "server.log": "launch 3",
    }


def test_a_cluster_that_goes_on_evicting_ends_the_run(tmp_path):
    evaluator = EvictingEvaluator(evictions=MAX_EVICTIONS)
    with pytest.raises(MachineError, match=r"low on memory.*--resume"):
        run_trial(evaluator, 1, Launch(Candidate("sim")), tmp_path / "001")
