"""Where a server runs: the launchers, by deployment mode."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from autotuner.errors import MachineError, UsageError, unknown_name_message
from autotuner.experiment import Deployment
from autotuner.launchers.protocol import Launcher, Server, ServerExitedError

__all__ = ["LAUNCHERS", "Launcher", "Server", "ServerExitedError", "launcher"]


def _process(deployment: Deployment, time_limit: float | None) -> Launcher:
    from autotuner.launchers.process import ProcessLauncher

    return ProcessLauncher()


def _external(deployment: Deployment, time_limit: float | None) -> Launcher:
    from autotuner.launchers.external import ExternalLauncher

    return ExternalLauncher(deployment)


def _docker(deployment: Deployment, time_limit: float | None) -> Launcher:
    from autotuner.launchers.docker import DockerLauncher

    return DockerLauncher()


def _kubernetes(deployment: Deployment, time_limit: float | None) -> Launcher:
    require_lightkube()
    from autotuner.launchers.kubernetes.launcher import DEFAULT_TIME_LIMIT, KubernetesLauncher

    return KubernetesLauncher(deployment, time_limit or DEFAULT_TIME_LIMIT)


def _ome(deployment: Deployment, time_limit: float | None) -> Launcher:
    require_lightkube()
    from autotuner.launchers.kubernetes.launcher import DEFAULT_TIME_LIMIT
    from autotuner.launchers.kubernetes.ome import OmeLauncher

    return OmeLauncher(deployment, time_limit or DEFAULT_TIME_LIMIT)


LAUNCHERS: dict[str, Callable[[Deployment, float | None], Launcher]] = {
    "process": _process,
    "docker": _docker,
    "kubernetes": _kubernetes,
    "ome": _ome,
    "external": _external,
}


def launcher(name: str, deployment: Deployment | None = None, time_limit: float | None = None) -> Launcher:
    """The launcher of a deployment mode; UsageError with the nearest name when there is none.

    What runs elsewhere ends a server by itself after `time_limit` seconds, should nobody be left to end it.
    """
    if name not in LAUNCHERS:
        raise UsageError(unknown_name_message("deployment", name, LAUNCHERS))
    return LAUNCHERS[name](deployment or Deployment(), time_limit)


def require_lightkube() -> None:
    """MachineError if the library that speaks with clusters is not installed."""
    if importlib.util.find_spec("lightkube") is None:
        raise MachineError(
            "Running on a Kubernetes cluster needs the package lightkube.",
            why="It is not installed.",
            remedy="Install it with `pip install 'autotune[kubernetes]'`.",
        )
