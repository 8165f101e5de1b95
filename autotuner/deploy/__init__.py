"""Renders a ServerSpec as a shell command, `docker run` or a Compose file: what is printed is what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autotuner.core import ServerSpec
from autotuner.deploy.compose import render_compose
from autotuner.deploy.port import with_port
from autotuner.deploy.shell import render_docker, render_shell
from autotuner.errors import UsageError, unknown_name_message

__all__ = ["FORMATS", "with_comment", "render", "with_port"]

FORMATS: Mapping[str, Callable[[ServerSpec], str]] = {
    "shell": render_shell,
    "docker": render_docker,
    "compose": render_compose,
}


def render(spec: ServerSpec, format: str) -> str:
    """`spec` in one of FORMATS, ending with a newline; UsageError for a container format without an image."""
    if format not in FORMATS:
        raise UsageError(unknown_name_message("format", format, FORMATS))
    if format != "shell" and spec.image is None:
        raise UsageError(
            f"There is no {format} form of this server.",
            why="It ran as a process and names no container image; the simulated engine has none.",
            remedy="Take --format shell, or run with --deployment docker and a runtime that has an image.",
        )
    return FORMATS[format](spec)


def with_comment(text: str, remark: str) -> str:
    """A rendered server with `remark` above it as comment lines, valid in shells and in YAML."""
    return "".join(f"# {line}\n" for line in remark.splitlines()) + text
