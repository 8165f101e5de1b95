"""The seam between the search and whoever answers it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from autotuner.core import Candidate, Measurement, Purpose, Source, Workload
from autotuner.search.launch import LoadPlan


class Evaluator(Protocol):
    """Says how good a candidate is."""

    @property
    def source(self) -> Source:
        """What its numbers are."""

    @property
    def workload(self) -> Workload:
        """The load points of the experiment, for whoever has no others in mind."""

    def clock(self) -> float:
        """Unix seconds on the clock that trials are timed by."""

    def evaluate(
        self, candidate: Candidate, load_plan: LoadPlan, folder: Path, trial: int = 0, purpose: Purpose = "search"
    ) -> Measurement:
        """Answer for `candidate` on `course`, leaving raw material in `folder`.

        `trial` and `purpose` are for whoever watches.
        What the engine does wrong is in the measurement, never raised. MachineError and
        RunStoreError are: they would befall every other candidate too.
        """
