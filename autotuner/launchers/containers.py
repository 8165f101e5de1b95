"""A server's spec in the words of the Docker SDK, and the labels by which its container is known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from autotuner.core import ServerSpec
from autotuner.launchers import owner

OWNER = "autotune.owner"
RUN = "autotune.run"
TRIAL = "autotune.trial"
LOOPBACK = "127.0.0.1"


def settings(spec: ServerSpec) -> dict[str, Any]:
    """The arguments of `containers.create`, without a name and a trial's labels.

    The port is published on this machine's own address only.
    """
    from docker.types import Mount

    chosen: dict[str, Any] = {
        "image": spec.image,
        "command": list(spec.container_argv or spec.argv),
        "environment": environment(spec),
        "labels": {OWNER: str(owner.me())},
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
        chosen["device_requests"] = [_devices(spec)]
    return chosen


def environment(spec: ServerSpec) -> dict[str, str]:
    """The container's variables, secrets with their values from here."""
    handed_on = {name: os.environ[name] for name in spec.secrets if name in os.environ}
    return {"PYTHONUNBUFFERED": "1", **spec.env, **handed_on}


def labels(log: Path) -> dict[str, str]:
    """Run, trial and owner of a container, by where its log goes: RUN/trials/TRIAL/server.log."""
    trial = log.absolute().parent
    return {OWNER: str(owner.me()), TRIAL: trial.name, RUN: str(trial.parent.parent)}


def _devices(spec: ServerSpec) -> Any:
    from docker.types import DeviceRequest

    which = {"device_ids": [str(index) for index in spec.devices]} if spec.devices else {"count": spec.gpus}
    return DeviceRequest(driver="nvidia", capabilities=[["gpu"]], **which)
