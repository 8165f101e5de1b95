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
        """Exit status, negative for a signal; None while it runs, or when it cannot be known here."""


class Launcher(Protocol):
    """Starts servers, and removes everything it started."""

    @property
    def starts_servers(self) -> bool:
        """False when it only connects to a running server, and needs no spec."""

    def preflight(self, experiment: Experiment, help_spec: ServerSpec | None) -> None:
        """Raise MachineError or ConfigError when no server of the experiment can run here; starts none.

        `help_spec` is the container that prints the engine's --help; None where servers need no container.
        """

    def launch(self, spec: ServerSpec | None, log: Path) -> AbstractContextManager[Server]:
        """Start the server of `spec` with its output appended to `log`; the end of the block stops all of it."""
