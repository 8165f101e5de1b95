"""Which clusters hold objects of runs that this machine started, and their removal when such a run was killed.

Each ConfigMap is noted in a file of this user before it is created, so that the next command finds it without
being told the cluster; deleting it deletes all Jobs and pods of its run.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from autotuner import owner
from autotuner.deploy.kubernetes.options import ClusterOptions
from autotuner.errors import AutotuneError
from autotuner.launchers.gpu_locks import lock_folder
from autotuner.redaction import write_redacted

CLEANING_TIMEOUT_SECONDS = 5.0
"""Seconds that a request of the cleaning up may take: a new run must not wait for a cluster that is gone."""


MAX_NOTE_SECONDS = 30 * 24 * 3600.0
"""Age of a note that is dropped: whatever it was about has ended at its deadline."""


@dataclass(frozen=True)
class ClusterNote:
    """Where a ConfigMap of a run is: kubeconfig and context as they were given, namespace, name, and its leader."""

    kubeconfig: str | None
    context: str | None
    namespace: str
    name: str
    leader: str


def notes_folder() -> Path:
    """The folder of this user's notes, beside the locks of GPUs."""
    return lock_folder().with_name("clusters")


def save_note(note: ClusterNote) -> None:
    """Write a note, before its ConfigMap is created."""
    folder = notes_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_redacted(folder / f"{note.name}.json", json.dumps(asdict(note)))


def remove_note(name: str) -> None:
    """Delete the note about a ConfigMap that is gone."""
    (notes_folder() / f"{name}.json").unlink(missing_ok=True)


def read_notes() -> Iterator[ClusterNote]:
    """All notes of this user."""
    for path in sorted(notes_folder().glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            yield ClusterNote(**json.loads(path.read_text("utf-8")))


def notes_of(leader: str) -> list[ClusterNote]:
    """The notes of runs that this process leads."""
    return [note for note in read_notes() if note.leader == leader]


def stale_notes() -> Iterator[ClusterNote]:
    """The notes whose run's process has ended; those of a cluster that has not answered for long are dropped."""
    for path in notes_folder().glob("*.json"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > MAX_NOTE_SECONDS:
                path.unlink()
    for note in read_notes():
        leader = owner.parse(note.leader)
        if leader is not None and leader.is_gone:
            yield note


def remove_leftovers() -> Iterator[str]:
    """Delete the ConfigMaps of killed runs, with all Jobs and pods they own, and yield `namespace/name` of each.

    A cluster that does not answer is left for the next time; its Jobs end at their deadline by themselves.
    """
    for note in stale_notes():
        with contextlib.suppress(AutotuneError):
            if delete_config_map(note):
                yield f"{note.namespace}/{note.name}"


def delete_config_map(note: ClusterNote) -> bool:
    """Delete a ConfigMap, unless another process has taken it over; whether it was there.

    AutotuneError if the cluster does not answer.
    """
    from lightkube.core.exceptions import ApiError
    from lightkube.resources.core_v1 import ConfigMap
    from lightkube.types import CascadeType

    from autotuner.launchers.kubernetes import connection
    from autotuner.launchers.kubernetes.objects import OWNER_ANNOTATION

    options = ClusterOptions(namespace=note.namespace, context=note.context, kubeconfig=note.kubeconfig)
    with (
        connection.connect(options, CLEANING_TIMEOUT_SECONDS) as client,
        connection.explained_errors(client, "delete a ConfigMap"),
    ):
        try:
            current = client.get(ConfigMap, note.name)
            annotations = (current.metadata.annotations if current.metadata else None) or {}
            is_ours = annotations.get(OWNER_ANNOTATION) == note.leader
            if is_ours:
                client.delete(ConfigMap, note.name, cascade=CascadeType.BACKGROUND)
        except ApiError as error:
            if connection.status_code(error) != connection.NOT_FOUND:
                raise
            is_ours = False
    remove_note(note.name)
    return is_ours
