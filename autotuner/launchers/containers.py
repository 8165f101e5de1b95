"""A ServerSpec as arguments of the Docker SDK, and the labels that identify its container."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from autotuner import owner
from autotuner.core import ServerSpec

OWNER_LABEL = "autotune.owner"
RUN_LABEL = "autotune.run"
TRIAL_LABEL = "autotune.trial"
LOOPBACK = "127.0.0.1"


def create_arguments(spec: ServerSpec) -> dict[str, Any]:
    """The arguments of `containers.create`, without the container's name and the labels of a trial.

    The port is published on the loopback address only.
    """
    from docker.types import Mount

    arguments: dict[str, Any] = {
        "image": spec.image,
        "command": list(spec.container_argv or spec.argv),
        "environment": container_environment(spec),
        "labels": {OWNER_LABEL: str(owner.this_process())},
        "mounts": [Mount(m.container, m.host, type="bind", read_only=m.read_only) for m in spec.mounts],
    }
    if spec.entrypoint is not None:
        arguments["entrypoint"] = [spec.entrypoint]
    if spec.network == "host":
        arguments["network_mode"] = "host"
    elif spec.port:
        arguments["ports"] = {f"{spec.port}/tcp": (LOOPBACK, spec.port)}
    if spec.shm_size is not None:
        arguments["shm_size"] = spec.shm_size
    else:
        arguments["ipc_mode"] = "host"
    if spec.memory is not None:
        arguments |= {"mem_limit": spec.memory, "memswap_limit": spec.memory}
    if spec.gpus:
        arguments["device_requests"] = [_device_request(spec)]
    return arguments


def container_environment(spec: ServerSpec) -> dict[str, str]:
    """Environment of the container; the values of secrets come from this process's environment."""
    secrets = {name: os.environ[name] for name in spec.secrets if name in os.environ}
    return {"PYTHONUNBUFFERED": "1", **spec.env, **secrets}


def trial_labels(log: Path) -> dict[str, str]:
    """Labels for owner, run and trial, taken from the path of the log: RUN/trials/TRIAL/server.log."""
    trial = log.absolute().parent
    return {OWNER_LABEL: str(owner.this_process()), TRIAL_LABEL: trial.name, RUN_LABEL: str(trial.parent.parent)}


def _device_request(spec: ServerSpec) -> Any:
    from docker.types import DeviceRequest

    selection = {"device_ids": [str(index) for index in spec.devices]} if spec.devices else {"count": spec.gpus}
    return DeviceRequest(driver="nvidia", capabilities=[["gpu"]], **selection)
