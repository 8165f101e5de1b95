"""Serves the page of a run on this machine alone, with news of a run that goes on as server-sent events.

Browsers send pages from anywhere to 127.0.0.1: a name of somebody else that resolves to it is refused by the
Host header, and what changes anything needs a token that only the page has.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from autotuner.errors import MachineError, RunStoreError
from autotuner.report.page.document import content_security_policy, html_document, page_assets
from autotuner.report.page.live_page import LivePage
from autotuner.runs.store import RunStore

HOST = "127.0.0.1"
POLL_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 10.0
"""How often a connection without news is written to, which finds out that its browser is gone."""

TOKEN_HEADER = "X-Autotune-Token"


class PageServer(ThreadingHTTPServer):
    """Listens from its creation on, on loopback; `token` is needed for any request that is not a GET."""

    daemon_threads = True

    def __init__(self, store: RunStore, port: int = 0) -> None:
        self.live_page = LivePage(store)
        self.token = secrets.token_urlsafe(24)
        self.stopping = threading.Event()
        try:
            super().__init__((HOST, port), PageRequestHandler)
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


class PageRequestHandler(BaseHTTPRequestHandler):
    """Answers with the page, its events and launches; paths name no files."""

    server: PageServer
    server_version, sys_version = "autotune", ""
    timeout = 60

    def do_GET(self) -> None:
        """Answer one of the known paths."""
        if self.headers.get("Host") not in self.server.own_hosts:
            self._send_text(403, "This server answers only under its own address.")
            return
        address = urlsplit(self.path)
        launch = address.path.removeprefix("/launches/")
        try:
            if address.path == "/":
                self._send_page()
            elif address.path == "/events":
                self._send_events(parse_qs(address.query).get("version", [""])[0])
            elif address.path != launch and launch.isascii() and launch.isdigit() and len(launch) < 10:
                self._send_launch(int(launch))
            else:
                self._send_text(404, "There is no such page.")
        except RunStoreError as error:
            with contextlib.suppress(ConnectionError):
                self._send_text(500, str(error))
        except ConnectionError:
            pass  # the browser is gone

    def do_POST(self) -> None:
        """Refuse what does not come from the page itself; the page asks for no change yet."""
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        is_own = host in self.server.own_hosts and origin in (None, f"http://{host}")
        token = self.headers.get(TOKEN_HEADER, "").encode()
        if not is_own or not secrets.compare_digest(token, self.server.token.encode()):
            self._send_text(403, "Only the page itself may change something.")
        else:
            self._send_text(404, "There is nothing to change under this address.")

    def log_message(self, format: str, *values: Any) -> None:
        """Requests are not logged."""

    def _send_page(self) -> None:
        current = self.server.live_page.current()
        live = {"version": current.version, "token": self.server.token}
        page = current.page
        document = html_document(page.title, page.body(), page.content | {"live": live}, connects=True)
        self._send(200, "text/html; charset=utf-8", document.encode())

    def _send_launch(self, number: int) -> None:
        launch = self.server.live_page.launch(number)
        if launch is None:
            self._send_text(404, "There is no such trial.")
        else:
            self._send(200, "application/json", json.dumps(launch, allow_nan=False).encode())

    def _send_text(self, status: int, text: str) -> None:
        self._send(status, "text/plain; charset=utf-8", f"{text}\n".encode())

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self._send_head(status, content_type, {"Content-Length": str(len(body))})
        self.wfile.write(body)

    def _send_head(self, status: int, content_type: str, more: dict[str, str]) -> None:
        self.send_response(status)
        style, script = page_assets()
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

    def _send_events(self, version: str) -> None:
        """The page again, as data, whenever the run folder has changed since `version`, until either side ends."""
        version = self.headers.get("Last-Event-ID", version)
        self._send_head(200, "text/event-stream", {})
        self.wfile.write(b"retry: 2000\n\n")
        written = time.monotonic()
        while not self.server.stopping.is_set():
            if self.server.live_page.version() != version:
                current = self.server.live_page.current()
                if current.version != version:
                    version = current.version
                    news = json.dumps(current.data, separators=(",", ":"), allow_nan=False)
                    self.wfile.write(f"id: {version}\ndata: {news}\n\n".encode())
                    written = time.monotonic()
            if time.monotonic() - written > KEEP_ALIVE_SECONDS:
                self.wfile.write(b": the run folder is as it was\n\n")
                written = time.monotonic()
            self.server.stopping.wait(POLL_SECONDS)
