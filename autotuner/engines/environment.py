"""Environment variables of a server: settings with their values, secrets by name only."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from autotuner.errors import ConfigError
from autotuner.experiment import Runtime

HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SECRET_NAME = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIALS?)$", re.IGNORECASE)
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
    environment; ConfigError when it has a value. Hugging Face tokens are always passed through.
    """
    env: dict[str, str] = {}
    secrets = [name for name in HUB_TOKENS if os.environ.get(name)]
    for name, value in runtime.env.items():
        if not SECRET_NAME.search(name):
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


def check_secrets(runtime: Runtime) -> None:
    """Raise ConfigError for a secret in `runtime.env` or `runtime.extra_args`."""
    split_secrets(runtime)
    for argument in runtime.extra_args:
        if SECRET_FLAG.fullmatch(argument.partition("=")[0]):
            raise ConfigError(
                f"{argument.partition('=')[0]} in runtime.extra_args is a secret.",
                why="The command is written to the run folder and printed.",
                remedy="Pass the secret through an environment variable of the engine instead.",
            )
