"""An HTTP/1.1 server connection as an asyncio protocol, with chunked and plain responses."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

import httptools

MAX_BODY_BYTES = 64 * 2**20
MAX_PIPELINED_REQUESTS = 16
SERVER_HEADERS = b"server: autotune-sim\r\nx-autotune-simulated: 1\r\n"
CLOSE_HEADER = b"connection: close\r\n"


@dataclass(slots=True)
class HttpRequest:
    """One complete HTTP request."""

    method: str = "GET"
    path: str = "/"
    body: bytearray = field(default_factory=bytearray)
    keep_alive: bool = True
    chunked_allowed: bool = True


class ServerExchange:
    """One request and its response: `send` once, or `start_stream`, any number of `write`, then `end`.

    `on_disconnect` is called if the client disconnects before the response ends.
    """

    def __init__(self, connection: HttpConnection, request: HttpRequest) -> None:
        self.request = request
        self.on_disconnect: Callable[[], None] | None = None
        self._connection = connection
        self._chunked = request.chunked_allowed

    def send(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        """Send a complete response."""
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
            f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
        )
        close = b"" if self.request.keep_alive else CLOSE_HEADER
        self._connection.write(head.encode() + SERVER_HEADERS + close + b"\r\n" + body)
        self._connection.finish(self)

    def start_stream(self, content_type: str = "text/event-stream; charset=utf-8") -> None:
        """Send the headers of a streamed response."""
        if self._chunked:
            framing = b"transfer-encoding: chunked\r\n"
        else:
            # HTTP/1.0 has no chunked encoding: closing the connection ends the body.
            self.request.keep_alive = False
            framing = b""
        close = b"" if self.request.keep_alive else CLOSE_HEADER
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncache-control: no-cache\r\n".encode()
        self._connection.write(head + framing + SERVER_HEADERS + close + b"\r\n")

    def write(self, data: bytes) -> None:
        """Send one chunk."""
        self._connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self, data: bytes) -> None:
        """Send the last chunk, which may be empty, and end the response, in one write."""
        if self._chunked:
            last_chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            data = last_chunk + b"0\r\n\r\n"
        self._connection.write(data)
        self._connection.finish(self)

    def abort(self) -> None:
        """Close the connection within the response, so that its client sees that it is not complete."""
        self._connection.close()


class HttpConnection(asyncio.Protocol):
    """One client connection; pipelined requests are answered one after the other."""

    def __init__(self, handler: Callable[[ServerExchange], None]) -> None:
        self._handler = handler
        self._parser = httptools.HttpRequestParser(self)
        self._request = HttpRequest()
        self._raw_url = bytearray()
        self._queue: deque[HttpRequest] = deque()
        self._current: ServerExchange | None = None
        self._transport: asyncio.Transport | None = None
        self._rejected = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._queue.clear()
        current, self._current = self._current, None
        if current is not None and current.on_disconnect is not None:
            current.on_disconnect()

    def data_received(self, data: bytes) -> None:
        if self._rejected:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._reject(400)
        except httptools.HttpParserError:
            # An oversized body stops the parser with an error too, and was answered already.
            if not self._rejected:
                self._reject(400)

    def on_message_begin(self) -> None:
        self._request = HttpRequest()
        self._raw_url.clear()

    def on_url(self, url: bytes) -> None:
        """Collect the URL, which may arrive in parts."""
        self._raw_url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Answer `Expect: 100-continue` before the body arrives."""
        if name.lower() == b"expect" and value.lower() == b"100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._request.body += body
        if len(self._request.body) > MAX_BODY_BYTES:
            self._reject(413)
            raise ValueError("body too large")

    def on_message_complete(self) -> None:
        """Handle the request, or queue it behind the one in progress."""
        request = self._request
        request.method = self._parser.get_method().decode("ascii")
        request.path = bytes(self._raw_url).split(b"?", 1)[0].decode("latin-1")
        request.keep_alive = self._parser.should_keep_alive()
        request.chunked_allowed = self._parser.get_http_version() != "1.0"
        self._queue.append(request)
        if len(self._queue) >= MAX_PIPELINED_REQUESTS and self._transport is not None:
            self._transport.pause_reading()
        if self._current is None:
            self._handle_next()

    def write(self, data: bytes) -> None:
        """Send bytes; dropped if the client has disconnected."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.close()

    def finish(self, exchange: ServerExchange) -> None:
        """End the response in progress, and handle the next pipelined request."""
        self._current = None
        if self._transport is None:
            return
        if not exchange.request.keep_alive:
            self._transport.close()
        elif self._queue:
            # Deferred, because a response may end inside the handler of its own request.
            asyncio.get_running_loop().call_soon(self._handle_next)

    def _handle_next(self) -> None:
        if self._current is not None or not self._queue or self._transport is None:
            return
        request = self._queue.popleft()
        if len(self._queue) < MAX_PIPELINED_REQUESTS and not self._transport.is_reading():
            self._transport.resume_reading()
        self._current = ServerExchange(self, request)
        self._handler(self._current)

    def _reject(self, status: int) -> None:
        self._rejected = True
        # While another response is being written, an error response would corrupt it.
        if self._current is None:
            phrase = HTTPStatus(status).phrase
            head = f"HTTP/1.1 {status} {phrase}\r\ncontent-length: 0\r\n".encode()
            self.write(head + SERVER_HEADERS + CLOSE_HEADER + b"\r\n")
        if self._transport is not None:
            self._transport.close()
