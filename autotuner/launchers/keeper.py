"""Runs one server and ends all of it when whoever asked for it goes away: `keeper.py LIFELINE REPORT GRACE COMMAND...`.

A program of its own, with nothing but the standard library. LIFELINE is the read end of a pipe
whose other end only the asker holds: it closes when the asker is done, and also when the asker is
killed. On REPORT go two lines, the server's process id and, when it ended, its wait status.
GRACE is the seconds between SIGTERM and SIGKILL.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CANNOT_RUN_STATUS = 127
CRASH_GRACE_SECONDS = 2.0
"""Seconds the rest of a crashed server gets to end by itself."""


def prctl(option: int, value: int) -> None:
    """Set one attribute of this process, where the system has it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class Keeper:
    """The server's parent, and the parent of every process the server loses."""

    def __init__(self, command: Sequence[str], lifeline: int, report: int, grace: float) -> None:
        self.command = command
        self.lifeline_fd = lifeline
        self.report_fd = report
        self.grace = grace
        self.server_pid = 0
        self.status: int | None = None

    def run(self) -> None:
        """Start the server, wait for its end or for the asker's, and leave nothing running."""
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self.server_pid = self.start()
        self.send_report(str(self.server_pid))
        asked_to_stop = False
        while self.status is None and not asked_to_stop:
            ready, _, _ = select.select([self.lifeline_fd, woken], [], [])
            if woken in ready:
                asked_to_stop = any(byte != signal.SIGCHLD for byte in os.read(woken, 256))
            asked_to_stop = asked_to_stop or self.lifeline_fd in ready
            self.reap()
        self.terminate(self.grace if asked_to_stop else CRASH_GRACE_SECONDS)

    def start(self) -> int:
        """Run the command in a session of its own, at this process's priority, and let it die with this process.

        The session has more than signals to itself: Linux shares out the CPU between sessions first.
        """
        started, starting = os.pipe()
        server = os.fork()
        if server:
            os.close(starting)
            # until the command runs, a signal would meet this program's handlers, and no session
            os.read(started, 1)
            os.close(started)
            return server
        try:
            os.setsid()
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.execvp(self.command[0], list(self.command))
        except OSError as error:
            os.write(2, f"{self.command[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(CANNOT_RUN_STATUS)

    def reap(self) -> None:
        """Collect every process that ended, and tell of the server's end at once."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.server_pid:
                    self.status = os.waitstatus_to_exitcode(status)
                    self.send_report(str(self.status))

    def terminate(self, grace: float) -> None:
        """TERM to the whole group, and KILL to what is left of it and of all it lost."""
        deadline = time.monotonic() + grace
        self.signal_group(signal.SIGTERM)
        while self.group_exists() and time.monotonic() < deadline:
            time.sleep(0.02)
            self.reap()
        self.signal_group(signal.SIGKILL)
        for _ in range(200):
            for pid in child_processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.reap()
            if not child_processes():
                return
            time.sleep(0.02)

    def group_exists(self) -> bool:
        """Whether a process of the server's group is left."""
        try:
            os.killpg(self.server_pid, 0)
        except ProcessLookupError:
            return False
        return True

    def signal_group(self, number: int) -> None:
        """Send a signal to the server's group, if there still is one."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.server_pid, number)

    def send_report(self, line: str) -> None:
        """Report to the asker, if it still listens."""
        with contextlib.suppress(OSError):
            os.write(self.report_fd, f"{line}\n".encode())


def child_processes() -> list[int]:
    """The processes whose parent is this one; none where the system cannot tell."""
    try:
        # pathlib would double the memory of this process
        with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def main() -> None:
    """Read the command line and keep the server."""
    lifeline, report, grace, *command = sys.argv[1:]
    for fd in (int(lifeline), int(report)):
        os.set_inheritable(fd, False)
    Keeper(command, int(lifeline), int(report), float(grace)).run()


if __name__ == "__main__":
    main()
