"""The loop: ask for a launch, evaluate it, judge it, record it, tell the searcher."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from autotuner.core import Observer, Progress, Trial, ignore_progress
from autotuner.experiment import Experiment
from autotuner.scoring.judge import judge
from autotuner.scoring.rank import Ranking, rank
from autotuner.search.launch import Launch
from autotuner.search.protocol import Searcher


class Executor(Protocol):
    """Evaluates submitted launches, one at a time or several at once."""

    def submit(self, number: int, launch: Launch, folder: Path) -> None:
        """Take a launch on as trial `number`, with a folder for what it leaves behind."""

    def wait_for_trial(self) -> Trial | None:
        """Wait for a trial to end; None when nothing is left running."""

    @property
    def has_room(self) -> bool:
        """Whether another launch can be submitted now."""


class TrialRecord(Protocol):
    """What is kept of a run."""

    def trials(self) -> list[Trial]:
        """All finished trials, in order."""

    def open_trial(self) -> tuple[int, Path]:
        """A new trial's number and folder."""

    def append(self, trial: Trial) -> None:
        """Keep a finished trial for good."""


def tune(
    experiment: Experiment,
    searcher: Searcher,
    executor: Executor,
    record: TrialRecord,
    observe: Observer = ignore_progress,
) -> Ranking:
    """Launch what the searcher proposes until it has no more, and rank what was seen."""
    for trial in record.trials():
        searcher.tell(trial)

    while True:
        while executor.has_room and (launch := searcher.ask()) is not None:
            number, folder = record.open_trial()
            executor.submit(number, launch, folder)
        finished = executor.wait_for_trial()
        if finished is None:
            break
        trial = judge(finished, experiment)
        record.append(trial)
        searcher.tell(trial)
        observe(Progress("finished", trial.number, trial.candidate, finished_trial=trial, purpose=trial.purpose))

    return rank(record.trials(), experiment)
