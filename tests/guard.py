"""Holds the quick suite to what its marks allow: no process without `processes`, no connection off this machine.

Audit events of this process are all it sees: not what child processes do, nor the connections of uvloop.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PROCESS_EVENTS = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"}
CONNECTION_EVENTS = {"socket.connect", "socket.getaddrinfo"}
UNGUARDED_SUITES = {"browser", "cluster", "docker", "docs", "dynamo", "engine", "gateways", "hosts"}

_refused_events: set[str] = set()


@contextmanager
def guarded(item: pytest.Item) -> Iterator[None]:
    """Refuse what the marks of a test do not allow, in its fixtures too."""
    marks = {mark.name for mark in item.iter_markers()}
    if not marks & UNGUARDED_SUITES:
        _refused_events.update(CONNECTION_EVENTS, () if "processes" in marks else PROCESS_EVENTS)
    try:
        yield
    finally:
        _refused_events.clear()


def is_on_this_machine(host: Any) -> bool:
    """Whether a host is loopback, or a name that never has an address (RFC 6761)."""
    if host in (None, "", "localhost") or str(host).endswith(".invalid"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _refused_events:
        return
    if event in PROCESS_EVENTS:
        if "fc-list" not in arguments:  # matplotlib lists the fonts once on each machine
            pytest.fail(f"{event} {arguments[:2]}: a test that starts processes is marked `processes`")
    else:
        target = arguments[1] if event == "socket.connect" else arguments[:2]
        if isinstance(target, tuple) and not is_on_this_machine(target[0]):  # of a Unix socket it is a path
            pytest.fail(f"{event} {target}: the quick suite connects to this machine only")


sys.addaudithook(_audit)
