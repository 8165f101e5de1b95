"""The interface of evaluators, which turn a candidate into a measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from autotuner.core import Candidate, Measurement, Purpose, Source, Workload
from autotuner.search.launch import LoadPlan


class Evaluator(Protocol):
    """Evaluates candidates, on a real server or in simulation."""

    @property
    def source(self) -> Source:
        """Whether its results are measured or simulated."""

    @property
    def workload(self) -> Workload:
        """The load points of the experiment, for launches without a load plan of their own."""

    def clock(self) -> float:
        """Unix seconds on the clock that times trials, which may be virtual."""

    def evaluate(
        self,
        candidate: Candidate,
        load_plan: LoadPlan,
        folder: Path,
        trial_number: int = 0,
        purpose: Purpose = "search",
        devices: tuple[int, ...] = (),
    ) -> Measurement:
        """Evaluate `candidate` under `load_plan`, and leave logs and raw records in `folder`.

        `devices` are the indexes of the GPUs that its server may use, best connected first; empty for any.
        `trial_number` and `purpose` appear in progress reports. Engine failures are part of the measurement and never
        raised; MachineError and RunStoreError are, because they would hit every other candidate too.
        """
