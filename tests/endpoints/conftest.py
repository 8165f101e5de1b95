"""A small HTTP server that answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

TOKEN = (200, 'data: {"choices": [{"text": "a"}]}\n\n')


def models(*names: str, owner: str = "vllm") -> list[tuple[int, str]]:
    """What a server of these models answers to /v1/models."""
    return [(200, json.dumps({"data": [{"id": name, "owned_by": owner} for name in names]}))]


class ScriptedResponses:
    """What a small HTTP server says to each path: (status, body) in turn, the last for ever."""

    def __init__(self, **by_name: list[tuple[int, str]]) -> None:
        self.by_path = {f"/{name.replace('__', '/')}": responses for name, responses in by_name.items()}
        self.requested_paths: list[str] = []
        self.requested_headers: list[dict[str, str]] = []

    def respond(self, path: str, headers: dict[str, str]) -> tuple[int, str]:
        self.requested_paths.append(path)
        self.requested_headers.append(headers)
        responses = self.by_path.get(path, [(404, "")])
        return responses.pop(0) if len(responses) > 1 else responses[0]


@pytest.fixture
def serve() -> Iterator[Callable[[ScriptedResponses], str]]:
    """Serve answers over HTTP; returns the URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(answers: ScriptedResponses) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answers.respond(self.path, dict(self.headers))
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


Serve = Callable[[ScriptedResponses], str]
