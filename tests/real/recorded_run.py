"""Runs of one candidate, as Python makes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotuner.core import Observer, ignore_progress
from autotuner.experiment import Experiment
from autotuner.run_setup import RunSetup
from autotuner.runs.store import RunStore
from autotuner.session import Session


def record_run(config: Mapping[str, Any], folder: Path, observe: Observer = ignore_progress) -> RunStore:
    """Run the only candidate of a configuration once, in a run folder in `folder`; AssertionError if it fails."""
    once = {"baseline": False, "confirm": 0, "max_iterations": 1}
    config = {**config, "optimization": {**config.get("optimization", {}), **once}}
    setup = RunSetup.from_experiment(Experiment.model_validate(config))
    store = RunStore.create(folder, config, {"layers": [], "values": {}})
    with store.lock():
        Session(store, setup).tune(observe)
    [trial] = store.trials()
    assert trial.measurement.failure is None
    return store
