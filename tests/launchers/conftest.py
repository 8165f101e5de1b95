"""Small programs to launch, and servers that run already."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from autotuner.core import ServerSpec
from autotuner.launchers import ports

Wait = Callable[[Callable[[], bool]], None]


@pytest.fixture
def wait() -> Wait:
    """Wait until something holds; fail after ten seconds."""

    def until(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.01)

    return until


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


@pytest.fixture
def sim_url(tmp_path: Path) -> Iterator[str]:
    """A simulated engine that somebody else started."""
    port = ports.free_port()
    command = [sys.executable, "-m", "autotuner.simulate.server", "--load-seconds", "0", "--port", str(port)]
    with (tmp_path / "external.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


class ScriptedResponses:
    """What a small HTTP server says to each path: (status, body) in turn, the last for ever."""

    def __init__(self, **by_name: list[tuple[int, str]]) -> None:
        self.by_path = {f"/{name.replace('__', '/')}": responses for name, responses in by_name.items()}
        self.requested_paths: list[str] = []

    def respond(self, path: str) -> tuple[int, str]:
        self.requested_paths.append(path)
        responses = self.by_path.get(path, [(404, "")])
        return responses.pop(0) if len(responses) > 1 else responses[0]


@pytest.fixture
def serve() -> Iterator[Callable[[ScriptedResponses], str]]:
    """Serve answers over HTTP; returns the URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(answers: ScriptedResponses) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answers.respond(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def spec(*argv: str, port: int = 1, env: dict[str, str] | None = None) -> ServerSpec:
    return ServerSpec(None, argv, env or {}, (), port, "/health", "a-model")


def python(code: str) -> ServerSpec:
    return spec(sys.executable, "-S", "-c", code)


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
