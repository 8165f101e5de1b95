"""Moves a server to another port or address: trials use a free port, printed commands the engine's usual one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autotuner.core import ServerSpec

PORT_FLAG = "--port"
"""The flag for the port, the same on every engine."""

HOST_FLAG = "--host"
ANY_ADDRESS = "0.0.0.0"
LOOPBACK = "127.0.0.1"


def with_port(spec: ServerSpec, port: int) -> ServerSpec:
    """A copy of `spec` with the port replaced in its commands too."""
    return replace(
        spec,
        argv=_replace_value(spec.argv, PORT_FLAG, str(spec.port), str(port)),
        container_argv=_replace_value(spec.container_argv, PORT_FLAG, str(spec.port), str(port)),
        port=port,
    )


def with_host(spec: ServerSpec, host: str) -> ServerSpec:
    """A copy of `spec` that listens at this address where it listened at the loopback address."""
    return replace(
        spec,
        argv=_replace_value(spec.argv, HOST_FLAG, LOOPBACK, host),
        container_argv=_replace_value(spec.container_argv, HOST_FLAG, LOOPBACK, host),
    )


def _replace_value(argv: Sequence[str], flag: str, old: str, new: str) -> tuple[str, ...]:
    """The arguments with `new` after the flag wherever `old` was."""
    return tuple(
        new if position and argv[position - 1] == flag and word == old else word for position, word in enumerate(argv)
    )
