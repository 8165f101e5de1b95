"""A server of pages on this machine alone, and the rules by which it answers browsers.

Browsers send pages from anywhere to 127.0.0.1: a name of somebody else that resolves to it is refused by the
Host header, and what changes anything needs a token that only the page has.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import SplitResult, urlsplit

from autotuner.errors import AutotuneError, MachineError
from autotuner.report.page.document import SCRIPT_FILES, content_security_policy, page_assets

HOST = "127.0.0.1"
TOKEN_HEADER = "X-Autotune-Token"


class LoopbackServer(ThreadingHTTPServer):
    """Listens from its creation on, on loopback; `token` is needed for any request that is not a GET."""

    daemon_threads = True

    def __init__(self, handler: type[LoopbackRequestHandler], port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        self.stopping = threading.Event()
        try:
            super().__init__((HOST, port), handler)
        except OSError as error:
            raise MachineError(
                f"The page cannot be served on port {port}.",
                why=f"{error.strerror}.",
                remedy="Choose another port with --port, or leave it out for one that is free.",
            ) from error

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"

    @property
    def own_hosts(self) -> set[str]:
        """The values of Host that mean this server."""
        port = self.server_address[1]
        return {f"{name}:{port}" for name in (HOST, "localhost", "[::1]")}

    def stop(self) -> None:
        """End `serve_forever`, called from another thread, and all streams of events."""
        self.stopping.set()
        self.shutdown()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is nothing to report."""


class LoopbackRequestHandler(BaseHTTPRequestHandler):
    """Refuses what does not come from a page of its own server; `answer_get` and `answer_post` answer the rest."""

    server: LoopbackServer
    server_version, sys_version = "autotune", ""
    timeout = 60
    script_files: Sequence[str] = SCRIPT_FILES

    def answer_get(self, address: SplitResult) -> None:
        """Answer a GET under the server's own name."""
        raise NotImplementedError

    def answer_post(self, address: SplitResult) -> None:
        """Answer a POST of the page itself."""
        self.send_text(404, "There is nothing to change under this address.")

    def do_GET(self) -> None:
        """Refuse a foreign Host, else answer."""
        if self.headers.get("Host") not in self.server.own_hosts:
            self.send_text(403, "This server answers only under its own address.")
            return
        self._answer(self.answer_get)

    def do_POST(self) -> None:
        """Refuse what does not come from the page itself, else answer."""
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        is_own = host in self.server.own_hosts and origin in (None, f"http://{host}")
        token = self.headers.get(TOKEN_HEADER, "").encode()
        if not is_own or not secrets.compare_digest(token, self.server.token.encode()):
            self.send_text(403, "Only the page itself may change something.")
        else:
            self._answer(self.answer_post)

    def _answer(self, answer: Any) -> None:
        try:
            answer(urlsplit(self.path))
        except AutotuneError as error:
            with contextlib.suppress(ConnectionError):
                self.send_text(500, str(error))
        except ConnectionError:
            pass  # the browser is gone

    def log_message(self, format: str, *values: Any) -> None:
        """Requests are not logged."""

    def send_text(self, status: int, text: str) -> None:
        """Send a line of plain text."""
        self.send_body(status, "text/plain; charset=utf-8", f"{text}\n".encode())

    def send_body(self, status: int, content_type: str, body: bytes, **more: str) -> None:
        """Send a whole body; `more` are further headers."""
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        self.send_head(status, content_type, {"Content-Length": str(len(body))} | headers)
        self.wfile.write(body)

    def send_head(self, status: int, content_type: str, more: dict[str, str]) -> None:
        """Send the status and headers that forbid frames, foreign scripts and caching."""
        self.send_response(status)
        style, script = page_assets(tuple(self.script_files))
        headers = {
            "Content-Type": content_type,
            "Content-Security-Policy": content_security_policy(style, script, connects=True)
            + "; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
        for name, value in (headers | more).items():
            self.send_header(name, value)
        self.end_headers()
