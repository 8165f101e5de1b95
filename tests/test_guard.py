"""What a test of the quick suite may do without a mark, and what its mark lets it do."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def start_a_process() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


@pytest.mark.parametrize("start", [start_a_process, os.fork, lambda: os.system("true")])
def test_a_process_is_refused(start: Callable[[], object]) -> None:
    with pytest.raises(pytest.fail.Exception, match="marked `processes`"):
        start()


def test_a_broad_except_does_not_hide_that_a_process_was_refused() -> None:
    with pytest.raises(pytest.fail.Exception, match="marked `processes`"):
        with contextlib.suppress(Exception):
            start_a_process()


@pytest.mark.processes
def test_a_marked_test_starts_processes() -> None:
    start_a_process()


def test_a_test_of_a_fixture_that_starts_processes_is_marked_by_it(
    request: pytest.FixtureRequest, starts_processes: None
) -> None:
    assert request.node.get_closest_marker("processes")
    start_a_process()


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "a-host.example"])
def test_another_machine_is_refused(host: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="connects to this machine only"):
        socket.create_connection((host, 80), timeout=0.1)


@pytest.mark.processes
def test_another_machine_is_refused_to_a_test_that_starts_processes_too() -> None:
    with socket.socket() as client, pytest.raises(pytest.fail.Exception, match="connects to this machine only"):
        client.connect(("192.0.2.1", 80))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_allowed(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection((host, server.getsockname()[1])).close()


def test_a_unix_socket_is_allowed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        client.connect(str(tmp_path / "socket"))


def test_a_name_that_is_reserved_for_no_host_may_be_looked_up() -> None:
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("no-such-host.invalid", 80)
