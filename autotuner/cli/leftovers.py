"""Removal of what an interrupted run leaves in its folder: a truncated line, an unfinished trial's folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from autotuner.errors import RunStoreError
from autotuner.runs.store import DRAFT_PREFIX, TRIALS_FILE, RunStore, run_folders

DRAFT_SECONDS = 60.0
"""Age at which a folder that is not yet a run will not become one: making one takes milliseconds."""

RemovedItem = tuple[Literal["folder", "line"], str]


def remove_half_written(root: Path) -> Iterator[RemovedItem]:
    """Remove unfinished trials of all runs under `root` that are not in use, and yield what was removed."""
    for draft in sorted(root.glob(f"{DRAFT_PREFIX}*")):
        if draft.is_dir() and time.time() - draft.stat().st_mtime > DRAFT_SECONDS:
            shutil.rmtree(draft, ignore_errors=True)
            yield "folder", str(draft)
    for path in run_folders(root):
        try:
            store = RunStore.open(path)
            with store.lock():
                yield from _remove_unfinished(store)
        except RunStoreError:
            continue  # in use, or written by another version


def _remove_unfinished(store: RunStore) -> Iterator[RemovedItem]:
    finished = {f"{trial.number:03d}" for trial in store.summaries()}
    for folder in sorted((store.path / "trials").glob("*")):
        if folder.name not in finished:
            shutil.rmtree(folder, ignore_errors=True)
            yield "folder", str(folder)
    lines = store.path / TRIALS_FILE
    if lines.exists() and not (text := lines.read_bytes()).endswith(b"\n") and text:
        with lines.open("r+b") as file:
            file.truncate(text.rfind(b"\n") + 1)
        yield "line", str(lines)
