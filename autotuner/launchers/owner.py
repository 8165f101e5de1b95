"""Who started something: a process that can still be told apart when its number was given to another."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ENVIRONMENT = "AUTOTUNE_OWNER"
"""The variable by which a server process, and all it starts, names its owner."""

STARTED = 19
"""The field of /proc/PID/stat, after the name, with the time of the start in ticks since the boot."""


@dataclass(frozen=True)
class Owner:
    """A process of one machine: `place` is its host and process namespace, `boot` the host's boot."""

    place: str
    boot: str
    pid: int
    started: str

    def __str__(self) -> str:
        return "/".join((self.place, self.boot, str(self.pid), self.started))

    @property
    def is_gone(self) -> bool:
        """Whether that process has ended; False for one that cannot be looked at from here."""
        mine = me()
        if self.place != mine.place:
            return False
        return self.boot != mine.boot or started(self.pid) != self.started


def parse(text: str) -> Owner | None:
    """Read what str() of an owner wrote; None for anything else."""
    parts = text.split("/")
    if len(parts) != 4 or not parts[2].isdigit():
        return None
    return Owner(parts[0], parts[1], int(parts[2]), parts[3])


def me() -> Owner:
    """This process."""
    return _owner(os.getpid())


@cache
def _owner(pid: int) -> Owner:
    return Owner(_place(), _boot(), pid, started(pid) or "")


def started(pid: int) -> str | None:
    """When a process started, in the system's own words; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self").exists() else _signalled(pid)
    return None if fields[0] in "ZX" else fields[STARTED]


def _signalled(pid: int) -> str | None:
    """Where there is no /proc: whether the number is in use at all."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def _place() -> str:
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        namespace = ""
    return f"{platform.node()}:{namespace}".replace("/", "-")


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
