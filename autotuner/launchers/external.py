"""Launcher for servers that are already running: nothing is started, nothing is stopped."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from autotuner.core import ServerSpec
from autotuner.endpoints.headers import request_headers, tls_trust
from autotuner.endpoints.models import find_served_model
from autotuner.endpoints.patience import FIRST_TOKEN_SECONDS
from autotuner.errors import ConfigError
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
        self._deployment = deployment

    @property
    def url(self) -> str:
        """The server's URL; ConfigError without one."""
        if self._deployment.url is None:
            raise ConfigError("An external deployment needs the URL of its server.", remedy="Give it with --url.")
        return self._deployment.url

    def preflight(self, experiment: Experiment, spec: ServerSpec | None) -> None:
        """Check that the server at the URL answers, and does not refuse the model."""
        model = experiment.model.served_name or experiment.model.id_or_path
        headers, endpoint = request_headers(experiment.deployment), experiment.benchmark.endpoint
        find_served_model(
            self.url,
            headers,
            model=model,
            endpoint=endpoint,
            must_answer=True,
            form=experiment.benchmark.request_form,
            tls=tls_trust(experiment.deployment),
            time_limit=min(FIRST_TOKEN_SECONDS, experiment.benchmark.request_timeout),
        )

    def run_block(self) -> AbstractContextManager[None]:
        """Nothing: launches share nothing; see Launcher."""
        return nullcontext()

    def launch(self, spec: ServerSpec | None, log: Path) -> AbstractContextManager[Server]:
        """The server at the URL; see Launcher."""
        return nullcontext(ExternalServer(self.url))
