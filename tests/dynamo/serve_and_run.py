"""Start Dynamo's frontend and a mocker on loopback, run a command, and stop them: run inside a network namespace.

usage: serve_and_run.py ENVIRONMENT MODEL PORT MOCKER_ARGUMENTS... -- COMMAND...
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
from pathlib import Path

READY_SECONDS = 120.0
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1


def bring_loopback_up() -> None:
    """Set the flag UP of lo, which a new network namespace lacks."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, GET_FLAGS, struct.pack("16sh", b"lo", 0) + bytes(14))
        (flags,) = struct.unpack("h", answer[16:18])
        if not flags & UP:
            fcntl.ioctl(control, SET_FLAGS, struct.pack("16sh", b"lo", flags | UP) + bytes(14))


def wait_until_listed(port: str) -> None:
    """Wait until the frontend lists a model; TimeoutError if it does not."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5) as answer:
                if b'"tiny"' in answer.read():
                    return
        except OSError:
            pass
        time.sleep(0.5)
    raise TimeoutError("the frontend lists no model")


def main() -> int:
    """The exit status of the command."""
    environment, model, port, *rest = sys.argv[1:]
    split = rest.index("--")
    python, loopback = f"{environment}/bin/python", "127.0.0.1"
    bring_loopback_up()
    common = ["--discovery-backend", "file", "--request-plane", "tcp"]
    with tempfile.TemporaryDirectory() as folder:
        hosts = ("DYN_TCP_RPC_HOST", "DYN_TCP_RESPONSE_STREAM_HOST", "DYN_EVENT_PLANE_HOST", "DYN_SYSTEM_HOST")
        settings = {**os.environ, **dict.fromkeys(hosts, loopback), "DYN_FILE_KV": folder, "HF_HUB_OFFLINE": "1"}
        frontend = [python, "-m", "dynamo.frontend", "--http-host", loopback, "--http-port", port, *common]
        mocker = [python, "-m", "dynamo.mocker", "--model-path", model, "--model-name", "tiny", *common, *rest[:split]]
        with Path(folder, "servers.log").open("w") as log:
            servers = [
                subprocess.Popen(command, env=settings, stdout=log, stderr=log) for command in (frontend, mocker)
            ]
            try:
                wait_until_listed(port)
                return subprocess.run(rest[split + 1 :], check=False).returncode
            except TimeoutError:
                sys.stderr.write(Path(folder, "servers.log").read_text()[-4000:])
                raise
            finally:
                for server in servers:
                    server.terminate()
                for server in servers:
                    server.wait(timeout=60)


if __name__ == "__main__":
    sys.exit(main())
