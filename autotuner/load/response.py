"""Parses HTTP/1.1 responses: where one ends, and its body."""

from __future__ import annotations

from collections.abc import Sequence

from httptools import HttpParserError, HttpResponseParser


class Response:
    """Parser of one response; `is_complete` once its last byte was fed.

    `is_framed` is false for a body that ends with the connection. A chunked body ends with an empty
    line, so that a read without one cannot be its last.
    """

    def __init__(self) -> None:
        self.parser = HttpResponseParser(self)
        self.status = 0
        self.is_framed = False
        self.is_chunked = False
        self.is_compressed = False
        self.headers_complete = False
        self.is_complete = False
        self.keep_alive = False

    def feed(self, data: bytes) -> None:
        """Parse the next bytes; HttpParserError if they are not HTTP."""
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser; notes how the body is framed and encoded."""
        name = name.lower()
        if name == b"content-encoding":
            self.is_compressed = value.strip().lower() not in (b"", b"identity")
        elif name == b"content-length":
            self.is_framed = True
        elif name == b"transfer-encoding":
            self.is_framed = True
            self.is_chunked = value.strip().lower().endswith(b"chunked")

    def on_headers_complete(self) -> None:
        """Called by the parser; an interim response (1xx) is not the one waited for."""
        self.status = self.parser.get_status_code()
        self.headers_complete = self.status >= 200

    def on_message_complete(self) -> None:
        """Called by the parser, also after an interim response."""
        if self.headers_complete:
            self.is_complete = True
            self.keep_alive = self.parser.should_keep_alive()


def is_success(status: int) -> bool:
    """Whether a status says that the request was answered: 200, or another 2xx from a gateway."""
    return 200 <= status < 300


def extract_body(times: Sequence[float], pieces: Sequence[bytes]) -> tuple[list[float], list[bytes]]:
    """Return the body of the response that arrived as `pieces` at `times`, with arrival times, as far as it parses."""
    collector = _BodyCollector()
    for collector.arrival_time, piece in zip(times, pieces, strict=True):
        try:
            collector.parser.feed_data(piece)
        except HttpParserError:
            break
    return collector.times, collector.pieces


class _BodyCollector:
    def __init__(self) -> None:
        self.parser = HttpResponseParser(self)
        self.arrival_time = 0.0
        self.times: list[float] = []
        self.pieces: list[bytes] = []

    def on_body(self, piece: bytes) -> None:
        self.times.append(self.arrival_time)
        self.pieces.append(piece)
