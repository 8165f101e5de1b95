"""The result of a load test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotuner.core import Capacity, LoadPointResult, Source, Verdict
from autotuner.experiment import Experiment, Slo
from autotuner.launchers.token_ids import Vocabulary
from autotuner.scoring.reasons import verdict_reason

CUT_SHORT_REASON = "the window was cut short"
"""Why a load point ended early that was interrupted: what it shows until then decides nothing."""


@dataclass(frozen=True)
class BenchLoadPoint:
    """One judged load point.

    `ended_early` says why it was given up, `decided` why no more of it was needed or came; `records` names
    the file of its raw records.
    """

    result: LoadPointResult
    ended_early: str | None = None
    decided: str | None = None
    records: str | None = None

    @property
    def answered_requests(self) -> int:
        """Requests of the window that were answered."""
        return self.result.metrics.requests - sum(self.result.metrics.errors.values())


@dataclass(frozen=True)
class BenchResult:
    """Load points driven on one server, in order, of `planned` at most.

    `experiment` holds the load, the SLO, and the model as the server names it. `started` is in Unix
    seconds. `stopped` says why the course ended before its end, None when it did not; `path` is the
    folder with the files, None when none were asked for; `capacities` are those that were looked for.
    `vocabulary` is what prompts were made of, None where they were words.
    """

    url: str
    experiment: Experiment
    source: Source
    load_points: tuple[BenchLoadPoint, ...]
    planned: int
    started: float
    stopped: str | None = None
    interrupted: bool = False
    path: Path | None = None
    capacities: tuple[Capacity, ...] = ()
    vocabulary: Vocabulary | None = None

    @property
    def model(self) -> str:
        """The model as the server names it."""
        return self.experiment.model.id_or_path

    @property
    def slo(self) -> Slo:
        """The targets; without terms when there are none."""
        return self.experiment.slo

    @property
    def meets_slo(self) -> bool:
        """Whether a load point met the targets, proven or not; True without targets."""
        met = (Verdict.FEASIBLE, Verdict.UNDECIDED)
        return not self.slo.terms or any(point.result.verdict in met for point in self.load_points)

    def reason(self, point: BenchLoadPoint) -> str:
        """What decided a load point's verdict."""
        if point.ended_early == CUT_SHORT_REASON and point.result.verdict is Verdict.UNDECIDED:
            return CUT_SHORT_REASON
        return "; ".join(filter(None, (verdict_reason(point.result, self.slo), point.ended_early)))
