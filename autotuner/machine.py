"""What this machine gives an experiment: deployment mode, GPUs, the flags of its engine; and whether it can run it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from autotuner.core import Candidate
from autotuner.engines import ENGINES, Engine, LaunchContext, engine, installed
from autotuner.engines.environment import check_secrets
from autotuner.engines.flags import FlagTable, parse_help
from autotuner.errors import ConfigError, MachineError
from autotuner.experiment import CLUSTER_MODES, Experiment, Runtime
from autotuner.launchers import Launcher
from autotuner.launchers.gpus import GpuInventory, query_inventory

DOCKER_SOCKET = Path("/var/run/docker.sock")
"""Where a Docker daemon listens unless DOCKER_HOST says otherwise."""

DOCKER_TIMEOUT_SECONDS = 2
"""Seconds to wait for a Docker daemon when the user did not choose the deployment."""


class LocalMachine:
    """A `config.context.Machine`, inspected lazily, once, and only for what a configuration leaves open."""

    def deployment(self, runtime: str, executable: str | None) -> tuple[str, str] | None:
        """Mode and reason: docker where a daemon answers, else process; None for a runtime that needs no GPUs here."""
        if not _starts_on_gpus(runtime):
            return None
        if executable is not None and installed.find_executable(executable, runtime):
            return "process", f"runtime.executable {executable} is on this machine"
        answers, reason = self._docker_status
        if answers:
            return "docker", reason
        try:
            command = engine(runtime).base_command(Runtime(executable=executable))
        except MachineError:
            return "process", f"{reason}, and {runtime} is not installed"
        return "process", f"{reason}, and {runtime} is installed ({command[0]})"

    def gpus(self, runtime: str, deployment: str, indexes: Sequence[int]) -> tuple[str | None, int | None]:
        """Type (None when they differ) and number of the GPUs that an engine launched here may use."""
        if deployment in ("external", *CLUSTER_MODES) or not _starts_on_gpus(runtime):
            return None, None
        usable = [gpu for gpu in self._inventory if not indexes or gpu.index in indexes]
        names = {gpu.name for gpu in usable}
        return names.pop() if len(names) == 1 else None, len(usable) or None

    @cached_property
    def _inventory(self) -> GpuInventory:
        return query_inventory()

    @cached_property
    def _docker_status(self) -> tuple[bool, str]:
        """Whether a Docker daemon answers, and a sentence that says so."""
        if not _may_have_docker():
            return False, f"no Docker daemon at {DOCKER_SOCKET}"
        host = os.environ.get("DOCKER_HOST")
        import docker
        from docker.errors import DockerException

        try:
            client = docker.from_env(timeout=DOCKER_TIMEOUT_SECONDS)
        except DockerException:
            return False, f"no Docker daemon answers at {host or DOCKER_SOCKET}"
        client.close()
        return True, f"a Docker daemon answers at {host or DOCKER_SOCKET}"


def available_flags(experiment: Experiment, engine: Engine) -> FlagTable | None:
    """Flags of the engine that would be launched; None when it is not on this machine, or already running."""
    if experiment.deployment.mode == "process":
        return engine.flags(experiment.runtime)
    if experiment.deployment.mode in ("external", *CLUSTER_MODES) or not _may_have_docker():
        return None
    from autotuner.launchers import images

    with contextlib.suppress(MachineError):
        spec = engine.help_spec(experiment.runtime)
        table = parse_help(images.help_text(spec), engine.name, f"in {spec.image}", engine.flags())
        return table if table.flags else None
    return None


def check_engine_flags(experiment: Experiment, engine: Engine, *, is_launched: bool = True) -> None:
    """Raise ConfigError for parameters and arguments that the engine refuses; starts no server.

    An engine that is launched is asked for its flags where it is on this machine; else the bundled ones count, and
    what they lack is looked for in the engine that is here.
    """
    check_secrets(experiment.parameters, experiment.runtime)
    runtime = None if experiment.deployment.mode == "external" else experiment.runtime
    table = available_flags(experiment, engine) if is_launched else None
    try:
        engine.check_parameters(experiment.parameters, runtime, table or engine.flags())
    except ConfigError:
        table = None if is_launched else available_flags(experiment, engine)
        if table is None or table.origin != "help":
            raise
        engine.check_parameters(experiment.parameters, runtime, table)


def preflight(
    experiment: Experiment, engine: Engine, launcher: Launcher, largest_candidate: Candidate | None = None
) -> None:
    """Raise MachineError if this machine, or the cluster, lacks what the experiment needs; starts no server.

    `largest_candidate` is the one with the most GPUs, for which a cluster must have a node.
    """
    if not launcher.starts_servers:
        launcher.preflight(experiment, None)
    elif experiment.deployment.mode in CLUSTER_MODES:
        context = LaunchContext.from_experiment(experiment, print_only=True)
        spec = engine.server_spec(largest_candidate, context) if largest_candidate is not None else None
        launcher.preflight(experiment, spec)
    elif experiment.deployment.mode == "docker":
        launcher.preflight(experiment, engine.help_spec(experiment.runtime))
        # the image may just have been pulled
        check_engine_flags(experiment, engine)
    else:
        engine.base_command(experiment.runtime)
        launcher.preflight(experiment, None)


def _may_have_docker() -> bool:
    """Whether there is an address at which a Docker daemon may answer."""
    return bool(os.environ.get("DOCKER_HOST")) or DOCKER_SOCKET.exists()


def _starts_on_gpus(runtime: str) -> bool:
    """Whether a launcher starts this runtime and it computes on real GPUs."""
    return runtime in ENGINES and runtime != "openai" and engine(runtime).source == "measured"
