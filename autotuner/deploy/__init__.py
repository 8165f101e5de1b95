"""Renders servers as shell commands, `docker run` or Compose files: what is printed is what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autotuner.core import ServerSpec
from autotuner.deploy.comment import with_comment
from autotuner.deploy.compose import render_compose
from autotuner.deploy.files import FILE_NAMES, render_all
from autotuner.deploy.port import with_port
from autotuner.deploy.shell import render_docker, render_shell
from autotuner.errors import UsageError, unknown_name_message
from autotuner.serving import ServingSpec

__all__ = ["FILE_NAMES", "FORMATS", "check_format", "render", "render_files", "with_comment", "with_port"]

FORMATS: Mapping[str, Callable[[ServerSpec], str]] = {
    "shell": render_shell,
    "docker": render_docker,
    "compose": render_compose,
}


def render(spec: ServerSpec, format: str) -> str:
    """`spec` in one of FORMATS, ending with a newline; UsageError for a container format without an image."""
    _check_form(spec, format)
    return FORMATS[format](spec)


def render_files(serving: ServingSpec, format: str) -> dict[str, str]:
    """The deployment in one of FORMATS, as the text of each file by its name; UsageError as of `render`.

    A single server is one file, which has what `render` gives. Of several servers FILE_NAMES[format]
    starts all of them on this host. The remark of the deployment stands above the text of that file.
    """
    for _, server in serving.named_servers():
        _check_form(server, format)
    return render_all(serving, format, FORMATS[format])


def check_format(format: str) -> None:
    """UsageError, with the nearest name, for a format that is not in FORMATS."""
    if format not in FORMATS:
        raise UsageError(unknown_name_message("format", format, FORMATS))


def _check_form(spec: ServerSpec, format: str) -> None:
    check_format(format)
    if format != "shell" and spec.image is None:
        raise UsageError(
            f"There is no {format} form of this server.",
            why="It ran as a process and names no container image; the simulated engine has none.",
            remedy="Take --format shell, or run with --deployment docker and a runtime that has an image.",
        )
