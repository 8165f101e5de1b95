"""A connection to the API server of a cluster, through lightkube, whose errors become paragraphs."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml
from lightkube import Client, KubeConfig
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, SERVICE_ACCOUNT, SingleConfig
from lightkube.core.exceptions import ApiError, ConfigError

from autotuner.deploy.kubernetes.options import ClusterOptions
from autotuner.errors import AutotuneError, MachineError, as_sentence
from autotuner.input_files import expand_home
from autotuner.redaction import remember_secret

FIELD_MANAGER = "autotune"
REQUEST_SECONDS = 20.0
"""Seconds that one request to the API server may take; log streams have no limit."""

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT = 401, 403, 404, 409

CONNECTION_ERRORS = (httpx2.HTTPError, ConfigError, ssl.SSLError, OSError)
"""What a request raises: an ApiError, which is an HTTPError, where the API server has answered."""


@contextmanager
def connect(options: ClusterOptions, timeout: float = REQUEST_SECONDS) -> Iterator[Client]:
    """A client of the cluster in the chosen namespace; MachineError if the configuration names none.

    No request is sent yet.
    """
    config = read_config(options)
    try:
        client = Client(
            config,
            namespace=options.namespace or config.namespace,
            timeout=httpx2.Timeout(timeout),
            field_manager=FIELD_MANAGER,
        )
    except (*CONNECTION_ERRORS, ValueError) as error:
        raise MachineError(
            f"The cluster '{config.context_name}' cannot be used.",
            why=_first_line(error),
            remedy="Correct certificates and log-in of that context, until `kubectl get pods` works.",
        ) from error
    with closing(client):
        yield client


def read_config(options: ClusterOptions) -> SingleConfig:
    """The chosen context of the chosen kubeconfig; in a pod, without either, that of its service account."""
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ and (Path(SERVICE_ACCOUNT) / "token").exists()
    if in_pod and options.kubeconfig is None and options.context is None:
        return _require_user(KubeConfig.from_service_account().get())
    path = kubeconfig_path(options)
    if expand_home(path).is_dir():
        raise _unreadable(path, "It is a folder.")
    if options.kubeconfig is not None and not expand_home(path).exists():
        raise _unreadable(path, "There is no such file.")
    try:
        kubeconfig = KubeConfig.from_file(path)
        if options.context is not None and options.context not in kubeconfig.contexts:
            raise MachineError(
                f"The kubeconfig {path} has no context '{options.context}'.",
                remedy=f"Choose one of its contexts: {', '.join(sorted(kubeconfig.contexts)) or 'it has none'}.",
            )
        config = kubeconfig.get(options.context)
    except ConfigError as error:
        raise MachineError(
            "There is no cluster to run on.",
            why=_first_line(error),
            remedy="Log in to a cluster until `kubectl get pods` works, or name its file with --kubeconfig and its "
            "context with --context.",
        ) from error
    except (OSError, yaml.YAMLError) as error:
        raise _unreadable(path, _first_line(error)) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable(path, "It is empty, or has not the fields of a kubeconfig.") from error
    return _require_user(config)


def _unreadable(path: str, reason: str) -> MachineError:
    return MachineError(
        f"The kubeconfig {path} cannot be read.",
        why=reason,
        remedy="Correct the file until `kubectl config view` shows it, or name another with --kubeconfig.",
    )


def kubeconfig_path(options: ClusterOptions) -> str:
    """The kubeconfig of a user: the chosen one, the first of KUBECONFIG that exists, or kubectl's usual one."""
    if options.kubeconfig is not None:
        return options.kubeconfig
    names = [name for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    existing = [name for name in names if expand_home(name).is_file()]
    return (existing or names or [DEFAULT_KUBECONFIG])[0]


def _require_user(config: SingleConfig | None) -> SingleConfig:
    if config is None or config.user is None:
        raise MachineError(
            "The chosen context of the kubeconfig names no user.",
            remedy="Choose another with --context; `kubectl config get-contexts` lists them.",
        )
    for secret in (config.user.token, config.user.password):
        remember_secret(secret or "")
    return config


@contextmanager
def explained_errors(client: Client, purpose: str) -> Iterator[None]:
    """Turn what a request raises into a MachineError, which says that this `purpose` failed and why."""
    try:
        yield
    except CONNECTION_ERRORS as error:
        raise machine_error(client, purpose, error) from error


def machine_error(client: Client, purpose: str, error: Exception) -> AutotuneError:
    """The error of a request as a paragraph: who was refused what, or which API server does not answer."""
    server = client.config.cluster.server
    status = status_code(error)
    if status == UNAUTHORIZED:
        return MachineError(
            f"The cluster at {server} does not accept the log-in of context '{client.config.context_name}'.",
            why="It answered 401 Unauthorized: the token or certificate has expired, or is none of this cluster's.",
            remedy="Log in again until `kubectl get pods` works.",
        )
    if status == FORBIDDEN:
        return MachineError(
            f"The cluster does not allow to {purpose}.",
            why=message_of(error),
            remedy="Ask its administrator for the Role that the page 'How to run on a Kubernetes cluster' shows, or "
            "choose another --namespace.",
        )
    if status is not None:
        return MachineError(f"The cluster refused to {purpose}.", why=f"{status}: {message_of(error)}")
    return MachineError(
        f"No API server answers at {server}.",
        why=_first_line(error) or type(error).__name__,
        remedy="Look whether the cluster runs and is reached from here: `kubectl get pods`; --context and "
        "--kubeconfig choose another.",
    )


def as_json(resource: Any) -> dict[str, Any]:
    """An object of the API as plain data."""
    data: dict[str, Any] = resource.to_dict()
    return data


def status_code(error: Exception) -> int | None:
    """The HTTP status that an API server, or a proxy before it, answered with; None where none did."""
    if isinstance(error, ApiError) and error.status.code is not None:
        return error.status.code
    return error.response.status_code if isinstance(error, httpx2.HTTPStatusError) else None


def message_of(error: Exception) -> str:
    """What the API server says, on one line."""
    if isinstance(error, ApiError):
        return " ".join((error.status.message or "").split())
    return _first_line(error)


def _first_line(error: Exception) -> str:
    text = next(iter(str(error).splitlines()), "")
    return as_sentence(re.sub(r"\s+", " ", text)) if text else ""
