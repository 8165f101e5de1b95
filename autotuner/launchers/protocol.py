"""The protocols of launchers and their servers: a server is gone when its `with` block ends."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from autotuner.core import ServerSpec
from autotuner.experiment import Experiment


class ServerExitedError(Exception):
    """A server ended before it was ready; `exit_status` is negative for a signal."""

    def __init__(self, exit_status: int) -> None:
        super().__init__(f"the server ended with status {exit_status}")
        self.exit_status = exit_status


class Server(Protocol):
    """A server that was launched, or that was already running."""

    @property
    def url(self) -> str:
        """Base URL of its API; it may end in /v1."""

    def exit_status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs, or when it cannot be known here.

        EngineError for an end that its log cannot explain, such as the eviction of its pod.
        """


class Launcher(Protocol):
    """Starts servers, and removes everything it started."""

    @property
    def starts_servers(self) -> bool:
        """False when it only connects to a running server, and needs no spec."""

    def preflight(self, experiment: Experiment, spec: ServerSpec | None) -> None:
        """Raise MachineError or ConfigError if no server of the experiment can run here; starts none.

        `spec` is the container that prints the engine's --help where Docker runs it, and the server with the most
        GPUs on a cluster; None where servers need no container.
        """

    def run_block(self) -> AbstractContextManager[None]:
        """What is around all launches of a run: the end of the block removes what they share."""

    def launch(self, spec: ServerSpec | None, log: Path) -> AbstractContextManager[Server]:
        """Start the server of `spec` with its output appended to `log`; the end of the block stops all of it.

        EngineError if something other than the server keeps it from being started, such as a full cluster.
        """
