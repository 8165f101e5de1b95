"""Container images: pulling them, their digests, and the --help of the engine inside."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, DockerException, ImageNotFound
from requests.exceptions import RequestException

from autotuner.core import ServerSpec
from autotuner.errors import MachineError
from autotuner.redaction import write_redacted

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image

LOG = logging.getLogger(__name__)
DOCKER_ERRORS = (DockerException, RequestException)
"""Exceptions of the Docker SDK when the daemon refuses a request, and when it does not answer."""

DOCKER_SOCKET = "/var/run/docker.sock"
"""Where the daemon listens unless DOCKER_HOST says otherwise."""

PROGRESS_STEP = 0.1
"""Fraction of a pull between two log messages about its progress."""

HELP_TIMEOUT_SECONDS = 180
"""Seconds: engines import their whole framework to print their help."""


@contextmanager
def docker_client() -> Iterator[DockerClient]:
    """A client of the Docker daemon; MachineError if none answers."""
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
    """The MachineError for a Docker daemon that cannot be reached."""
    address, cause = os.environ.get("DOCKER_HOST") or DOCKER_SOCKET, _system_error(error)
    if isinstance(cause, PermissionError):
        return MachineError(
            f"This user may not access the Docker daemon at {address}.",
            remedy="Add the user to the group 'docker', and log in again.",
        )
    reason = f" ({cause.strerror})" if cause else ""
    # without a system error the SDK's own message is readable; that of requests for a time-out is not
    return MachineError(
        f"No Docker daemon answers at {address}{reason}.",
        why="" if cause or isinstance(error, RequestException) else str(error),
        remedy="Start it, for example with `systemctl start docker`, or use --deployment process.",
    )


def _system_error(error: BaseException | None) -> OSError | None:
    """The innermost OSError that the SDK, requests and urllib3 wrapped; None if there is none."""
    innermost = None
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            innermost = error
        error = error.__cause__ or error.__context__
    return innermost


def require_image(client: DockerClient, name: str) -> Image:
    """The image called `name`, pulled when it is not on this machine; MachineError if it cannot be pulled."""
    with contextlib.suppress(ImageNotFound):
        return client.images.get(name)
    LOG.info("pulling image %s", name)
    try:
        _log_progress(name, client.api.pull(name, tag=_default_tag(name), stream=True, decode=True))
        return client.images.get(name)
    except DockerException as error:
        raise _pull_error(name, error) from error


def image_digest(image: Image) -> str:
    """The image's registry digest, else its local id: unlike a tag, neither is ever reassigned."""
    digests: list[str] = image.attrs.get("RepoDigests") or []
    return digests[0].rpartition("@")[2] if digests else str(image.id)


def help_text(spec: ServerSpec) -> str:
    """What the container of `spec` prints, which is an engine's --help; empty without its image, or when it fails.

    It is cached by the image's id, the command and the mounted files.
    """
    with contextlib.suppress(ImageNotFound), docker_client() as client:
        cache = _cache_file(client.images.get(spec.image or ""), spec)
        with contextlib.suppress(OSError):
            return cache.read_text(encoding="utf-8")
        LOG.info("asking the engine in %s for its flags", spec.image)
        text = _run_and_read_stdout(client, spec)
        if text:
            _write_cache(cache, text)
        return text
    return ""


def _cache_file(image: Image, spec: ServerSpec) -> Path:
    from platformdirs import user_cache_path

    mount_states = [f"{mount.host} {_modified_time(mount.host)}" for mount in spec.mounts]
    identity = "\n".join((str(image.id), str(spec.entrypoint), *spec.container_argv, *mount_states))
    return user_cache_path("autotune") / "help" / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.txt"


def _write_cache(path: Path, text: str) -> None:
    # on a full or read-only disk the next run just asks again
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        write_redacted(draft, text)
        draft.replace(path)


def _run_and_read_stdout(client: DockerClient, spec: ServerSpec) -> str:
    """Run the container of `spec` for at most HELP_TIMEOUT_SECONDS, and return what it prints.

    Empty when the daemon refuses it, and when it fails or takes too long; a daemon that gives no answer is
    an error for the caller.
    """
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
    """The tag `latest` for a name without a tag or digest, of which the SDK would pull every tag; else None."""
    return None if "@" in name or ":" in name.rpartition("/")[2] else "latest"


def _log_progress(name: str, events: Iterable[Mapping[str, Any]]) -> None:
    """Log the progress of a pull in steps; DockerException when an event says that it failed."""
    layers: dict[str, tuple[int, int]] = {}
    logged_fraction = 0.0
    for event in events:
        if "error" in event:
            raise DockerException(str(event["error"]))
        detail = event.get("progressDetail") or {}
        if event.get("status") == "Downloading" and detail.get("total"):
            layers[str(event.get("id"))] = (detail.get("current", 0), detail["total"])
        received, total = (sum(column) for column in zip(*layers.values(), strict=True)) if layers else (0, 0)
        if total and received / total >= logged_fraction + PROGRESS_STEP:
            logged_fraction = received / total
            LOG.info("pulling image %s: %.0f %% of %.1f GB", name, logged_fraction * 100, total / 1e9)


def _pull_error(name: str, error: Exception) -> MachineError:
    text = str(getattr(error, "explanation", None) or error)
    if "denied" in text or "unauthorized" in text:
        remedy = "Correct runtime.image, or log in to its registry with `docker login`."
    elif "no such host" in text or "timeout" in text or "refused" in text or "unreachable" in text:
        remedy = "Check the network, or bring the image here with `docker load`."
    else:
        remedy = "Correct runtime.image."
    return MachineError(f"The image '{name}' is not here and cannot be pulled.", why=text, remedy=remedy)
