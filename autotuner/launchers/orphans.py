"""Removes containers, processes, Jobs on clusters, locks and working folders whose owner process was killed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from autotuner import owner
from autotuner.launchers import gpu_locks

DOCKER_SOCKET = Path("/var/run/docker.sock")
DOCKER_TIMEOUT_SECONDS = 5
"""Seconds to wait for the Docker daemon; a run must not wait for one that hangs."""

LOAD_FOLDER_PATTERN = re.compile(r"autotune-load-([1-9][0-9]{0,6})-")
MAX_PASSES = 20
"""Scans for orphaned processes: one that is killed may just have started another."""

RemovedItem = tuple[Literal["container", "process", "run on a cluster", "lock", "folder"], str]
"""What was removed, and its name."""


def remove_orphans() -> list[RemovedItem]:
    """Remove everything whose owner has ended, and list it; nothing that a live run uses is touched."""
    return [
        *_remove_containers(),
        *_kill_processes(),
        *_remove_from_clusters(),
        *(("lock", name) for name in gpu_locks.remove_stale_locks()),
        *_remove_load_folders(),
    ]


def _remove_containers() -> Iterator[RemovedItem]:
    """Remove containers labelled with an owner that has ended; none when no daemon answers."""
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
            container_owner = owner.parse(container.labels.get(OWNER_LABEL, ""))
            if container_owner is not None and container_owner.is_gone:
                # another run may be removing it too
                with contextlib.suppress(APIError):
                    container.remove(force=True, v=True)
                    yield "container", str(container.name)


def _remove_from_clusters() -> Iterator[RemovedItem]:
    """Delete what killed runs left on clusters; nothing without the library that speaks with them."""
    from autotuner.launchers.kubernetes import leftovers

    if importlib.util.find_spec("lightkube") is not None:
        yield from (("run on a cluster", name) for name in leftovers.remove_leftovers())


def _kill_processes() -> Iterator[RemovedItem]:
    """Kill every process whose environment names an owner that has ended."""
    for _ in range(MAX_PASSES):
        pids = list(_orphan_pids())
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                yield "process", str(pid)
        time.sleep(0.05)


def _orphan_pids() -> Iterator[int]:
    prefix = f"{owner.OWNER_VARIABLE}=".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            pid = int(folder.name)
            if folder.stat().st_uid != os.geteuid():  # anyone may set a mark; root could read and kill them all
                continue
            variables = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue  # it ended
        value = next((entry.removeprefix(prefix) for entry in variables if entry.startswith(prefix)), None)
        process_owner = owner.parse(value.decode("utf-8", "replace")) if value else None
        if process_owner is not None and process_owner.is_gone and owner.start_time(pid) is not None:
            yield pid


def _remove_load_folders() -> Iterator[RemovedItem]:
    """Remove the load generator's working folders, whose names have the pid of the process that made them."""
    for path in Path(tempfile.gettempdir()).glob("autotune-load-*"):
        match = LOAD_FOLDER_PATTERN.match(path.name)
        with contextlib.suppress(OSError):
            if match and path.lstat().st_uid == os.geteuid() and owner.start_time(int(match[1])) is None:
                shutil.rmtree(path)
                yield "folder", str(path)
