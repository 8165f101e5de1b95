"""Experiments side by side, each in a process of its own and on GPUs that no other one uses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import IO

from autotuner.errors import AutotuneError, ConfigError
from autotuner.experiment import CLUSTER_MODES
from autotuner.launchers.gpus import query_inventory
from autotuner.run_setup import RunSetup
from autotuner.session import Session

LOG_FILE = "output.log"
"""What an experiment's process says, in its run folder."""


class ExperimentError(AutotuneError):
    """An experiment's process failed: its error."""

    def __init__(self, record: Mapping[str, str | int | None]) -> None:
        super().__init__(str(record["message"]), remedy=str(record["remedy"] or ""))
        self.exit_code = int(record["exit_code"] or 1)
        self.error_class = str(record["class"])


@dataclass(frozen=True)
class Devices:
    """The GPUs of this host that an experiment needs: a number of any, or those of its configuration."""

    count: int = 0
    indexes: frozenset[int] = frozenset()

    @classmethod
    def needed_by(cls, setup: RunSetup) -> Devices:
        """Of the largest candidate, as often as trials run in parallel; none where a cluster has them."""
        experiment = setup.experiment
        if experiment.deployment.mode in CLUSTER_MODES:
            return cls()
        indexes = frozenset(experiment.hardware.gpus or ())
        largest = max(setup.plan.gpus, default=0)
        return cls(max(largest * experiment.optimization.parallel_trials, len(indexes)), indexes)

    def fit_beside(self, others: list[Devices], installed: int) -> bool:
        """Whether these are free while others are in use; always where no other is."""
        if not others:
            return True
        is_shared = any(self.indexes & other.indexes for other in others)
        return not is_shared and self.count + sum(other.count for other in others) <= installed


def check_side_by_side(name: str, setup: RunSetup) -> None:
    """ConfigError for an experiment that the others would slow down, and be slowed down by."""
    if setup.source == "simulated" or setup.experiment.deployment.mode in CLUSTER_MODES or setup.plan.gpus:
        return
    raise ConfigError(
        f"Experiment {name} cannot run beside others.",
        why="Its servers would compute on the CPU that the others use, or it loads a server that runs already; either"
        " would be measured slower than it is.",
        remedy="Leave out --parallel-experiments, or run it by itself.",
    )


def run_side_by_side(
    sessions: Mapping[str, Session], limit: int, on_start: Callable[[str], None], on_end: Callable[[str], None]
) -> dict[str, AutotuneError]:
    """Finish the runs, up to `limit` at a time as GPUs allow, and return the errors of those that failed.

    On KeyboardInterrupt the processes are told to stop, and waited for.
    """
    installed = len(query_inventory().gpus)
    needs = {name: Devices.needed_by(session.setup) for name, session in sessions.items()}
    waiting, errors = list(sessions), {}
    running: dict[Future[AutotuneError | None], str] = {}
    processes: list[_ExperimentProcess] = []
    with ThreadPoolExecutor(limit) as waiters:
        try:
            while waiting or running:
                in_use = [needs[name] for name in running.values()]
                following = next((name for name in waiting if needs[name].fit_beside(in_use, installed)), None)
                if following is not None and len(running) < limit:
                    waiting.remove(following)
                    process = _ExperimentProcess(sessions[following])
                    processes.append(process)
                    running[waiters.submit(process.error)] = following
                    on_start(following)
                    continue
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    if error := future.result():
                        errors[name] = error
                    on_end(name)
        finally:
            for process in processes:
                process.interrupt()
    return errors


class _ExperimentProcess:
    """One running experiment; its log is in its run folder."""

    def __init__(self, session: Session) -> None:
        command = [sys.executable, "-m", "autotuner.cli.experiment_process", str(session.store.path)]
        with (session.store.path / LOG_FILE).open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal reaches this process alone, which closes the input
            )

    def error(self) -> AutotuneError | None:
        """Wait for the process to end; what it failed with, if it did."""
        output: IO[bytes] | None = self._process.stdout
        text = output.read() if output else b""
        if self._process.wait() == 0:
            return None
        try:
            return ExperimentError(json.loads(text)["error"])
        except (ValueError, KeyError):
            return AutotuneError(
                f"The process of the experiment ended with exit status {self._process.returncode}.",
                remedy=f"Read {LOG_FILE} in its run folder, and resume the run.",
            )

    def interrupt(self) -> None:
        """Have the run stop and keep what it measured; nothing where it has ended."""
        if self._process.stdin:
            self._process.stdin.close()
