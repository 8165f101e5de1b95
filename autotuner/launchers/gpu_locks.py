"""One lock file per GPU, so that two runs of a user on one machine never share a GPU.

The holder locks the file with flock and writes its owner into it. The kernel releases the lock when
the process ends, however it ends; an unlocked file means nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from autotuner import owner
from autotuner.errors import ConfigError, MachineError
from autotuner.launchers.gpus import GpuInventory, InstalledGpu, query_inventory

VISIBLE_DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"


MAX_OWNER_CHARACTERS = 1000


class LockHeldError(Exception):
    """Another process holds the lock; the text names that process."""


def lock_folder() -> Path:
    """Folder of this user's lock files.

    Neither under TMPDIR nor under XDG_RUNTIME_DIR, which a login, a service or a batch job may set differently:
    runs with different folders would share GPUs. Anyone may make a folder in /tmp, so `lock_file` checks whose it is.
    """
    return Path(f"/tmp/autotune-{os.getuid()}") / "gpus"


@contextmanager
def reserve_gpus(
    count: int,
    indexes: Sequence[int] = (),
    *,
    at_most: int | None = None,
    locks: Path | None = None,
    query: Callable[[], GpuInventory] = query_inventory,
) -> Iterator[tuple[int, ...]]:
    """Lock `count` GPUs, or as many as are free up to `at_most`, and yield their indexes, best connected first.

    All of `indexes` are locked if given, idle or not; else idle GPUs are chosen, of those that
    CUDA_VISIBLE_DEVICES names where it is set. Yields () for a count of 0 without `indexes`, and on a
    machine whose driver lists no GPUs. ConfigError for an index that does not exist; MachineError
    when too few are free, with the holder of each other one.
    """
    if count == 0 and not indexes:
        yield ()
        return
    inventory = query()
    eligible = _eligible_gpus(inventory, indexes)
    if not inventory.gpus and not indexes:
        yield ()
        return
    with ExitStack() as cleanup:
        free, unavailable = _lock_free_gpus(eligible, locks or lock_folder(), cleanup, include_busy=bool(indexes))
        required = max(count, len(indexes))
        if len(free) < required:
            raise MachineError(
                f"{required} GPUs are needed and {len(free)} of {len(eligible)} are free.",
                why=" ".join(f"GPU {index} {reason}." for index, reason in unavailable.items()),
                remedy="Wait for the other program to end, choose other GPUs with --gpus, or lower tp-size.",
            )
        chosen = inventory.closest_first(free)[: max(required, at_most or 0)]
        for index in free.keys() - set(chosen):
            free[index].close()
        yield chosen


def check_gpus(count: int, indexes: Sequence[int], query: Callable[[], GpuInventory] = query_inventory) -> None:
    """Raise what `reserve_gpus` raises on this machine even when all its GPUs are idle; locks nothing."""
    inventory = query() if count or indexes else GpuInventory(())
    eligible = _eligible_gpus(inventory, indexes)
    if inventory.gpus and len(eligible) < count:
        raise MachineError(f"{count} GPUs are needed and this machine has {len(eligible)}.")


def _eligible_gpus(inventory: GpuInventory, indexes: Sequence[int]) -> list[InstalledGpu]:
    """The GPUs in `indexes` if given, else those in CUDA_VISIBLE_DEVICES if set, else all."""
    missing = sorted(set(indexes) - {gpu.index for gpu in inventory})
    if missing:
        reason = f": {inventory.reason}." if inventory.reason else ", counted from 0."
        raise ConfigError(
            f"There is no GPU {missing[0]}.",
            why=f"This machine has {len(inventory)}{reason}",
            remedy="Correct --gpus; `autotune doctor` lists them.",
        )
    if indexes:
        return [gpu for gpu in inventory if gpu.index in indexes]
    ids = [word.strip() for word in os.environ.get(VISIBLE_DEVICES_VARIABLE, "").split(",") if word.strip()]
    if not ids:
        return list(inventory)
    # CUDA accepts indexes, and UUIDs cut to any unique prefix
    return [gpu for gpu in inventory if str(gpu.index) in ids or any(gpu.uuid.startswith(prefix) for prefix in ids)]


def _lock_free_gpus(
    gpus: Sequence[InstalledGpu], locks: Path, cleanup: ExitStack, *, include_busy: bool
) -> tuple[dict[int, IO[str]], dict[int, str]]:
    """Lock every free GPU until `cleanup` closes: lock files by index, and for the other GPUs the reason."""
    free: dict[int, IO[str]] = {}
    unavailable: dict[int, str] = {}
    for gpu in gpus:
        if not (gpu.is_idle or include_busy):
            used_gib = (gpu.memory_total_bytes - gpu.memory_free_bytes) / 2**30
            unavailable[gpu.index] = f"has {used_gib:.0f} GiB in use by another program"
            continue
        try:
            free[gpu.index] = cleanup.enter_context(lock_file(locks / f"{gpu.uuid}.lock"))
        except LockHeldError as error:
            unavailable[gpu.index] = f"is held by another autotune ({error})"
    return free, unavailable


def lock_file(path: Path) -> IO[str]:
    """Open and lock a file until it is closed; LockHeldError if another process holds the lock.

    MachineError if its folder or the one above is another user's, or others may write there.
    """
    for folder in (path.parent.parent, path.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(folder)
    while True:
        file = os.fdopen(_open_file(path), "r+", encoding="utf-8", errors="replace")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with file:
                holder = owner.parse(file.read(MAX_OWNER_CHARACTERS).strip())
            raise LockHeldError(f"process {holder.pid}" if holder else "a process that is starting") from error
        if _is_same_file(path, file):
            file.truncate(0)
            file.write(f"{owner.this_process()}\n")
            file.flush()
            return file
        file.close()  # another process removed the file between open and lock


def remove_stale_locks(locks: Path | None = None) -> list[str]:
    """Remove the lock files that no process holds, and return their names; none where the folder cannot be trusted."""
    folder = locks or lock_folder()
    try:
        _check_private(folder.parent)
        _check_private(folder)
    except (MachineError, FileNotFoundError):
        return []
    removed = []
    for path in sorted(folder.glob("*.lock")):
        with contextlib.suppress(FileNotFoundError, BlockingIOError, MachineError):
            with os.fdopen(_open_file(path, os.O_RDWR), "r+", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_same_file(path, file):
                    path.unlink()
                    removed.append(path.name)
    return removed


def _check_private(folder: Path) -> None:
    """MachineError unless a folder is this user's own and nobody else may write into it."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        reason = "is not a folder"
    elif status.st_uid != os.geteuid():
        reason = f"belongs to the user with the number {status.st_uid}"
    elif status.st_mode & 0o022:
        reason = "may be written by other users"
    else:
        return
    raise MachineError(
        f"The folder of GPU locks, '{folder}', cannot be trusted.",
        why=f"It {reason}; locks in it would open or empty files that another user chooses.",
        remedy="Remove it, or give it back: it must be yours alone (mode 700).",
    )


def _open_file(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """Open a lock file, never through a symbolic link."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except (IsADirectoryError, PermissionError) as error:
        raise _not_a_lock(path) from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _not_a_lock(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_a_lock(path)
    return descriptor


def _not_a_lock(path: Path) -> MachineError:
    return MachineError(
        f"'{path}' is no lock that autotune made.",
        why="It is a link, a folder or a device, or another user's.",
        remedy="Remove it.",
    )


def _is_same_file(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
