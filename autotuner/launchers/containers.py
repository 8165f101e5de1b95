"""A server's spec in the words of the Docker SDK, and the labels by which its container is known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from autotuner.core import ServerSpec
from autotuner.launchers import owner

OWNER_LABEL = "autotune.owner"
RUN_LABEL = "autotune.run"
TRIAL_LABEL = "autotune.trial"
LOOPBACK = "127.0.0.1"


def create_arguments(spec: ServerSpec) -> dict[str, Any]:
    """The arguments of `containers.create`, without a name and a trial's labels.

    The port is published on this machine's own address only.
    """
    from docker.types import Mount

    chosen: dict[str, Any] = {
        "image": spec.image,
        "command": list(spec.container_argv or spec.argv),
        "environment": container_environment(spec),
        "labels": {OWNER_LABEL: str(owner.this_process())},
        "mounts": [Mount(m.container, m.host, type="bind", read_only=m.read_only) for m in spec.mounts],
    }
    if spec.entrypoint is not None:
        chosen["entrypoint"] = [spec.entrypoint]
    if spec.network == "host":
        chosen["network_mode"] = "host"
    elif spec.port:
        chosen["ports"] = {f"{spec.port}/tcp": (LOOPBACK, spec.port)}
    if spec.shm_size is not None:
        chosen["shm_size"] = spec.shm_size
    else:
        chosen["ipc_mode"] = "host"
    if spec.memory is not None:
        chosen |= {"mem_limit": spec.memory, "memswap_limit": spec.memory}
    if spec.gpus:
        chosen["device_requests"] = [_device_request(spec)]
    return chosen


def container_environment(spec: ServerSpec) -> dict[str, str]:
    """The container's variables, secrets with their values from here."""
    handed_on = {name: os.environ[name] for name in spec.secrets if name in os.environ}
    return {"PYTHONUNBUFFERED": "1", **spec.env, **handed_on}


def trial_labels(log: Path) -> dict[str, str]:
    """Run, trial and owner of a container, by where its log goes: RUN/trials/TRIAL/server.log."""
    trial = log.absolute().parent
    return {OWNER_LABEL: str(owner.this_process()), TRIAL_LABEL: trial.name, RUN_LABEL: str(trial.parent.parent)}


def _device_request(spec: ServerSpec) -> Any:
    from docker.types import DeviceRequest

    which = {"device_ids": [str(index) for index in spec.devices]} if spec.devices else {"count": spec.gpus}
    return DeviceRequest(driver="nvidia", capabilities=[["gpu"]], **which)
