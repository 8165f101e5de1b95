"""The result of a load test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotuner.core import EARLY_STOP_ERROR, Capacity, LoadPoint, LoadPointResult, Source, Verdict
from autotuner.endpoints.token_ids import Vocabulary
from autotuner.experiment import Experiment, Slo
from autotuner.scoring.reasons import verdict_reason
from autotuner.traces import TraceDescription
from autotuner.workload.arrivals import TRACE

CUT_SHORT_REASON = "the window was cut short"
"""`ended_early` of an interrupted load point: its partial window supports no verdict."""


@dataclass(frozen=True)
class BenchLoadPoint:
    """One judged load point.

    `ended_early` says why it was abandoned, `decided` why its window could end before its time: enough
    evidence or no more requests; `records` is the file name of its raw records. `retry_after` is the longest
    pause in seconds that a refusal asked for and that was not kept.
    """

    result: LoadPointResult
    ended_early: str | None = None
    decided: str | None = None
    records: str | None = None
    retry_after: float | None = None

    @property
    def answered_requests(self) -> int:
        """Number of successful requests in the window."""
        return self.result.metrics.requests - sum(self.result.metrics.errors.values())


@dataclass(frozen=True)
class BenchResult:
    """Load points driven on one server, in order, of `planned` at most.

    `experiment` holds the load, the SLO, and the model as the server names it. `started` is in Unix
    seconds. `stopped` says why not all planned load points were driven, or None; `path` is the output
    folder, or None; `capacities` are the results of capacity searches. `vocabulary` is the token id range
    from which prompts were drawn, None if prompts were words. `write_delay` is how many seconds later the
    first token is for clients that acknowledge late, None where the server does not delay small writes.
    `traces` says what was found in each trace file. `remarks` say what is
    unusual about the requests.
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
    write_delay: float | None = None
    traces: tuple[TraceDescription, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The model as the server names it."""
        return self.experiment.model.id_or_path

    @property
    def slo(self) -> Slo:
        """The SLO targets; an SLO without terms if there are none."""
        return self.experiment.slo

    def notes(self, point: BenchLoadPoint) -> tuple[str, ...]:
        """What to know of a load point beside its figures, one sentence each."""
        notes = []
        if self.write_delay is not None:
            delay = f"about {self.write_delay * 1e3:.0f} ms more to the first token"
            notes.append(f"The server delays small writes (Nagle): clients without TCP_QUICKACK see {delay}.")
        load_point = point.result.load_point
        for trace in self.traces:
            if load_point.scenario == f"file:{trace.path}":
                notes.append(f"{trace}.")
                if trace.seconds is not None and not self._is_replayed(load_point):
                    kind = (
                        f"with the arrival {self.experiment.benchmark.arrival}"
                        if load_point.rate
                        else "in a closed loop"
                    )
                    notes.append(f"The times of {trace.path} are not used {kind}.")
        return tuple(notes)

    def _is_replayed(self, load_point: LoadPoint) -> bool:
        return load_point.rate is not None and self.experiment.benchmark.arrival == TRACE

    @property
    def meets_slo(self) -> bool:
        """Whether any load point is feasible or undecided; True without targets."""
        acceptable = (Verdict.FEASIBLE, Verdict.UNDECIDED)
        return not self.slo.terms or any(point.result.verdict in acceptable for point in self.load_points)

    def reason(self, point: BenchLoadPoint) -> str:
        """The reason for a load point's verdict."""
        if point.ended_early == CUT_SHORT_REASON and point.result.verdict is Verdict.UNDECIDED:
            return CUT_SHORT_REASON
        pause = (
            f"refusals asked for a pause of up to {point.retry_after:g} s, which --honour-retry-after keeps"
            if point.retry_after is not None
            else None
        )
        short = (
            "the server ends answers before their length (early-stop), which --omit ignore_eos measures as they are"
            if EARLY_STOP_ERROR in point.result.metrics.errors
            else None
        )
        return "; ".join(filter(None, (verdict_reason(point.result, self.slo), point.ended_early, pause, short)))
