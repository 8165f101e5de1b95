"""Serves the page of a run on this machine alone, with news of a run that goes on as server-sent events."""

from __future__ import annotations

import json
import time
from urllib.parse import SplitResult, parse_qs

from autotuner.report.page.document import html_document
from autotuner.report.page.live_page import LivePage
from autotuner.report.page.loopback_server import LoopbackRequestHandler, LoopbackServer
from autotuner.runs.store import RunStore

POLL_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 10.0
"""How often a connection without news is written to, which finds out that its browser is gone."""


class PageServer(LoopbackServer):
    """Serves the page of one run folder."""

    def __init__(self, store: RunStore, port: int = 0) -> None:
        self.live_page = LivePage(store)
        super().__init__(PageRequestHandler, port)


class PageRequestHandler(LoopbackRequestHandler):
    """Answers with the page, its events and launches; paths name no files."""

    server: PageServer

    def answer_get(self, address: SplitResult) -> None:
        """Answer one of the known paths."""
        launch = address.path.removeprefix("/launches/")
        if address.path == "/":
            self._send_page()
        elif address.path == "/events":
            self._send_events(parse_qs(address.query).get("version", [""])[0])
        elif address.path != launch and launch.isascii() and launch.isdigit() and len(launch) < 10:
            self._send_launch(int(launch))
        else:
            self.send_text(404, "There is no such page.")

    def _send_page(self) -> None:
        current = self.server.live_page.current()
        live = {"version": current.version, "token": self.server.token}
        page = current.page
        document = html_document(page.title, page.body(), page.content | {"live": live}, connects=True)
        self.send_body(200, "text/html; charset=utf-8", document.encode())

    def _send_launch(self, number: int) -> None:
        launch = self.server.live_page.launch(number)
        if launch is None:
            self.send_text(404, "There is no such trial.")
        else:
            self.send_body(200, "application/json", json.dumps(launch, allow_nan=False).encode())

    def _send_events(self, version: str) -> None:
        """The page again, as data, whenever the run folder has changed since `version`, until either side ends."""
        version = self.headers.get("Last-Event-ID", version)
        self.send_head(200, "text/event-stream", {})
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
