"""The tuning loop: ask for a launch, evaluate it, judge it, record it, tell the searcher."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

from autotuner.core import Observer, Progress, Trial, ignore_progress
from autotuner.experiment import Experiment
from autotuner.scoring.judge import judge
from autotuner.search.launch import Launch
from autotuner.search.protocol import Searcher

log = logging.getLogger(__name__)


class Executor(Protocol):
    """Runs submitted launches as trials, one at a time or several side by side."""

    def submit(self, number: int, launch: Launch, folder: Path) -> None:
        """Start or queue a launch as trial `number`; its files go into `folder`."""

    def wait_for_trial(self) -> Trial | None:
        """Wait for a trial to finish; None when none is running."""

    @property
    def has_room(self) -> bool:
        """Whether another launch can be submitted."""


class TrialRecord(Protocol):
    """The finished trials of a run, on disk or in memory."""

    def summaries(self) -> list[Trial]:
        """All finished trials, in order, with all that a search needs of them."""

    def open_trial(self) -> tuple[int, Path]:
        """Make the next trial's folder; its number and the folder."""

    def append(self, trial: Trial) -> None:
        """Add a finished trial."""


def tune(
    experiment: Experiment,
    searcher: Searcher,
    executor: Executor,
    record: TrialRecord,
    observe: Observer = ignore_progress,
) -> None:
    """Launch what the searcher proposes until it proposes nothing more."""
    for trial in record.summaries():
        searcher.tell(trial)

    while True:
        while executor.has_room and (launch := searcher.ask()) is not None:
            number, folder = record.open_trial()
            log.debug("trial %d: launch for %s, %s", number, launch.purpose, dict(launch.candidate.parameters))
            executor.submit(number, launch, folder)
        finished = executor.wait_for_trial()
        if finished is None:
            break
        trial = judge(finished, experiment)
        record.append(trial)
        log.debug("trial %d: %s", trial.number, trial.measurement.failure or "finished")
        searcher.tell(trial)
        observe(Progress("finished", trial.number, trial.candidate, finished_trial=trial, purpose=trial.purpose))
