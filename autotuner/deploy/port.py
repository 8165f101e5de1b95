"""Moves a server to another port: trials use any free port, printed commands the engine's usual one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autotuner.core import ServerSpec

PORT_FLAG = "--port"
"""The flag for the port, the same on every engine."""


def with_port(spec: ServerSpec, port: int) -> ServerSpec:
    """A copy of `spec` with the port replaced in its commands too."""
    return replace(
        spec,
        argv=_replace_port(spec.argv, spec.port, port),
        container_argv=_replace_port(spec.container_argv, spec.port, port),
        port=port,
    )


def _replace_port(argv: Sequence[str], old_port: int, new_port: int) -> tuple[str, ...]:
    words = list(argv)
    for position, word in enumerate(argv[1:], start=1):
        if argv[position - 1] == PORT_FLAG and word == str(old_port):
            words[position] = str(new_port)
    return tuple(words)
