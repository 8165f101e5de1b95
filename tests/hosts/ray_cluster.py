"""A Ray cluster of one node on loopback with four pretended GPUs, ended by the ids of its own processes."""

from __future__ import annotations

import atexit
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest

from tests.gateways.gateway_servers import is_loopback_only

GPUS = 4
OBJECT_STORE_BYTES = 100 * 2**20
LOOPBACK = "127.0.0.1"


class RayCluster:
    """A head that runs: its address, and the ids of its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the head on ports that it chooses; it stays in the foreground of a session of its own."""
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", "0"),
            *("--node-ip-address", LOOPBACK, "--include-dashboard", "false", "--disable-usage-stats"),
            *("--num-gpus", str(GPUS), "--num-cpus", "8", "--object-store-memory", str(OBJECT_STORE_BYTES)),
            *("--temp-dir", str(self.folder)),
        ]
        with (self.folder / "output").open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=environment(),
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        address_file = self.folder / "ray_current_cluster"
        while not (address_file.exists() and "Ray runtime started" in self.output()):
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.2)
        self.address = address_file.read_text().strip()

    def output(self) -> str:
        return (self.folder / "output").read_text()

    def worker_pids(self) -> list[int]:
        """The processes that run tasks: children of this cluster's raylet."""
        return [pid for pid in descendants(self._pid) if title(pid).startswith("ray::")]

    @property
    def _pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self) -> None:
        """End the head and everything it started."""
        started = descendants(self._pid)
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)
        assert self.process is not None
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in started:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def environment() -> dict[str, str]:
    """The environment of head and drivers: nothing of this user's own clusters, and no question to a web page."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """The children of a process, their children, and so on."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *descendants(child)]
    return found


def is_installed() -> bool:
    """Whether Ray is there, as in `nox -s hosts`."""
    return importlib.util.find_spec("ray") is not None


@contextmanager
def started() -> Iterator[RayCluster]:
    """A cluster that ends with the block."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # paths of sockets are short
        cluster = RayCluster(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            if cluster.process is not None:
                cluster.stop()


@cache
def _shared() -> RayCluster:
    block = started()
    cluster = block.__enter__()
    atexit.register(block.__exit__, None, None, None)
    return cluster


def shared() -> RayCluster:
    """The cluster of this session of tests, started when first asked for."""
    if not is_installed():
        pytest.fail("Ray is not installed; `nox -s hosts` has it")
    if not is_loopback_only():
        pytest.fail("Ray listens on all interfaces: run this by tests/gateways/loopback_only.py, as nox does")
    return _shared()
