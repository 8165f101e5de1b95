"""Start Dynamo's frontend and mockers on loopback, run a command, and stop them: run inside a network namespace.

usage: serve_and_run.py ENVIRONMENT MODEL PORT MOCKER_ARGUMENTS... [+ MOCKER_ARGUMENTS...] -- COMMAND...

Each part between + is one mocker. Without a mocker argument at all (`PORT -- COMMAND`) only the command is run.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

LOOPBACK = "127.0.0.1"
MODEL_NAME = "tiny"
READY_SECONDS = 120.0
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1
COMMON = ("--discovery-backend", "file", "--request-plane", "tcp")


def bring_loopback_up() -> None:
    """Set the flag UP of lo, which a new network namespace lacks."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, GET_FLAGS, struct.pack("16sh", b"lo", 0) + bytes(14))
        (flags,) = struct.unpack("h", answer[16:18])
        if not flags & UP:
            fcntl.ioctl(control, SET_FLAGS, struct.pack("16sh", b"lo", flags | UP) + bytes(14))


def serving_settings(discovery_folder: str) -> dict[str, str]:
    """Environment variables of a frontend and its mockers, which find each other in a folder."""
    hosts = ("DYN_TCP_RPC_HOST", "DYN_TCP_RESPONSE_STREAM_HOST", "DYN_EVENT_PLANE_HOST", "DYN_SYSTEM_HOST")
    return {
        **os.environ,
        **dict.fromkeys(hosts, LOOPBACK),
        "DYN_FILE_KV": discovery_folder,
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def frontend_command(environment: str, port: str) -> list[str]:
    """The argv of the frontend of an environment."""
    return [f"{environment}/bin/python", "-m", "dynamo.frontend", "--http-host", LOOPBACK, "--http-port", port, *COMMON]


def mocker_command(environment: str, model: str, name: str, arguments: Sequence[str]) -> list[str]:
    """The argv of a mocker that serves a model folder under a name."""
    python = f"{environment}/bin/python"
    return [python, "-m", "dynamo.mocker", "--model-path", model, "--model-name", name, *COMMON, *arguments]


def wait_until_listed(port: str) -> None:
    """Wait until the frontend lists a model; TimeoutError if it does not."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/v1/models", timeout=5) as answer:
                if f'"{MODEL_NAME}"'.encode() in answer.read():
                    return
        except OSError:
            pass
        time.sleep(0.5)
    raise TimeoutError("the frontend lists no model")


def mockers_of(arguments: Sequence[str]) -> list[list[str]]:
    """The arguments of each mocker, parted at +."""
    mockers: list[list[str]] = [[]]
    for argument in arguments:
        if argument == "+":
            mockers.append([])
        else:
            mockers[-1].append(argument)
    return [mocker for mocker in mockers if mocker]


def main() -> int:
    """The exit status of the command."""
    environment, model, port, *rest = sys.argv[1:]
    split = rest.index("--")
    mockers, command = mockers_of(rest[:split]), rest[split + 1 :]
    bring_loopback_up()
    if not mockers:
        return subprocess.run(command, check=False).returncode
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        settings, log_path = serving_settings(folder), Path(folder, "servers.log")
        log = stack.enter_context(log_path.open("w"))
        commands = [frontend_command(environment, port)]
        commands += [mocker_command(environment, model, MODEL_NAME, mocker) for mocker in mockers]
        servers = [subprocess.Popen(each, env=settings, stdout=log, stderr=log) for each in commands]
        try:
            wait_until_listed(port)
            return subprocess.run(command, check=False).returncode
        except TimeoutError:
            sys.stderr.write(log_path.read_text()[-4000:])
            raise
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.wait(timeout=60)


if __name__ == "__main__":
    sys.exit(main())
