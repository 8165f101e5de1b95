"""The HTTP headers of every request to a server; their values may be secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from autotuner.endpoints.tls import TlsTrust
from autotuner.errors import ConfigError, MachineError, UsageError
from autotuner.redaction import (
    MASK,
    Redactor,
    is_reference,
    redact,
    remember_headers,
    remember_secret,
    resolve_references,
)

if TYPE_CHECKING:
    from autotuner.experiment import Deployment

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

KEY_HEADERS = ("authorization", "api-key", "x-api-key")
"""The headers in which servers are sent an API key, in lower case."""


def request_headers(deployment: Deployment) -> dict[str, str]:
    """The headers of a deployment, with `${NAME}` read from the environment, and its API key from there.

    All of them are masked from now on wherever a server repeats them.
    """
    headers = {name: _resolved(name, value) for name, value in deployment.headers.items()}
    if deployment.api_key_env is not None:
        if not deployment.api_key_env.isidentifier():
            raise UsageError(
                "The name of the environment variable with the API key is not the name of a variable.",
                why="It is not shown here, because it may be the key itself.",
                remedy="Put the key into a variable, and name that: --api-key-env NAME.",
            )
        key = os.environ.get(deployment.api_key_env)
        if not key:
            raise MachineError(
                f"The environment variable {deployment.api_key_env} is not set.",
                why="The deployment reads the server's API key from it.",
                remedy=f"Export {deployment.api_key_env}.",
            )
        _check_value(f"The API key in {deployment.api_key_env}", key)
        headers["Authorization"] = f"Bearer {key}"
        remember_secret(key)
    check_headers(headers)
    remember_headers(headers)
    return headers


def sends_key(header_names: Iterable[str]) -> bool:
    """Whether one of the headers is an API key."""
    return any(name.lower() in KEY_HEADERS for name in header_names)


def key_remedy(header_names: Iterable[str]) -> str:
    """What to do where a server refuses requests with these headers for want of a valid key."""
    if sends_key(header_names):
        return "Check the API key that was sent, and what it is allowed: the server does not accept it."
    return "Give its API key with --api-key-env NAME, or the header it requires with --header."


def _resolved(name: str, value: str) -> str:
    """The value of a header to send; MachineError if it was a secret, which no run folder keeps, or is not set."""
    if value == MASK:
        raise MachineError(
            f"The header {name!r} of this run is not known any more.",
            why="It may be a secret, and secrets are not written to the run folder.",
            remedy="In the run's experiment.yaml, replace its value by ${NAME} of an environment variable.",
        )
    if not is_reference(value):
        return value
    try:
        resolved = resolve_references(value, os.environ)
    except KeyError as error:
        raise MachineError(
            f"The environment variable {error.args[0]} is not set.",
            why=f"The header {name!r} refers to it.",
            remedy=f"Export {error.args[0]}.",
        ) from error
    remember_secret(resolved)
    return resolved


def tls_trust(deployment: Deployment) -> TlsTrust:
    """Which certificates the server of a deployment is trusted by; ConfigError if it is to be asked without TLS."""
    option = "insecure" if deployment.insecure else "ca_file" if deployment.ca_file else None
    if option and deployment.url and urlsplit(deployment.url).scheme == "http":
        raise ConfigError(
            f"{option.replace('_', '-')} is for addresses of https://, and this one begins with http://.",
            why="Without TLS the server has no certificate.",
            remedy=f"Leave out --{option.replace('_', '-')} (deployment.{option}), or write https://.",
        )
    return TlsTrust(deployment.ca_file, deployment.insecure)


def check_headers(headers: Mapping[str, str]) -> None:
    """ConfigError, which does not repeat the value, when a header cannot be sent as it is."""
    for name, value in headers.items():
        if not _FIELD_NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is not the name of a header.", remedy="Use letters, digits and hyphens.")
        _check_value(f"The header {name!r}", value)


def _check_value(what: str, value: str) -> None:
    faults = {
        "contains a line break or another control character": re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value),
        "begins or ends with a blank": value != value.strip(),
        "contains a character that is not ASCII": not value.isascii(),
    }
    fault = next((fault for fault, found in faults.items() if found), None)
    if fault is not None:
        raise ConfigError(f"{what} {fault}.", remedy="Correct it; it is not shown here, because it may be a secret.")


def mask_secrets(text: str, headers: Mapping[str, str]) -> str:
    """Mask header values in a text: some servers repeat a rejected API key."""
    redactor = Redactor()
    for value in headers.values():
        redactor.remember(value)
    return redact(redactor.text(text))
