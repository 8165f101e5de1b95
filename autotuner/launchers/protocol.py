"""What every launcher gives: a server that is gone when its block ends."""

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
    """A server that was started, or that ran already."""

    @property
    def url(self) -> str:
        """Where it answers; it may end in /v1."""

    def exit_status(self) -> int | None:
        """How it ended, negative for a signal; None while it runs, or when nobody here can know."""


class Launcher(Protocol):
    """Starts servers somewhere and leaves nothing behind."""

    @property
    def starts_servers(self) -> bool:
        """False when it only points at a server that runs already, and needs no spec."""

    def preflight(self, experiment: Experiment, engine: Engine) -> None:
        """MachineError or ConfigError when the experiment cannot run here; starts nothing."""

    def flags(self, experiment: Experiment, engine: Engine) -> FlagTable | None:
        """The flags of the engine that would be launched, as far as it is here; None when it is not."""

    def launch(self, spec: ServerSpec | None, log: Path) -> AbstractContextManager[Server]:
        """Start the server of `spec`, its output going to `log`; when the block ends all of it is gone."""
