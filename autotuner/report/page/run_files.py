"""What the page reads of a run folder besides the view: its state, its experiment, and where settings came from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autotuner.errors import mask_credentials
from autotuner.runs.store import EXPERIMENT_FILE, LOCK_FILE, SEARCH_FILE, RunStore

RunState = Literal["running", "finished", "interrupted"]

MAX_EXPERIMENT_CHARACTERS = 40_000


@dataclass(frozen=True)
class RunFiles:
    """The texts of a run folder that the page shows, and whether the run goes on.

    `settings` are (setting, layer it came from); `unfinished_trials` the numbers of trials that have a
    folder and no result yet.
    """

    name: str
    state: RunState
    experiment: str
    settings: tuple[tuple[str, str], ...]
    unfinished_trials: tuple[int, ...] = ()


def read_run_files(store: RunStore, state: RunState | None = None) -> RunFiles:
    """Read them; what is missing or damaged is left out. `state` is that of the folder where it is not given."""
    try:
        settings = tuple((str(name), str(layer)) for name, layer in store.provenance()["values"].items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        settings = ()
    try:
        experiment = (store.path / EXPERIMENT_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        experiment = ""
    finished = {trial.number for trial in store.summaries()}
    opened = {int(path.name) for path in (store.path / "trials").glob("[0-9]*") if path.name.isdigit()}
    return RunFiles(
        name=store.path.resolve().name,
        state=state or run_state(store.path),
        experiment=mask_credentials(experiment[:MAX_EXPERIMENT_CHARACTERS]),
        settings=settings,
        unfinished_trials=tuple(sorted(opened - finished)),
    )


def run_state(path: Path) -> RunState:
    """Whether a process adds trials to the run now, whether it came to its end, or neither."""
    if is_locked(path / LOCK_FILE):
        return "running"
    return "finished" if (path / SEARCH_FILE).exists() else "interrupted"


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock on the file, by the kernel's list of locks.

    Taking the lock to find out would make a run that starts at this instant believe that another one has it.
    """
    try:
        status, locks = path.stat(), Path("/proc/locks").read_text()
    except OSError:
        return False
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return any(device in line.split() for line in locks.splitlines())
