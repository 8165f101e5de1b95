"""The HTTP headers of every request to a server; their values may be secrets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from autotuner.errors import ConfigError, MachineError

if TYPE_CHECKING:
    from autotuner.experiment import Deployment

MIN_SECRET_LENGTH = 4
"""Shorter header values are not masked: they are no secrets, and would be found in any text."""


def request_headers(deployment: Deployment) -> dict[str, str]:
    """The headers of a deployment, and its API key from the environment."""
    headers = dict(deployment.headers)
    if deployment.api_key_env is not None:
        key = os.environ.get(deployment.api_key_env)
        if not key:
            raise MachineError(
                f"The environment variable {deployment.api_key_env} is not set.",
                why="The deployment reads the server's API key from it.",
                remedy=f"Export {deployment.api_key_env}.",
            )
        headers["Authorization"] = f"Bearer {key}"
    check_headers(headers)
    return headers


def check_headers(headers: Mapping[str, str]) -> None:
    """ConfigError when a header cannot be sent."""
    for name, value in headers.items():
        if any(character in name + value for character in "\r\n\0"):
            raise ConfigError(f"The header {name!r} contains a line break.")


def mask_secrets(text: str, headers: Mapping[str, str]) -> str:
    """Mask header values in a text: some servers repeat a rejected API key."""
    values = {secret for value in headers.values() for secret in (value, value.removeprefix("Bearer "))}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= MIN_SECRET_LENGTH:
            text = text.replace(value, "*****")
    return text
