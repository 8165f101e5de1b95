"""Renders a server as one shell command over several lines: the process itself, or `docker run`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from autotuner.core import Mount, ServerSpec
from autotuner.escaping import for_shell

_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def render_shell(spec: ServerSpec) -> str:
    """The process as a POSIX shell command; secrets are taken from the shell's variables."""
    env = [f"{name}={for_shell(value)}" for name, value in _plain_env(spec) if _VARIABLE_NAME.fullmatch(name)]
    unassignable = [
        for_shell(f"{name}={value}") for name, value in _plain_env(spec) if not _VARIABLE_NAME.fullmatch(name)
    ]
    secrets = [f'{name}="${name}"' for name in spec.secrets]
    env_command = ["env", *unassignable] if unassignable else []  # for names that are no shell identifiers
    return join_lines([*env, *secrets, *env_command, *group_by_flag(spec.argv)])


def render_docker(spec: ServerSpec) -> str:
    """`docker run` of the image; docker takes the values of secrets from its environment."""
    options = ["docker run", "--rm"]
    if spec.entrypoint is not None:
        options.append(f"--entrypoint {for_shell(spec.entrypoint)}")
    if spec.devices:
        # Docker reads the value as a line of CSV
        indexes = ",".join(map(str, spec.devices))
        options.append(f"""--gpus '"device={indexes}"'""")
    elif spec.gpus:
        options.append(f"--gpus {spec.gpus}")
    options.append(f"--shm-size {for_shell(spec.shm_size)}" if spec.shm_size else "--ipc host")
    options.append("--network host" if spec.network == "host" else f"--publish {spec.port}:{spec.port}")
    if spec.memory is not None:
        options.append(f"--memory {for_shell(spec.memory)} --memory-swap {for_shell(spec.memory)}")
    options += [f"--env {for_shell(f'{name}={value}')}" for name, value in _plain_env(spec)]
    options += [f"--env {name}" for name in spec.secrets]
    options += [f"--mount {for_shell(_mount_option(mount))}" for mount in spec.mounts]
    return join_lines([*options, for_shell(spec.image or ""), *group_by_flag(container_command(spec))])


def container_command(spec: ServerSpec) -> tuple[str, ...]:
    """The arguments after the image name; the whole command where the image has no entry point."""
    return spec.container_argv or spec.argv


def _plain_env(spec: ServerSpec) -> list[tuple[str, str]]:
    return [(name, value) for name, value in spec.env.items() if name not in spec.secrets]


def _mount_option(mount: Mount) -> str:
    fields = ["type=bind", f"source={mount.host}", f"target={mount.container}"]
    if mount.read_only:
        fields.append("readonly")
    return ",".join(_csv_field(field) for field in fields)


def _csv_field(field: str) -> str:
    """The text quoted for docker's --mount, which parses its value as one line of CSV."""
    return '"' + field.replace('"', '""') + '"' if any(character in field for character in ',"\n\r') else field


def group_by_flag(argv: Sequence[str]) -> list[str]:
    """The arguments, shell-quoted, with each flag and its values in one text."""
    lines: list[str] = []
    for position, word in enumerate(argv):
        if position == 0:
            lines.append(_quote_program(word))
        elif word.startswith("--") and len(word) > 2:
            lines.append(for_shell(word))
        else:
            lines[-1] += f" {for_shell(word)}"
    return lines


def _quote_program(word: str) -> str:
    """The program, quoted even where only a `=` would make the shell read it as an assignment."""
    quoted = for_shell(word)
    return f"'{word}'" if quoted == word and "=" in word else quoted


def join_lines(lines: Sequence[str]) -> str:
    """The lines as one shell command, with a backslash at each line end but the last."""
    return " \\\n  ".join(lines) + "\n"
