"""Removes what owners that were killed left behind: containers, processes, locks, working folders."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from autotuner.launchers import gpu_locks, owner

DOCKER_SOCKET = Path("/var/run/docker.sock")
DOCKER_TIMEOUT_SECONDS = 5
"""Seconds the Docker daemon gets to list its containers; a run must not wait for one that hangs."""

LOAD_FOLDER_PATTERN = re.compile(r"autotune-load-(\d+)-")
MAX_PASSES = 20
"""How often processes are looked for: what is killed may just have started another."""

RemovedItem = tuple[Literal["container", "process", "lock", "folder"], str]
"""One thing that was removed, and its name."""


def remove_orphans() -> list[RemovedItem]:
    """Remove everything whose owner is gone; what was removed. Never touches what a living run uses."""
    return [
        *_remove_containers(),
        *_kill_processes(),
        *(("lock", name) for name in gpu_locks.remove_stale_locks()),
        *_remove_load_folders(),
    ]


def _remove_containers() -> Iterator[RemovedItem]:
    """Containers with the label of an owner that is gone; none where no daemon answers."""
    if not (DOCKER_SOCKET.exists() or os.environ.get("DOCKER_HOST")):
        return
    import docker
    from docker.errors import APIError

    from autotuner.launchers.containers import OWNER_LABEL
    from autotuner.launchers.images import DOCKER_ERRORS

    with (
        contextlib.suppress(*DOCKER_ERRORS),
        contextlib.closing(docker.from_env(timeout=DOCKER_TIMEOUT_SECONDS)) as client,
    ):
        for container in client.containers.list(all=True, filters={"label": OWNER_LABEL}, ignore_removed=True):
            left_by = owner.parse(container.labels.get(OWNER_LABEL, ""))
            if left_by is not None and left_by.is_gone:
                # another run may be removing it too
                with contextlib.suppress(APIError):
                    container.remove(force=True, v=True)
                    yield "container", str(container.name)


def _kill_processes() -> Iterator[RemovedItem]:
    """Kill every process that carries the name of an owner that is gone."""
    for _ in range(MAX_PASSES):
        found = list(_orphan_pids())
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                yield "process", str(pid)
        time.sleep(0.05)


def _orphan_pids() -> Iterator[int]:
    marker = f"{owner.OWNER_VARIABLE}=".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended, or belongs to another user
        named = next((entry[len(marker) :] for entry in variables if entry.startswith(marker)), None)
        left_by = owner.parse(named.decode("utf-8", "replace")) if named else None
        if left_by is not None and left_by.is_gone and owner.start_time(pid) is not None:
            yield pid


def _remove_load_folders() -> Iterator[RemovedItem]:
    """Working folders of the load generator, which name the process that made them."""
    for path in Path(tempfile.gettempdir()).glob("autotune-load-*"):
        made_by = LOAD_FOLDER_PATTERN.match(path.name)
        if made_by and owner.start_time(int(made_by[1])) is None:
            with contextlib.suppress(OSError):
                shutil.rmtree(path)
                yield "folder", str(path)
