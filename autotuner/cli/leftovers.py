"""Removal of what an interrupted run leaves in its folder: a truncated line, an unfinished trial's folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from autotuner.errors import RunStoreError
from autotuner.runs.store import EXPERIMENT_FILE, TRIALS_FILE, RunStore

RemovedItem = tuple[Literal["folder", "line"], str]


def remove_half_written(root: Path) -> Iterator[RemovedItem]:
    """Remove unfinished trials of all runs under `root` that are not in use, and yield what was removed."""
    for path in sorted(file.parent for file in root.glob(f"*/{EXPERIMENT_FILE}")):
        try:
            store = RunStore.open(path)
            with store.lock():
                yield from _remove_unfinished(store)
        except RunStoreError:
            continue  # in use, or written by another version


def _remove_unfinished(store: RunStore) -> Iterator[RemovedItem]:
    finished = {f"{trial.number:03d}" for trial in store.trials()}
    for folder in sorted((store.path / "trials").glob("*")):
        if folder.name not in finished:
            shutil.rmtree(folder, ignore_errors=True)
            yield "folder", str(folder)
    lines = store.path / TRIALS_FILE
    if lines.exists() and not (text := lines.read_bytes()).endswith(b"\n") and text:
        with lines.open("r+b") as file:
            file.truncate(text.rfind(b"\n") + 1)
        yield "line", str(lines)
