"""Runs one server and terminates it when its launcher goes away: `keeper.py LIFELINE REPORT GRACE COMMAND...`.

A separate program that needs only the standard library. LIFELINE is the read end of a pipe whose
write end only the launcher holds: it closes when the launcher is done, and also when it is killed.
Two lines are written to REPORT: the server's pid and, when it ended, its exit status.
GRACE is the number of seconds between SIGTERM and SIGKILL.
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
"""Seconds between SIGTERM and SIGKILL for the processes a crashed server leaves behind."""


def prctl(option: int, value: int) -> None:
    """Set one attribute of this process; does nothing on systems other than Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class Keeper:
    """The server's parent, and as a subreaper the parent of the server's orphaned descendants."""

    def __init__(self, command: Sequence[str], lifeline_fd: int, report_fd: int, grace: float) -> None:
        self.command = command
        self.lifeline_fd = lifeline_fd
        self.report_fd = report_fd
        self.grace = grace
        self.server_pid = 0
        self.status: int | None = None

    def run(self) -> None:
        """Start the server, wait until it or the launcher ends, and leave nothing running."""
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        wakeup_reader, wakeup_writer = os.pipe()
        os.set_blocking(wakeup_writer, False)
        signal.set_wakeup_fd(wakeup_writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self.server_pid = self.start()
        self.send_report(str(self.server_pid))
        stop_requested = False
        while self.status is None and not stop_requested:
            ready, _, _ = select.select([self.lifeline_fd, wakeup_reader], [], [])
            if wakeup_reader in ready:
                stop_requested = any(number != signal.SIGCHLD for number in os.read(wakeup_reader, 256))
            stop_requested = stop_requested or self.lifeline_fd in ready
            self.reap()
        self.terminate(self.grace if stop_requested else CRASH_GRACE_SECONDS)

    def start(self) -> int:
        """Run the command in its own session, with SIGKILL on the death of this process; returns its pid.

        The session isolates signals, and CPU time too: Linux autogroups divide the CPU between sessions first.
        """
        exec_reader, exec_writer = os.pipe()
        pid = os.fork()
        if pid:
            os.close(exec_writer)
            # the write end closes on exec; before that a signal would reach this program's handlers, without a session
            os.read(exec_reader, 1)
            os.close(exec_reader)
            return pid
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
        """Wait for every process that ended, and report the server's exit status at once."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.server_pid:
                    self.status = os.waitstatus_to_exitcode(status)
                    self.send_report(str(self.status))

    def terminate(self, grace: float) -> None:
        """SIGTERM the server's process group, then after `grace` seconds SIGKILL it and its orphaned descendants."""
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
        try:
            os.killpg(self.server_pid, 0)
        except ProcessLookupError:
            return False
        return True

    def signal_group(self, number: int) -> None:
        """Send a signal to the server's process group, if it still exists."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.server_pid, number)

    def send_report(self, line: str) -> None:
        """Write a line to the launcher, if it still listens."""
        with contextlib.suppress(OSError):
            os.write(self.report_fd, f"{line}\n".encode())


def child_processes() -> list[int]:
    """Pids of the direct children of this process; empty where /proc does not list them."""
    try:
        # importing pathlib would double the memory of this process
        with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def main() -> None:
    """Read the command line and run the server."""
    lifeline, report, grace, *command = sys.argv[1:]
    for fd in (int(lifeline), int(report)):
        os.set_inheritable(fd, False)
    Keeper(command, int(lifeline), int(report), float(grace)).run()


if __name__ == "__main__":
    main()
