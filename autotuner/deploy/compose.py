"""A server as a service of a Compose file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from autotuner.core import ServerSpec
from autotuner.deploy.shell import container_command

SERVICE_NAME = "server"


def render_compose(spec: ServerSpec) -> str:
    """A Compose file with the server as its only service."""
    return to_yaml({"services": {SERVICE_NAME: compose_service(spec)}})


def compose_service(spec: ServerSpec) -> dict[str, Any]:
    """The server as a Compose service; secrets have no value, so Compose takes them from its own environment."""
    environment: dict[str, str | None] = {
        name: _escape_dollars(value) for name, value in spec.env.items() if name not in spec.secrets
    }
    environment.update(dict.fromkeys(spec.secrets))
    service: dict[str, Any] = {
        "image": _escape_dollars(spec.image or ""),
        "command": [_escape_dollars(word) for word in container_command(spec)],
        **({"network_mode": "host"} if spec.network == "host" else {"ports": [f"{spec.port}:{spec.port}"]}),
        **({"shm_size": spec.shm_size} if spec.shm_size else {"ipc": "host"}),
    }
    if spec.entrypoint is not None:
        service["entrypoint"] = [_escape_dollars(spec.entrypoint)]
    if spec.memory is not None:
        service |= {"mem_limit": spec.memory, "memswap_limit": spec.memory}
    if environment:
        service["environment"] = environment
    if spec.mounts:
        service["volumes"] = [
            {
                "type": "bind",
                "source": _escape_dollars(mount.host),
                "target": _escape_dollars(mount.container),
                "read_only": mount.read_only,
            }
            for mount in spec.mounts
        ]
    if spec.gpus:
        selection = {"device_ids": [str(index) for index in spec.devices]} if spec.devices else {"count": spec.gpus}
        device = {"driver": "nvidia", **selection, "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    return service


def _escape_dollars(text: str) -> str:
    """The text with `$` doubled, so that Compose does not interpolate it."""
    return text.replace("$", "$$")


def to_yaml(document: Mapping[str, Any]) -> str:
    """The document in YAML, keys in their order."""
    text: str = yaml.safe_dump(document, sort_keys=False, default_flow_style=False, width=120)
    return text
