"""The protocols of launchers and their servers: a server is gone when its `with` block ends."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from autotuner.core import ServerSpec
from autotuner.engines.flags import FlagTable
from autotuner.engines.protocol import Engine
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

    def preflight(self, experiment: Experiment, engine: Engine) -> None:
        """Raise MachineError or ConfigError when the experiment cannot run here; starts no server."""

    def flags(self, experiment: Experiment, engine: Engine) -> FlagTable | None:
        """Flags of the engine that would be launched; None when the engine is not on this machine."""

    def launch(self, spec: ServerSpec | None, log: Path) -> AbstractContextManager[Server]:
        """Start the server of `spec` with its output appended to `log`; the end of the block stops all of it."""
