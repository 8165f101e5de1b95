"""The whole command of a server's container, for clusters whose own templates bring commands too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from autotuner.core import ServerSpec
from autotuner.deploy.ome import MODEL_PATH, ContainerCommand
from autotuner.deploy.port import ANY_ADDRESS, with_host
from autotuner.engines import engine
from autotuner.engines.commandline import CommandLineEngine
from autotuner.errors import UsageError

NAME_FLAGS: Mapping[str, str] = {"vllm": "--served-model-name", "sglang": "--served-model-name"}
"""Flags for the name under which a model is served; by default it is the folder, which OME chooses."""


def container_command(runtime: str, server: ServerSpec, model: str) -> ContainerCommand:
    """Program and arguments of a server's container, where it serves `model`, a folder or a name.

    UsageError for a runtime that is not started here.
    """
    command_line = engine(runtime)
    if not isinstance(command_line, CommandLineEngine):
        raise UsageError(f"{runtime} is not started here.", remedy="Choose another trial.")
    program, arguments = command_line.whole_image_command(with_host(server, ANY_ADDRESS))
    flag = NAME_FLAGS.get(runtime)
    if flag is not None and not any(word == flag or word.startswith(f"{flag}=") for word in arguments):
        arguments = (*arguments, flag, server.served_model)
    folders = [mount.container for mount in server.mounts if mount.is_model and mount.container in arguments]
    return ContainerCommand(program, arguments, folders[0] if folders else model)


def with_whole_command(runtime: str, server: ServerSpec, model: str) -> ServerSpec:
    """A copy of `server` whose container is started by its own command, with OME's variable for the model."""
    command = container_command(runtime, server, model)
    position = command.arguments.index(command.model)
    arguments = (*command.arguments[:position], MODEL_PATH, *command.arguments[position + 1 :])
    return replace(server, entrypoint=command.program[0], container_argv=(*command.program[1:], *arguments))
