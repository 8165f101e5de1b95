"""The record and the report of a load test: a run of one trial, whose tables follow each load point."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from autotuner.bench_setup import BenchSetup
from autotuner.core import Failure, FailureKind, Measurement, Source, Trial
from autotuner.errors import RunStoreError
from autotuner.launchers.environment import host_environment
from autotuner.report.bench import folder as bench_files
from autotuner.report.bench.result import BenchResult
from autotuner.report.run_view import RunView
from autotuner.runs.store import RunStore

INTERRUPTED = Failure(FailureKind.INTERRUPTED, "The load test was interrupted.", "Start it again.")


class LoadTestInterrupted(KeyboardInterrupt):
    """Ctrl-C during a load test; `result` has what was measured until then, and its files are written."""

    def __init__(self, result: BenchResult) -> None:
        super().__init__()
        self.result = result


class BenchRecord:
    """The one trial of a load test, in memory, and in a run folder if the setup names one."""

    def __init__(self, setup: BenchSetup) -> None:
        self.setup = setup
        self.store: RunStore | None = None
        if setup.folder is not None:
            self.store = RunStore.create_load_test(setup.folder, setup.experiment, setup.provenance)
        now = time.time()
        source: Source = "simulated" if setup.served.is_simulated else "measured"
        self.trial = Trial(1, setup.launch.candidate, Measurement(source, ()), now, now)
        self._is_appended = False

    def trials(self) -> list[Trial]:
        """None: a load test is not resumed."""
        return []

    def open_trial(self) -> tuple[int, Path]:
        """The number and the folder of the trial; without a run folder one that only an internal error makes."""
        if self.store is not None:
            return self.store.open_trial()
        return 1, Path(tempfile.gettempdir()) / f"autotune-bench-{os.getpid()}"

    def save(self, measurement: Measurement) -> None:
        """Keep what was measured so far, in the tables too; RunStoreError if they cannot be written."""
        self.trial = replace(self.trial, measurement=measurement, ended=time.time())
        self._write_tables()

    def append(self, trial: Trial) -> None:
        """Keep the finished trial; RunStoreError if it cannot be written."""
        self.trial = trial
        if self.store is not None:
            self.store.append(trial)
            self._is_appended = True

    def finish(self) -> BenchResult:
        """The result, its files written; RunStoreError if they cannot be."""
        if self.store is not None:
            self.store.add_environment(host_environment())
            self._write_tables()
            if self.trial.results:
                bench_files.draw(self.result, self.store.path)
        return self.result

    def finish_interrupted(self) -> BenchResult:
        """The result of what was measured until Ctrl-C, its files written if they can be."""
        trial = replace(self.trial, measurement=replace(self.trial.measurement, failure=INTERRUPTED))
        try:
            if self._is_appended:
                self.trial = trial
            else:
                self.append(trial)
            return self.finish()
        except RunStoreError:
            return self.finish_in_memory(INTERRUPTED)

    def finish_in_memory(self, failure: Failure) -> BenchResult:
        """The result after files could not be written: the measurements are not lost."""
        self.store = None
        self.trial = replace(self.trial, measurement=replace(self.trial.measurement, failure=failure))
        return self.result

    @property
    def result(self) -> BenchResult:
        """The load test so far."""
        environments = self.store.environments() if self.store is not None else ()
        view = RunView.of([self.trial], self.setup.experiment, environments=environments)
        return BenchResult(view, self.store.path if self.store is not None else None)

    def _write_tables(self) -> None:
        if self.store is not None:
            bench_files.write_tables(self.result, self.store.path)
