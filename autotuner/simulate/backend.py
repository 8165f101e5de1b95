"""One server behind a router: requests over kept connections, their answers as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools


class BackendError(Exception):
    """The server could not be reached, or its connection ended within an answer."""


class BackendAnswer:
    """One answer as it comes; the callbacks are called in this order, `on_end` with an error or None.

    `on_headers` gets status and content type, `on_body` each part of the body, as large as it arrived.
    """

    def __init__(
        self,
        on_headers: Callable[[int, str], None],
        on_body: Callable[[bytes], None],
        on_end: Callable[[BackendError | None], None],
    ) -> None:
        self.on_headers = on_headers
        self.on_body = on_body
        self.on_end = on_end


class _Connection(asyncio.Protocol):
    """A connection to a server, with at most one request at a time."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: BackendAnswer | None = None
        self._content_type = ""

    def send(self, request: bytes, answer: BackendAnswer) -> None:
        """Send a request; the connection is the backend's again when it was answered."""
        self._answer = answer
        self._parser = httptools.HttpResponseParser(self)
        self._content_type = ""
        if self._transport is None:
            self._end(BackendError("the connection is closed"))
        else:
            self._transport.write(request)

    def close(self) -> None:
        """Drop the connection, and with it the request in progress, without an answer."""
        self._answer = None
        if self._transport is not None:
            self._transport.close()

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end(BackendError(f"the connection to {self._backend.address} ended"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(BackendError(f"{self._backend.address} answers no HTTP: {error}"))
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._content_type = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._answer is not None:
            self._answer.on_headers(self._parser.get_status_code(), self._content_type)

    def on_body(self, body: bytes) -> None:
        if self._answer is not None:
            self._answer.on_body(body)

    def on_message_complete(self) -> None:
        if self._parser.should_keep_alive():
            self._backend.keep(self)
        elif self._transport is not None:
            self._transport.close()
        self._end(None)

    def _end(self, error: BackendError | None) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.on_end(error)


class Backend:
    """A server at `host`:`port`; `in_flight` counts the requests that a router has given it."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.in_flight = 0
        self._idle: list[_Connection] = []

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    async def send(self, method: str, path: str, body: bytes, answer: BackendAnswer) -> Callable[[], None]:
        """Send a request; returns what drops it. BackendError if the server cannot be reached."""
        head = f"{method} {path} HTTP/1.1\r\nhost: {self.address}\r\ncontent-type: application/json\r\n"
        connection = await self._connection()
        connection.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body, answer)
        return connection.close

    async def fetch(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of a whole answer; dropped with the task that waits for it."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        status, parts = 0, bytearray()

        def on_headers(code: int, content_type: str) -> None:
            nonlocal status
            status = code

        def on_end(error: BackendError | None) -> None:
            if error is not None and not done.done():
                done.set_exception(error)
            elif not done.done():
                done.set_result(None)

        drop = await self.send(method, path, body, BackendAnswer(on_headers, parts.extend, on_end))
        try:
            await done
        except asyncio.CancelledError:
            drop()
            raise
        return status, bytes(parts)

    def keep(self, connection: _Connection) -> None:
        """Take back a connection whose request was answered."""
        self._idle.append(connection)

    def close(self) -> None:
        """Close the kept connections."""
        for connection in self._idle:
            connection.close()

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(lambda: _Connection(self), self.host, self.port)
        except OSError as error:
            raise BackendError(f"{self.address} cannot be reached: {error}") from error
        return connection
