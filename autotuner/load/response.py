"""Where an HTTP/1.1 response ends, and what is its body."""

from __future__ import annotations

from collections.abc import Sequence

from httptools import HttpParserError, HttpResponseParser


class Response:
    """One response as it is read; `complete` once its last byte was fed.

    `framed` is false for a body that ends with the connection. `chunked` bodies end with an
    empty line, so that a read that ends otherwise cannot be their last.
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
        """Parse further; HttpParserError when this is not HTTP."""
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note how the body is framed and encoded."""
        name = name.lower()
        if name == b"content-encoding":
            self.is_compressed = value.strip().lower() not in (b"", b"identity")
        elif name == b"content-length":
            self.is_framed = True
        elif name == b"transfer-encoding":
            self.is_framed = True
            self.is_chunked = value.strip().lower().endswith(b"chunked")

    def on_headers_complete(self) -> None:
        """Note the status."""
        self.status = self.parser.get_status_code()
        self.headers_complete = self.status >= 200

    def on_message_complete(self) -> None:
        """Note the end; an interim response (1xx) is not it."""
        if self.headers_complete:
            self.is_complete = True
            self.keep_alive = self.parser.should_keep_alive()


def extract_body(times: Sequence[float], pieces: Sequence[bytes]) -> tuple[list[float], list[bytes]]:
    """Take the body out of a response that arrived as `pieces` at `times`, as far as it is readable."""
    body = _BodyCollector()
    for body.arrival_time, piece in zip(times, pieces, strict=True):
        try:
            body.parser.feed_data(piece)
        except HttpParserError:
            break
    return body.times, body.pieces


class _BodyCollector:
    def __init__(self) -> None:
        self.parser = HttpResponseParser(self)
        self.arrival_time = 0.0
        self.times: list[float] = []
        self.pieces: list[bytes] = []

    def on_body(self, piece: bytes) -> None:
        self.times.append(self.arrival_time)
        self.pieces.append(piece)
