"""Serves the page on which a pair of workers is picked, to browsers on this machine alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs

from autotuner.errors import UsageError
from autotuner.profiling.outcome import ProfileOutcome
from autotuner.profiling.pick import WorkerPair, find_pair, pair_manifest, write_pick
from autotuner.profiling.pick_page import SCRIPTS, pair_data, pick_page, picked_text
from autotuner.profiling.session import open_profile
from autotuner.report.page.loopback_server import LoopbackRequestHandler, LoopbackServer

MAX_PICK_BYTES = 10_000


class PickServer(LoopbackServer):
    """Serves one profile; `picked` are the files of the last pick, after which it stops with `ends_with_pick`."""

    def __init__(self, folder: Path, port: int = 0, *, ends_with_pick: bool = False) -> None:
        self.folder, self.ends_with_pick = folder, ends_with_pick
        self.picked: list[Path] = []
        self.writing = threading.Lock()
        open_profile(folder)  # what is no profile fails here, before a port is taken
        super().__init__(PickRequestHandler, port)

    def outcome(self) -> ProfileOutcome:
        """The profile as its folder is now."""
        return open_profile(self.folder)


class PickRequestHandler(LoopbackRequestHandler):
    """Answers with the page, a pair and its manifest, and writes a pick; paths name no files."""

    server: PickServer
    script_files = SCRIPTS

    def answer_get(self, address: SplitResult) -> None:
        """Answer one of the known paths."""
        if address.path not in ("/", "/pair", "/manifest"):
            self.send_text(404, "There is no such page.")
            return
        outcome = self.server.outcome()
        if address.path == "/":
            page = pick_page(outcome, self.server.token)
            self.send_body(200, "text/html; charset=utf-8", page.encode("utf-8", "backslashreplace"))
            return
        values = {name: texts[0] for name, texts in parse_qs(address.query).items()}
        try:
            pair = _requested_pair(outcome, values)
        except UsageError as error:
            self.send_text(404, str(error))
            return
        if address.path == "/pair":
            self.send_body(200, "application/json", pair_data(outcome, pair))
        else:
            manifest = pair_manifest(outcome, pair)
            self.send_body(
                200,
                "application/octet-stream",
                manifest.text.encode("utf-8", "backslashreplace"),
                Content_Disposition=f'attachment; filename="{manifest.name}"',
            )

    def answer_post(self, address: SplitResult) -> None:
        """Write a pick: a JSON object with prefill, decode and requests."""
        if address.path != "/pick":
            self.send_text(404, "There is nothing to change under this address.")
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and int(length) <= MAX_PICK_BYTES):
            self.send_text(413, "That is no pick.")
            return
        try:
            values = json.loads(self.rfile.read(int(length)))
            outcome = self.server.outcome()
            pair = _requested_pair(outcome, values if isinstance(values, dict) else {})
        except (ValueError, RecursionError):
            self.send_text(400, "That is no pick.")
            return
        except UsageError as error:
            self.send_text(404, str(error))
            return
        with self.server.writing:
            paths = write_pick(outcome, pair)
        self.server.picked = paths
        names = [path.name for path in paths]
        self.send_body(200, "application/json", json.dumps({"files": names, "text": picked_text(outcome)}).encode())
        if self.server.ends_with_pick:
            threading.Thread(target=self.server.stop, daemon=True).start()


def _requested_pair(outcome: ProfileOutcome, values: Mapping[str, Any]) -> WorkerPair:
    prefill, decode, requests = (str(values.get(name, "")) for name in ("prefill", "decode", "requests"))
    if not (requests.isascii() and requests.isdigit() and len(requests) < 10):
        raise UsageError("The number of requests in flight is no number.", remedy="Reload the page.")
    return find_pair(outcome, prefill, decode, int(requests))
