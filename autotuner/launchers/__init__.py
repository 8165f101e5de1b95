"""Where a server runs: the launchers, by deployment mode."""

from __future__ import annotations

from collections.abc import Callable

from autotuner.errors import UsageError, unknown_name_message
from autotuner.experiment import Deployment
from autotuner.launchers.protocol import Launcher, Server, ServerExitedError

__all__ = ["LAUNCHERS", "Launcher", "Server", "ServerExitedError", "launcher"]


def _process(deployment: Deployment) -> Launcher:
    from autotuner.launchers.process import ProcessLauncher

    return ProcessLauncher()


def _external(deployment: Deployment) -> Launcher:
    from autotuner.launchers.external import ExternalLauncher

    return ExternalLauncher(deployment)


def _docker(deployment: Deployment) -> Launcher:
    from autotuner.launchers.docker import DockerLauncher

    return DockerLauncher()


LAUNCHERS: dict[str, Callable[[Deployment], Launcher]] = {
    "process": _process,
    "docker": _docker,
    "external": _external,
}


def launcher(name: str, deployment: Deployment | None = None) -> Launcher:
    """The launcher of a deployment mode; UsageError with the nearest name when there is none."""
    if name not in LAUNCHERS:
        raise UsageError(unknown_name_message("deployment", name, LAUNCHERS))
    return LAUNCHERS[name](deployment or Deployment())
