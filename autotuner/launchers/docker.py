"""Launcher of servers in Docker containers, through the Docker SDK."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, NotFound
from urllib3.exceptions import HTTPError

from autotuner.core import ServerSpec
from autotuner.errors import ConfigError, MachineError
from autotuner.experiment import Experiment
from autotuner.launchers import containers, images
from autotuner.launchers.protocol import Server

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container
    from docker.types import CancellableStream

CANNOT_START, CANNOT_INVOKE, NOT_FOUND = 125, 126, 127
"""Exit statuses of `docker run` when the daemon refuses, and when the command cannot be run."""

MAX_LINE_BYTES = 64 * 1024
"""Bytes of an unfinished line that are buffered before they are written."""

MEMORY_EVENT_SECONDS = 3.0
"""How long after a container's end Docker may take to say that the kernel killed it, of which it hears apart."""

OUT_OF_MEMORY_MESSAGE = "Out of memory: the kernel killed the container at its memory limit (OOMKilled)"


class DockerServer:
    """A container, with a thread that copies its output to the log and waits for its end."""

    def __init__(self, url: str, output: FileIO) -> None:
        self.url = url
        self._output = output
        self._status: int | None = None
        self._daemon_error: str | None = None
        self._follower: threading.Thread | None = None

    def exit_status(self) -> int | None:
        """Exit status, above 128 for a signal; None while it runs; MachineError if the daemon went away."""
        if self._daemon_error is not None:
            raise MachineError(
                "The Docker daemon went away during a trial.",
                why=self._daemon_error,
                remedy="Start it again and continue with --resume, which removes the container left running.",
            )
        return self._status

    def start(self, container: Container) -> None:
        """Start the container with all of its output copied to the log."""
        chunks = container.attach(stream=True, logs=False, demux=True)
        try:
            container.start()
        except APIError as error:
            _close_stream(chunks)
            self.record_refusal(error)
            return
        self._follower = threading.Thread(target=self._follow, args=(container, chunks), daemon=True)
        self._follower.start()

    def record_refusal(self, error: APIError) -> None:
        """Log a refusal of the daemon and set the exit status that `docker run` would give."""
        message = str(error.explanation)
        self.write_line(f"docker: {message}")
        self._status = _refusal_status(message)

    def write_line(self, line: str) -> None:
        """Write a line to the log on behalf of autotune."""
        self._write(f"autotune: {line}\n".encode())

    def join(self) -> None:
        """Wait until the container's last output is in the log."""
        if self._follower is not None:
            self._follower.join()

    def _follow(self, container: Container, chunks: CancellableStream[Any]) -> None:
        try:
            self._copy_output(chunks)
            _close_stream(chunks)
            status = int(container.wait()["StatusCode"])
            killed_for_memory = _was_killed_for_memory(container, status)
        except NotFound:
            self._status = 128 + signal.SIGKILL  # it was removed by force
        except (*images.DOCKER_ERRORS, HTTPError, OSError) as error:
            self._daemon_error = str(error).splitlines()[0] if str(error) else type(error).__name__
        else:
            if killed_for_memory:
                self.write_line(OUT_OF_MEMORY_MESSAGE)
            self._status = status

    def _copy_output(self, chunks: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Write whole lines only, because stdout and stderr arrive in chunks that must not mix within a line."""
        partial_lines = [b"", b""]
        for pair in chunks:
            for stream, chunk in enumerate(pair):
                text = partial_lines[stream] + (chunk or b"")
                end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
                end = end if end or len(text) < MAX_LINE_BYTES else len(text)
                self._write(text[:end])
                partial_lines[stream] = text[end:]
        self._write(b"".join(partial_lines))

    def _write(self, data: bytes) -> None:
        # a full disk must not stop the server; the trial's records will not fit either, and say so
        with contextlib.suppress(OSError):
            if data:
                self._output.write(data)


def _was_killed_for_memory(container: Container, status: int) -> bool:
    """Whether the kernel killed a container that has ended, at its memory limit."""
    deadline = time.monotonic() + MEMORY_EVENT_SECONDS
    while True:
        container.reload()
        if container.attrs["State"].get("OOMKilled"):
            return True
        may_be_told_yet = status == 128 + signal.SIGKILL and container.attrs["HostConfig"].get("Memory")
        if not may_be_told_yet or time.monotonic() > deadline:
            return False
        time.sleep(0.1)


class DockerLauncher:
    """Runs a server in a container that is stopped and removed when its block ends.

    `grace` is the number of seconds between SIGTERM and SIGKILL.
    """

    starts_servers = True

    def __init__(self, grace: int = 10) -> None:
        self.grace = grace

    def preflight(self, experiment: Experiment, spec: ServerSpec | None) -> None:
        """Pull the image if it is not here; see Launcher."""
        if spec is None or spec.image is None:
            raise ConfigError("Deployment docker needs runtime.image.", remedy="Give --set runtime.image=NAME:TAG.")
        with images.docker_client() as client:
            images.require_image(client, spec.image)

    def run_block(self) -> AbstractContextManager[None]:
        """Nothing: launches share nothing; see Launcher."""
        return nullcontext()

    def launch(self, spec: ServerSpec | None, log: Path) -> AbstractContextManager[Server]:
        """Start the container of `spec`; see Launcher."""
        if spec is None or spec.image is None:
            raise ValueError("a container needs a spec with an image")
        return self._launch(spec, spec.image, log)

    @contextmanager
    def _launch(self, spec: ServerSpec, image: str, log: Path) -> Iterator[Server]:
        with ExitStack() as cleanup:
            client = cleanup.enter_context(images.docker_client())
            output = cleanup.enter_context(FileIO(log, "ab"))
            for mount in spec.mounts:
                if not mount.read_only and not Path(mount.host).exists():  # Docker refuses to mount a missing folder
                    Path(mount.host).mkdir(parents=True)
            server = DockerServer(f"http://{containers.LOOPBACK}:{spec.port}", output)
            cleanup.callback(server.join)
            name = f"autotune-{os.getpid()}-{secrets.token_hex(4)}"
            # from here on, whatever happens, the container called `name` is removed
            cleanup.callback(self._remove_container, client, name)
            self._create_container(client, spec, image, name, log, server)
            yield server

    def _create_container(
        self, client: DockerClient, spec: ServerSpec, image: str, name: str, log: Path, server: DockerServer
    ) -> None:
        digest = images.image_digest(images.require_image(client, image))
        server.write_line(f"image {image} is {digest}")
        arguments = containers.create_arguments(spec) | {"name": name, "labels": containers.trial_labels(log)}
        try:
            container = client.containers.create(**arguments)
        except APIError as error:
            server.record_refusal(error)
            return
        server.start(container)

    def _remove_container(self, client: DockerClient, name: str) -> None:
        """Stop the container with SIGTERM, then remove it; when the daemon is gone the next run removes it."""
        with contextlib.suppress(NotFound, *images.DOCKER_ERRORS):
            container = client.containers.get(name)
            try:
                container.stop(timeout=self.grace)
            finally:
                container.remove(force=True, v=True)


def _close_stream(chunks: CancellableStream[Any]) -> None:
    """Close the socket of an attached stream, which the SDK leaves open when the daemon closes it first."""
    with contextlib.suppress(OSError):
        chunks.close()
    response: Any = vars(chunks)["_response"]
    response.raw._fp.fp.close()


def _refusal_status(message: str) -> int:
    if "executable file not found" in message or "no such file or directory" in message:
        return NOT_FOUND
    return CANNOT_INVOKE if "permission denied" in message else CANNOT_START
