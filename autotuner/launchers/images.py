"""Container images: had, pulled, told apart by digest, and asked for the flags of the engine inside."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, DockerException, ImageNotFound
from requests.exceptions import RequestException

from autotuner.core import ServerSpec
from autotuner.engines import installed
from autotuner.engines.flags import FlagTable, parse_help
from autotuner.engines.protocol import Engine
from autotuner.errors import MachineError
from autotuner.experiment import Runtime

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image

LOG = logging.getLogger(__name__)
DOCKER_ERRORS = (DockerException, RequestException)
"""What the SDK raises when the daemon refuses, and when it does not answer."""

DOCKER_SOCKET = "/var/run/docker.sock"
"""Where the daemon listens unless DOCKER_HOST says otherwise."""

PROGRESS_STEP = 0.1
"""The share of a pull after which its progress is told again."""

HELP_TIMEOUT_SECONDS = 180
"""Seconds: engines import their whole framework to print their help."""


@contextmanager
def docker_client() -> Iterator[DockerClient]:
    """A client of the Docker daemon; MachineError when none answers."""
    import docker

    try:
        client = docker.from_env()
    except DockerException as error:
        raise unreachable_error(error) from error
    try:
        client.ping()
        yield client
    except RequestException as error:
        raise unreachable_error(error) from error
    finally:
        client.close()


def unreachable_error(error: Exception) -> MachineError:
    """The Docker daemon as something this machine lacks."""
    where, cause = os.environ.get("DOCKER_HOST") or DOCKER_SOCKET, _system_error(error)
    if isinstance(cause, PermissionError):
        return MachineError(
            f"This user may not talk to the Docker daemon at {where}.",
            remedy="Add the user to the group 'docker', and log in again.",
        )
    said = f" ({cause.strerror})" if cause else ""
    # without a cause the SDK's own text is plain, and what requests says of a time-out is not
    return MachineError(
        f"No Docker daemon answers at {where}{said}.",
        why="" if cause or isinstance(error, RequestException) else str(error),
        remedy="Start it, for example with `systemctl start docker`, or use --deployment process.",
    )


def _system_error(error: BaseException | None) -> OSError | None:
    """The system's own error that the SDK, requests and urllib3 wrapped; None where it was none."""
    found = None
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            found = error
        error = error.__cause__ or error.__context__
    return found


def require_image(client: DockerClient, name: str) -> Image:
    """The image called `name`, pulled when it is not here; MachineError when it cannot be had."""
    with contextlib.suppress(ImageNotFound):
        return client.images.get(name)
    LOG.info("pulling image %s", name)
    try:
        _log_progress(name, client.api.pull(name, tag=_default_tag(name), stream=True, decode=True))
        return client.images.get(name)
    except DockerException as error:
        raise _pull_error(name, error) from error


def image_digest(image: Image) -> str:
    """What the image is, whatever its name is given to later: its digest in a registry, else its id."""
    known: list[str] = image.attrs.get("RepoDigests") or []
    return known[0].rpartition("@")[2] if known else str(image.id)


def image_flags(client: DockerClient, engine: Engine, runtime: Runtime, image: Image) -> FlagTable | None:
    """The flags of the engine in an image, from its own --help; None when it does not print them.

    They are remembered under the image's id and what is mounted over it.
    """
    spec = engine.help_spec(runtime)
    mounted = [f"{mount.host} {_modified_time(mount.host)}" for mount in spec.mounts]
    key = (str(image.id), str(spec.entrypoint), *spec.container_argv, *mounted)
    table = installed.cached_flags(*key)
    if table is None:
        known = engine.flags()
        LOG.info("asking %s in %s for its flags", engine.name, spec.image)
        table = parse_help(_help_text(client, spec), engine.name, f"in {spec.image}", known)
        if not table.flags:
            return None
        installed.cache_flags(table, *key)
    return table


def _help_text(client: DockerClient, spec: ServerSpec) -> str:
    """What a container prints, empty when it fails."""
    from autotuner.launchers import containers

    try:
        container = client.containers.create(**containers.create_arguments(spec))
    except APIError:
        return ""
    try:
        container.start()
        status = container.wait(timeout=HELP_TIMEOUT_SECONDS)["StatusCode"]
        return container.logs(stdout=True, stderr=False).decode("utf-8", "replace") if status == 0 else ""
    except DOCKER_ERRORS:
        return ""
    finally:
        with contextlib.suppress(*DOCKER_ERRORS):
            container.remove(force=True, v=True)


def _modified_time(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


def _default_tag(name: str) -> str | None:
    """The tag to pull where the name has none, for the SDK would pull them all."""
    return None if "@" in name or ":" in name.rpartition("/")[2] else "latest"


def _log_progress(name: str, events: Iterable[Mapping[str, Any]]) -> None:
    """Log the share that is here in steps; DockerException when an event says the pull failed."""
    layers: dict[str, tuple[int, int]] = {}
    told = 0.0
    for event in events:
        if "error" in event:
            raise DockerException(str(event["error"]))
        detail = event.get("progressDetail") or {}
        if event.get("status") == "Downloading" and detail.get("total"):
            layers[str(event.get("id"))] = (detail.get("current", 0), detail["total"])
        here, total = (sum(column) for column in zip(*layers.values(), strict=True)) if layers else (0, 0)
        if total and here / total >= told + PROGRESS_STEP:
            told = here / total
            LOG.info("pulling image %s: %.0f %% of %.1f GB", name, told * 100, total / 1e9)


def _pull_error(name: str, error: Exception) -> MachineError:
    text = str(getattr(error, "explanation", None) or error)
    if "denied" in text or "unauthorized" in text:
        remedy = "Correct runtime.image, or log in to its registry with `docker login`."
    elif "no such host" in text or "timeout" in text or "refused" in text or "unreachable" in text:
        remedy = "Check the network, or bring the image here with `docker load`."
    else:
        remedy = "Correct runtime.image."
    return MachineError(f"The image '{name}' is not here and cannot be pulled.", why=text, remedy=remedy)
