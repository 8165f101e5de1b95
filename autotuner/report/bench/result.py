"""A load test as its renderers take it: the run of one server that was already running."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotuner.core import (
    EARLY_STOP_ERROR,
    Capacity,
    FailureKind,
    LoadPoint,
    LoadPointResult,
    Measurement,
    Source,
    Trial,
    Verdict,
)
from autotuner.endpoints.token_ids import Vocabulary
from autotuner.experiment import Experiment, Slo
from autotuner.report.run_view import RunView
from autotuner.runs.store import RunStore, records_file
from autotuner.scoring.reasons import CUT_SHORT, verdict_reason
from autotuner.traces import TraceDescription
from autotuner.workload.arrivals import TRACE


@dataclass(frozen=True)
class BenchResult:
    """A load test: the view of its run, which has one trial, and its folder, None where nothing was written."""

    view: RunView
    path: Path | None = None

    @classmethod
    def from_store(cls, store: RunStore) -> BenchResult:
        return cls(RunView.from_store(store), store.path)

    @property
    def experiment(self) -> Experiment:
        """The load, the targets, and the model as the server names it."""
        return self.view.experiment

    @property
    def trial(self) -> Trial:
        return self.view.trials[0]

    @property
    def measurement(self) -> Measurement:
        return self.trial.measurement

    @property
    def load_points(self) -> tuple[LoadPointResult, ...]:
        """The judged load points, in the order in which they were driven."""
        return self.trial.results

    @property
    def planned(self) -> int:
        """Number of load points of the plan, at most."""
        return self.measurement.outcome.max_load_points or len(self.load_points)

    @property
    def capacities(self) -> tuple[Capacity, ...]:
        """The results of capacity searches."""
        return self.measurement.outcome.capacities

    @property
    def url(self) -> str:
        """The address of the API to which load was sent."""
        return self.experiment.deployment.url or ""

    @property
    def model(self) -> str:
        """The model as the server names it."""
        return self.experiment.model.id_or_path

    @property
    def source(self) -> Source:
        """Whether the results are measured or simulated."""
        return self.measurement.source

    @property
    def slo(self) -> Slo:
        """The SLO targets; an SLO without terms if there are none."""
        return self.experiment.slo

    @property
    def started(self) -> float:
        """When the load test began, in Unix seconds."""
        return self.trial.started

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C or SIGTERM ended the test."""
        failure = self.measurement.failure
        return failure is not None and failure.kind is FailureKind.INTERRUPTED

    @property
    def stopped(self) -> str | None:
        """Why not all planned load points were driven; None where they were, or the test was interrupted."""
        failure = self.measurement.failure
        return failure.message if failure is not None and not self.interrupted else None

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The token ids from which prompts were drawn; None if prompts were words, or nothing was sent."""
        fields = self.measurement.server.get("vocabulary")
        return Vocabulary(**fields) if fields else None

    @property
    def write_delay(self) -> float | None:
        """Seconds by which the first token is later for clients that acknowledge late; None where it is not."""
        return self.measurement.server.get("write_delay")

    @property
    def traces(self) -> tuple[TraceDescription, ...]:
        """What was found in each trace file."""
        return tuple(TraceDescription(**fields) for fields in self.measurement.server.get("traces", ()))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is unusual about the requests."""
        return tuple(self.measurement.server.get("remarks", ()))

    @property
    def meets_slo(self) -> bool:
        """Whether any load point is feasible or undecided; True without targets."""
        acceptable = (Verdict.FEASIBLE, Verdict.UNDECIDED)
        return not self.slo.terms or any(point.verdict in acceptable for point in self.load_points)

    def records_file(self, index: int) -> str | None:
        """The raw records of load point `index`, from 0, relative to the folder."""
        return records_file(self.trial.number, index + 1) if self.path is not None else None

    def pause_not_kept(self, point: LoadPointResult) -> float | None:
        """The longest pause in seconds that a refusal asked for and that was not kept."""
        is_kept = self.experiment.benchmark.honour_retry_after and point.load_point.rate is None
        return None if is_kept else point.retry_after

    def notes(self, point: LoadPointResult) -> tuple[str, ...]:
        """What to know of a load point beside its figures, one sentence each."""
        notes = []
        if self.write_delay is not None:
            delay = f"about {self.write_delay * 1e3:.0f} ms more to the first token"
            notes.append(f"The server delays small writes (Nagle): clients without TCP_QUICKACK see {delay}.")
        load_point = point.load_point
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

    def reason(self, point: LoadPointResult) -> str:
        """The reason for a load point's verdict."""
        if point.ended_early == CUT_SHORT and point.verdict is Verdict.UNDECIDED:
            return CUT_SHORT
        seconds = self.pause_not_kept(point)
        pause = (
            f"refusals asked for a pause of up to {seconds:g} s, which --honour-retry-after keeps"
            if seconds is not None
            else None
        )
        short = (
            "the server ends answers before their length (early-stop), which --omit ignore_eos measures as they are"
            if EARLY_STOP_ERROR in point.metrics.errors
            else None
        )
        return "; ".join(filter(None, (verdict_reason(point, self.slo), point.ended_early, pause, short)))
