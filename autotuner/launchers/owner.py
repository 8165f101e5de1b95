"""Who started something: a process that can still be told apart when its number was given to another."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

OWNER_VARIABLE = "AUTOTUNE_OWNER"
"""The variable by which a server process, and all it starts, names its owner."""

START_TIME_FIELD = 19
"""The field of /proc/PID/stat, after the name, with the time of the start in ticks since the boot."""


@dataclass(frozen=True)
class Owner:
    """A process of one machine: `place` is its host and process namespace, `boot` the host's boot."""

    host: str
    boot_id: str
    pid: int
    start_time: str

    def __str__(self) -> str:
        return "/".join((self.host, self.boot_id, str(self.pid), self.start_time))

    @property
    def is_gone(self) -> bool:
        """Whether that process has ended; False for one that cannot be looked at from here."""
        mine = this_process()
        if self.host != mine.host:
            return False
        return self.boot_id != mine.boot_id or start_time(self.pid) != self.start_time


def parse(text: str) -> Owner | None:
    """Read what str() of an owner wrote; None for anything else."""
    parts = text.split("/")
    if len(parts) != 4 or not parts[2].isdigit():
        return None
    return Owner(parts[0], parts[1], int(parts[2]), parts[3])


def this_process() -> Owner:
    """This process."""
    return _process_owner(os.getpid())


@cache
def _process_owner(pid: int) -> Owner:
    return Owner(_host(), _boot_id(), pid, start_time(pid) or "")


def start_time(pid: int) -> str | None:
    """When a process started, in the system's own words; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self").exists() else _start_time_without_proc(pid)
    return None if fields[0] in "ZX" else fields[START_TIME_FIELD]


def _start_time_without_proc(pid: int) -> str | None:
    """Where there is no /proc: whether the number is in use at all."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def _host() -> str:
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        namespace = ""
    return f"{platform.node()}:{namespace}".replace("/", "-")


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
