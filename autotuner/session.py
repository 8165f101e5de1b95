"""A run from its start to its report, for the command line and Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autotuner.core import Observer, Progress, ignore_progress
from autotuner.errors import UsageError
from autotuner.launchers import orphans
from autotuner.launchers.environment import host_environment
from autotuner.runs.store import RunStore, find_run
from autotuner.tune import tune

if TYPE_CHECKING:
    from autotuner.config import Composition
    from autotuner.run_report import Result
    from autotuner.run_setup import RunSetup


@dataclass(frozen=True)
class Session:
    """A run folder, and what its experiment needs to go on."""

    store: RunStore
    setup: RunSetup

    @classmethod
    def start(cls, composition: Composition, output: Path) -> Session:
        """Make a run folder in `output`; AutotuneError if configuration or machine forbid the run."""
        from autotuner.run_setup import RunSetup

        setup = RunSetup.from_experiment(composition.experiment)
        setup.preflight(output)
        provenance = {"layers": composition.layers, "values": composition.provenance}
        return cls(RunStore.create(output, composition.data, provenance), setup)

    @classmethod
    def resume(cls, name: str | None, output: Path) -> Session:
        """Open the run called `name`, a folder or a name in `output`; None for the newest."""
        from autotuner.run_setup import RunSetup

        store = RunStore.open(find_run(name, output))
        if store.kind == "load-test":
            raise UsageError(
                f"'{store.path}' is a load test, which is not resumed.", remedy="Start it again with autotune bench."
            )
        setup = RunSetup.from_experiment(store.experiment)
        setup.preflight(output)
        return cls(store, setup)

    def tune(self, observe: Observer = ignore_progress) -> Result:
        """Run the remaining trials, rank all of them, and write the report; an engine that fails is a failed trial.

        `observe` is called with every step.
        """
        from autotuner import local_data
        from autotuner.run_report import write_report

        orphans.remove_orphans()
        host = host_environment()

        def observe_launch(progress: Progress) -> None:
            if progress.stage == "starting":  # a complete run that is only ranked again did not run here
                self.store.add_environment(host)
            observe(progress)

        self.store.save_refused(self.setup.space.refusals)
        recording_observer = local_data.recording_observer(self.store, self.setup.forecaster, observe)
        searcher = self.setup.create_searcher()
        with self.setup.executor(observe_launch) as executor:
            tune(self.store.experiment, searcher, executor, self.store, recording_observer)
        report = searcher.report
        self.store.save_search(report.stop_reason, report.skipped, report.candidate_count)
        forecasts = local_data.forecast_layouts(self.store, self.setup.forecaster, self.setup.space.candidates)
        self.store.save_forecasts(forecasts)
        return write_report(self.store)


def run(composition: Composition, output: str | Path = "runs", observe: Observer = ignore_progress) -> Result:
    """Tune: check the machine, evaluate the candidates, rank them, and write the report.

    The run folder is created in the folder `output`; `observe` is called with every step. Raises
    AutotuneError before the first launch if the configuration or the machine does not allow the run; an
    engine that fails is a failed trial.
    """
    session = Session.start(composition, Path(output))
    with session.store.lock():
        return session.tune(observe)
