"""Launcher for servers that are already running: nothing is started, nothing is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from autotuner.core import ServerSpec
from autotuner.errors import ConfigError, MachineError
from autotuner.experiment import Deployment, Experiment
from autotuner.launchers.protocol import Server


@dataclass(frozen=True)
class ExternalServer:
    """A server that was started by someone else."""

    url: str

    def exit_status(self) -> int | None:
        """None: the process is not ours to watch."""
        return None


class ExternalLauncher:
    """Connects to the server at `deployment.url`."""

    starts_servers = False

    def __init__(self, deployment: Deployment) -> None:
        self.url = deployment.url

    def preflight(self, experiment: Experiment, help_spec: ServerSpec | None) -> None:
        """Check that the server at the URL answers and serves the model."""
        from autotuner.launchers import ready

        deployment = experiment.deployment
        if deployment.url is None:
            raise ConfigError("An external deployment needs the URL of its server.", remedy="Give it with --url.")
        model = experiment.model.served_name or experiment.model.id_or_path
        try:
            identity = ready.identify(deployment.url, headers=ready.request_headers(deployment))
        except ready.NotReadyError as error:
            raise MachineError(
                f"Nothing that serves a model answers at {deployment.url}.",
                why=str(error),
                remedy="Start the server, or correct --url.",
            ) from error
        identity.require_model(model)

    def launch(self, spec: ServerSpec | None, log: Path) -> AbstractContextManager[Server]:
        """The server at the URL; see Launcher."""
        return self._attach()

    @contextmanager
    def _attach(self) -> Iterator[Server]:
        if self.url is None:
            raise ConfigError("An external deployment needs the URL of its server.", remedy="Give it with --url.")
        yield ExternalServer(self.url)
