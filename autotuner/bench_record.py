"""The record and the report of a load test: a run of one trial, whose tables follow each load point."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from autotuner.bench_setup import BenchSetup
from autotuner.core import Failure, FailureKind, Measurement, Source, Trial
from autotuner.errors import RunStoreError
from autotuner.evaluate.clock import steady_unix_time
from autotuner.execute.trial import ERROR_FILE
from autotuner.launchers.environment import host_environment
from autotuner.report.bench import folder as bench_files
from autotuner.report.bench.result import BenchResult
from autotuner.report.run_view import RunView
from autotuner.runs.store import RunStore

INTERRUPTION = Failure(FailureKind.INTERRUPTED, "The load test was interrupted.", "Start it again.")


class LoadTestInterrupted(KeyboardInterrupt):
    """Ctrl-C during a load test; `result` has what was measured until then, and its files are written."""

    def __init__(self, result: BenchResult) -> None:
        super().__init__()
        self.result = result


class BenchRecord:
    """The one trial of a load test in its run folder, a temporary one if the setup names none."""

    def __init__(self, setup: BenchSetup) -> None:
        self.setup = setup
        self.is_kept = setup.folder is not None
        folder = setup.folder or Path(tempfile.mkdtemp(prefix=f"autotune-load-{os.getpid()}-"))
        self.store = RunStore.create_load_test(folder, setup.experiment, setup.provenance)
        source: Source = "simulated" if setup.served.is_simulated else "measured"
        now = steady_unix_time()
        self.trial = Trial(1, setup.launch.candidate, Measurement(source, ()), now, now)
        self._is_appended = False

    def summaries(self) -> list[Trial]:
        """None: a load test is not resumed."""
        return []

    def open_trial(self) -> tuple[int, Path]:
        """Make the folder of the trial."""
        return self.store.open_trial()

    def save(self, measurement: Measurement) -> None:
        """Keep what was measured so far, in the tables too; RunStoreError if they cannot be written."""
        self.trial = replace(self.trial, measurement=measurement, ended=steady_unix_time())
        if self.is_kept:
            bench_files.write_tables(self.result, self.store.path)

    def append(self, trial: Trial) -> None:
        """Keep the finished trial; RunStoreError if it cannot be written."""
        if not trial.results:  # an internal error, which keeps none
            trial = replace(trial, measurement=replace(self.trial.measurement, failure=trial.measurement.failure))
        self.trial = trial
        self.store.append(trial)
        self._is_appended = True

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Write the report when the block ends, however it does; LoadTestInterrupted on Ctrl-C.

        A file that cannot be written ends the test, and is why it ended: the measurements are not lost.
        """
        try:
            with self.store.lock():
                yield
                self._write_report()
        except KeyboardInterrupt as interrupt:
            self._end_early(INTERRUPTION)
            raise LoadTestInterrupted(self.result) from interrupt
        except RunStoreError as error:
            self._end_early(Failure(FailureKind.INTERNAL, f"{error.what} {error.why}".strip(), error.remedy))
        finally:
            if not self.is_kept and not list(self.store.path.rglob(ERROR_FILE)):
                shutil.rmtree(self.store.path, ignore_errors=True)

    def _end_early(self, failure: Failure) -> None:
        """Note why the test ended, and write what was measured until then as far as it can be."""
        self.trial = replace(self.trial, measurement=replace(self.trial.measurement, failure=failure))
        with suppress(RunStoreError):
            if not self._is_appended:
                self.append(self.trial)
            self._write_report()

    def _write_report(self) -> None:
        if self.is_kept:
            self.store.add_environment(host_environment())
            bench_files.write_tables(self.result, self.store.path)
            bench_files.draw(self.result, self.store.path)

    @property
    def result(self) -> BenchResult:
        """The load test so far."""
        view = RunView.of([self.trial], self.setup.experiment, environments=self.store.environments())
        return BenchResult(view, self.store.path if self.is_kept else None)
