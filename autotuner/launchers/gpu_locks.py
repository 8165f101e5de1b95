"""One lock per GPU, so that two runs of a user on one machine never share one.

A lock is a file that its holder has locked with flock and written its owner into: it ends with
the process, however that ends, and the file alone means nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from autotuner.errors import ConfigError, MachineError
from autotuner.launchers import owner
from autotuner.launchers.gpus import GpuInventory, InstalledGpu, query_inventory

VISIBLE_DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"


class LockHeldError(Exception):
    """Another process has the lock; the text is its owner."""


def lock_folder() -> Path:
    """Where this user's locks lie: one place, whatever a login or a job sets in its environment."""
    return Path(f"/tmp/autotune-{os.getuid()}") / "gpus"


@contextmanager
def reserve_gpus(
    count: int,
    indexes: Sequence[int] = (),
    *,
    locks: Path | None = None,
    query: Callable[[], GpuInventory] = query_inventory,
) -> Iterator[tuple[int, ...]]:
    """Hold `count` free GPUs until the block ends, best connected first; their indexes.

    `among` are all taken, busy or not; else the choice is among the idle ones, of those that
    CUDA_VISIBLE_DEVICES names where it is set. Empty for a count of 0, and on a machine whose
    driver lists no GPUs, unless `among` names some. MachineError when too few are free, with who
    holds the others.
    """
    if count == 0 and not indexes:
        yield ()
        return
    found = query()
    allowed = _eligible_gpus(found, indexes)
    if not found.gpus and not indexes:
        yield ()
        return
    with ExitStack() as held:
        free, taken = _lock_free_gpus(allowed, locks or lock_folder(), held, busy_too=bool(indexes))
        wanted = max(count, len(indexes))
        if len(free) < wanted:
            raise MachineError(
                f"{wanted} GPUs are needed and {len(free)} of {len(allowed)} are free.",
                why=" ".join(f"GPU {index} {reason}." for index, reason in taken.items()),
                remedy="Wait for the other to end, choose other GPUs with --gpus, or lower tp-size.",
            )
        chosen = found.closest_first(free)[:wanted]
        for index in free.keys() - set(chosen):
            free[index].close()
        yield chosen


def _eligible_gpus(found: GpuInventory, among: Sequence[int]) -> list[InstalledGpu]:
    unknown = sorted(set(among) - {gpu.index for gpu in found})
    if unknown:
        raise ConfigError(
            f"There is no GPU {unknown[0]}.",
            why=f"This machine has {len(found)}" + (f": {found.reason}." if found.reason else ", counted from 0."),
            remedy="Correct --gpus; `autotune doctor` lists them.",
        )
    if among:
        return [gpu for gpu in found if gpu.index in among]
    words = [word.strip() for word in os.environ.get(VISIBLE_DEVICES_VARIABLE, "").split(",") if word.strip()]
    if not words:
        return list(found)
    return [gpu for gpu in found if str(gpu.index) in words or any(gpu.uuid.startswith(word) for word in words)]


def _lock_free_gpus(
    gpus: Sequence[InstalledGpu], where: Path, held: ExitStack, *, busy_too: bool
) -> tuple[dict[int, IO[str]], dict[int, str]]:
    """Lock every GPU that is free; the locks, and why the others are not."""
    free: dict[int, IO[str]] = {}
    taken: dict[int, str] = {}
    for gpu in gpus:
        if not (gpu.is_idle or busy_too):
            used = (gpu.memory_total_bytes - gpu.memory_free_bytes) / 2**30
            taken[gpu.index] = f"has {used:.0f} GiB in use by another program"
            continue
        try:
            free[gpu.index] = held.enter_context(lock_file(where / f"{gpu.uuid}.lock"))
        except LockHeldError as error:
            taken[gpu.index] = f"is held by another autotune ({error})"
    return free, taken


def lock_file(path: Path) -> IO[str]:
    """Lock a file until it is closed; HeldError when another process has it."""
    path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(exist_ok=True)
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with file:
                file.seek(0)
                holder = owner.parse(file.read().strip())
            raise LockHeldError(f"process {holder.pid}" if holder else "a process that is starting") from error
        if _is_same_file(path, file):
            file.truncate(0)
            file.write(f"{owner.this_process()}\n")
            file.flush()
            return file
        file.close()  # it was cleaned away between opening and locking


def remove_stale_locks(locks: Path | None = None) -> list[str]:
    """Remove the files of locks that nobody holds; their names."""
    removed = []
    for path in sorted((locks or lock_folder()).glob("*.lock")):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same_file(path, file):
                path.unlink()
                removed.append(path.name)
    return removed


def _is_same_file(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
