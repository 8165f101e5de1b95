"""The process that owns a server, identified unambiguously even after its pid is reused."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

OWNER_VARIABLE = "AUTOTUNE_OWNER"
"""Environment variable that names the owner, inherited by a server process and all its children."""

_PID = re.compile(r"[1-9][0-9]{0,6}")
"""Linux's process ids end at 2^22; `str.isdigit` would take digits that `int` does not."""

START_TIME_FIELD = 19
"""Index in /proc/PID/stat, after the command name, of the start time in ticks since boot (proc(5), field 22)."""


@dataclass(frozen=True)
class Owner:
    """A process on one machine; `boot_id` and `start_time` tell it from later processes with the same pid.

    `host` is the host name and the pid namespace.
    """

    host: str
    boot_id: str
    pid: int
    start_time: str

    def __str__(self) -> str:
        return "/".join((self.host, self.boot_id, str(self.pid), self.start_time))

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended; False when it runs on a host that cannot be inspected from here."""
        current = this_process()
        if self.host != current.host:
            return False
        if self.boot_id != current.boot_id:
            return True
        started = start_time(self.pid)
        return started is None or ("" not in (started, self.start_time) and started != self.start_time)


def parse(text: str) -> Owner | None:
    """The owner that str() wrote; None for any other text, which any process or container may carry."""
    parts = text.split("/")
    if len(parts) != 4 or not _PID.fullmatch(parts[2]):
        return None
    return Owner(parts[0], parts[1], int(parts[2]), parts[3])


def this_process() -> Owner:
    return _process_owner(os.getpid())


@cache
def _process_owner(pid: int) -> Owner:
    return Owner(_host(), _boot_id(), pid, start_time(pid) or "")


def start_time(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, "" where unknown; None when it is gone or a zombie.

    /proc may be missing, or mounted with `hidepid`, which hides the processes of other users.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return _start_time_without_proc(pid)
    return None if fields[0] in "ZX" else fields[START_TIME_FIELD]


def _start_time_without_proc(pid: int) -> str | None:
    """An empty text when the pid is in use, None when not: such a process shows no start time."""
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
