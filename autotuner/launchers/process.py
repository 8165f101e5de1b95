"""Servers as processes on this machine, each in a session of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from io import FileIO
from pathlib import Path

from autotuner.core import ServerSpec
from autotuner.engines.flags import FlagTable
from autotuner.engines.protocol import Engine
from autotuner.experiment import Experiment
from autotuner.launchers import owner
from autotuner.launchers.protocol import Server

KEEPER_PROGRAM = Path(__file__).with_name("keeper.py")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
LOCAL_ADDRESSES = "localhost,127.0.0.1,::1"


class ProcessServer:
    """A server process, as its keeper reports it."""

    def __init__(self, url: str, keeper: subprocess.Popen[bytes], report: FileIO) -> None:
        self.url = url
        self.pid: int | None = None
        self._keeper = keeper
        self._report = report
        self._unread = b""
        self._status: int | None = None
        os.set_blocking(report.fileno(), False)

    def exit_status(self) -> int | None:
        """How it ended, negative for a signal, None while it runs."""
        self._read_report()
        if self._status is None and self._keeper.poll() is not None:
            self._read_report()
            if self._status is None:
                self._status = self._keeper.returncode or -signal.SIGKILL
        return self._status

    def _read_report(self) -> None:
        if self._report.closed:
            return
        # None when there is nothing new
        self._unread += self._report.read(256) or b""
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            if self.pid is None:
                self.pid = int(line)
            else:
                self._status = int(line)


class ProcessLauncher:
    """Starts a server through keeper.py, which ends it when this process is done, or is killed.

    `grace` is the seconds between SIGTERM and SIGKILL.
    """

    starts_servers = True

    def __init__(self, grace: float = 10.0) -> None:
        self.grace = grace

    def preflight(self, experiment: Experiment, engine: Engine) -> None:
        """Check that the engine is installed, knows every flag, and that a local model is there."""
        engine.base_command(experiment.runtime)
        engine.check_model(experiment.model)
        engine.check_parameters(experiment.parameters, experiment.runtime)

    def flags(self, experiment: Experiment, engine: Engine) -> FlagTable | None:
        """Those of the installed engine; see Launcher."""
        return engine.flags(experiment.runtime)

    def launch(self, spec: ServerSpec | None, log: Path) -> AbstractContextManager[Server]:
        """Start the command of `spec`; see Launcher."""
        if spec is None:
            raise ValueError("a process needs a spec")
        return self._launch(spec, log)

    @contextmanager
    def _launch(self, spec: ServerSpec, log: Path) -> Iterator[Server]:
        with ExitStack() as cleanup:
            output = cleanup.enter_context(log.open("ab"))
            lifeline, hold = _pipe(cleanup)
            report, told = _pipe(cleanup)
            # from here on, whatever happens, the pipe closes and the keeper ends the server
            keeper = subprocess.Popen(
                self._command(lifeline, told, spec),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=server_environment({owner.OWNER_VARIABLE: str(owner.this_process()), **spec.env}),
                pass_fds=(lifeline.fileno(), told.fileno()),
                start_new_session=True,
            )
            server = ProcessServer(f"http://127.0.0.1:{spec.port}", keeper, report)
            cleanup.callback(self._stop, server, keeper, hold)
            told.close()
            yield server

    def _command(self, lifeline: FileIO, told: FileIO, spec: ServerSpec) -> list[str]:
        ends = (str(lifeline.fileno()), str(told.fileno()))
        return [sys.executable, "-I", "-S", str(KEEPER_PROGRAM), *ends, str(self.grace), *spec.argv]

    def _stop(self, server: ProcessServer, keeper: subprocess.Popen[bytes], hold: FileIO) -> None:
        hold.close()
        try:
            keeper.wait(self.grace + 10)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()
        if server.exit_status() is None or keeper.returncode != 0:
            _kill_group(server.pid)


def server_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment with a server's own settings, and without a proxy for this machine."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1", **settings}
    if any(env.get(name) or env.get(name.upper()) for name in PROXY_VARIABLES):
        for name in ("no_proxy", "NO_PROXY"):
            env[name] = ",".join(part for part in (env.get(name), LOCAL_ADDRESSES) if part)
    return env


def _pipe(cleanup: ExitStack) -> tuple[FileIO, FileIO]:
    reading, writing = os.pipe()
    return cleanup.enter_context(FileIO(reading, "r")), cleanup.enter_context(FileIO(writing, "w"))


def _kill_group(pid: int | None) -> None:
    """Kill what a keeper that died could not: its server's process group."""
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
