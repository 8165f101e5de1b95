"""Launcher of servers as processes on this machine, each in its own session."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from io import FileIO
from pathlib import Path

from autotuner import owner
from autotuner.core import ServerSpec
from autotuner.experiment import Experiment
from autotuner.launchers.protocol import Server

KEEPER_PROGRAM = Path(__file__).with_name("keeper.py")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
LOCAL_ADDRESSES = "localhost,127.0.0.1,::1"


class ProcessServer:
    """A server process, whose pid and exit status its keeper writes to the pipe `report`."""

    def __init__(self, url: str, keeper: subprocess.Popen[bytes], report: FileIO) -> None:
        self.url = url
        self.pid: int | None = None
        self._keeper = keeper
        self._report = report
        self._unread = b""
        self._status: int | None = None
        os.set_blocking(report.fileno(), False)

    def exit_status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        self._read_report()
        if self._status is None and self._keeper.poll() is not None:
            self._read_report()
            if self._status is None:
                self._status = self._keeper.returncode or -signal.SIGKILL
        return self._status

    def _read_report(self) -> None:
        if self._report.closed:
            return
        # a non-blocking read gives None when nothing new was written
        self._unread += self._report.read(256) or b""
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            if self.pid is None:
                self.pid = int(line)
            else:
                self._status = int(line)


class ProcessLauncher:
    """Starts a server through keeper.py, which terminates it when this process is done or killed.

    `grace` is the number of seconds between SIGTERM and SIGKILL.
    """

    starts_servers = True

    def __init__(self, grace: float = 10.0) -> None:
        self.grace = grace

    def preflight(self, experiment: Experiment, spec: ServerSpec | None) -> None:
        """Nothing: a process needs its program alone, which the engine has found; see Launcher."""

    def run_block(self) -> AbstractContextManager[None]:
        """Nothing: launches share nothing; see Launcher."""
        return nullcontext()

    def launch(self, spec: ServerSpec | None, log: Path) -> AbstractContextManager[Server]:
        """Start the command of `spec`; see Launcher."""
        if spec is None:
            raise ValueError("a process needs a spec")
        return self._launch(spec, log)

    @contextmanager
    def _launch(self, spec: ServerSpec, log: Path) -> Iterator[Server]:
        with ExitStack() as cleanup:
            output = cleanup.enter_context(log.open("ab"))
            lifeline, lifeline_writer = _pipe(cleanup)
            report, report_writer = _pipe(cleanup)
            # from here on, whatever happens, the lifeline closes and the keeper terminates the server
            keeper = subprocess.Popen(
                self._keeper_command(lifeline, report_writer, spec),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=server_environment({owner.OWNER_VARIABLE: str(owner.this_process()), **spec.env}),
                pass_fds=(lifeline.fileno(), report_writer.fileno()),
                start_new_session=True,
            )
            server = ProcessServer(f"http://127.0.0.1:{spec.port}", keeper, report)
            cleanup.callback(self._stop, server, keeper, lifeline_writer)
            report_writer.close()
            yield server

    def _keeper_command(self, lifeline: FileIO, report_writer: FileIO, spec: ServerSpec) -> list[str]:
        fds = (str(lifeline.fileno()), str(report_writer.fileno()))
        return [sys.executable, "-I", "-S", str(KEEPER_PROGRAM), *fds, str(self.grace), *spec.argv]

    def _stop(self, server: ProcessServer, keeper: subprocess.Popen[bytes], lifeline_writer: FileIO) -> None:
        lifeline_writer.close()
        try:
            keeper.wait(self.grace + 10)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()
        if server.exit_status() is None or keeper.returncode != 0:
            _kill_group(server.pid)


def server_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment with the server's `settings`, exempting local addresses from any proxy."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1", **settings}
    if any(env.get(name) or env.get(name.upper()) for name in PROXY_VARIABLES):
        for name in ("no_proxy", "NO_PROXY"):
            env[name] = ",".join(part for part in (env.get(name), LOCAL_ADDRESSES) if part)
    return env


def _pipe(cleanup: ExitStack) -> tuple[FileIO, FileIO]:
    read_fd, write_fd = os.pipe()
    return cleanup.enter_context(FileIO(read_fd, "r")), cleanup.enter_context(FileIO(write_fd, "w"))


def _kill_group(pid: int | None) -> None:
    """Kill the server's process group, which a keeper that died left running."""
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
