"""Environment variables of a server: settings with their values, secrets by name only."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from autotuner.core import Value
from autotuner.errors import ConfigError
from autotuner.experiment import Runtime
from autotuner.redaction import SECRET_NAME, is_path_of_secret, secret_in, url_password

HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SECRET_FLAG = re.compile(r"--?[\w-]*(api[-_]?key|password|secret|(hf|auth|access|bearer)[-_]?token)$", re.IGNORECASE)

WIDE_TERMINAL = {"COLUMNS": "10000"}
"""For --help: an option's names and choices must stay on one line."""


def visible_devices(devices: Sequence[int]) -> dict[str, str]:
    """Variables that limit a CUDA process to these GPUs, in the driver's numbering; empty for no GPUs."""
    if not devices:
        return {}
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, devices))}


def split_secrets(runtime: Runtime) -> tuple[dict[str, str], tuple[str, ...]]:
    """Split `runtime.env` into variables that may be written down, and names of secrets that are passed through.

    A variable named like a secret must have an empty value, which passes it through from the caller's
    environment; ConfigError if it has a value. Hugging Face tokens are always passed through.
    """
    env: dict[str, str] = {}
    secrets = [name for name in HUB_TOKENS if os.environ.get(name)]
    for name, value in runtime.env.items():
        is_named_secret = SECRET_NAME.search(name) and not is_path_of_secret(name, value)
        is_secret = is_named_secret or secret_in("", value)
        if not is_secret and (value or not url_password(os.environ.get(name, ""))):
            env[name] = value
        elif value:
            raise ConfigError(
                f"runtime.env.{name} has a value, and looks like a secret.",
                why="A configuration is written to the run folder and printed.",
                remedy=f'Export {name} in your shell and write {name}: "" to pass it through.',
            )
        else:
            secrets.append(name)
    return env, tuple(dict.fromkeys(secrets))


def check_secrets(parameters: Mapping[str, Sequence[Value]], runtime: Runtime) -> None:
    """Raise ConfigError for a secret in `runtime.env`, `runtime.extra_args` or a parameter of the engine.

    A command line is written to the run folder, printed, and shown to every user of the machine by `ps`.
    """
    split_secrets(runtime)
    for argument in runtime.extra_args:
        flag, _, value = argument.partition("=")
        if SECRET_FLAG.fullmatch(flag):
            raise _secret_in_command(f"{flag} in runtime.extra_args is a secret.")
        _check_value("runtime.extra_args", argument)
        _check_value("runtime.extra_args", value)
    for name, values in parameters.items():
        if SECRET_FLAG.fullmatch(f"--{name.lstrip('-')}"):
            raise _secret_in_command(f"parameters.{name} is a secret.")
        for setting in values:
            _check_value(f"parameters.{name}", str(setting))


def _check_value(place: str, value: str) -> None:
    if reason := secret_in("", value):
        raise _secret_in_command(f"{place} {reason}.")


def _secret_in_command(what: str) -> ConfigError:
    return ConfigError(
        what,
        why="The command is written to the run folder and printed, and `ps` shows it to every user.",
        remedy="Pass the secret through an environment variable of the engine instead: export it, and name it with "
        "an empty value in runtime.env.",
    )
