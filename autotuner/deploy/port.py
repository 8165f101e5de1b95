"""The same server on another port: a trial listens where there was room, a printed command where users expect it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autotuner.core import ServerSpec

FLAG = "--port"
"""What every engine calls it."""


def with_port(spec: ServerSpec, port: int) -> ServerSpec:
    """`spec` on another port, wherever its command names the one it has."""
    return replace(
        spec,
        argv=_listening(spec.argv, spec.port, port),
        container_argv=_listening(spec.container_argv, spec.port, port),
        port=port,
    )


def _listening(argv: Sequence[str], before: int, port: int) -> tuple[str, ...]:
    words = list(argv)
    for position, word in enumerate(argv[1:], start=1):
        if argv[position - 1] == FLAG and word == str(before):
            words[position] = str(port)
    return tuple(words)
