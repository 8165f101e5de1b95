"""One keep-alive HTTP/1.1 connection that stamps bytes as they arrive and understands nothing of them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from time import monotonic, time_ns
from typing import cast

from httptools import HttpParserError

from autotuner.load.job import Address
from autotuner.load.response import Response
from autotuner.workload.requests import Request

CONNECT_TIMEOUT_SECONDS = 10.0
STALE_CONNECTION = "stale"
_STALE_DETECTION_SECONDS = 1.0
"""An idle connection that the server has closed shows itself within this time of being used again."""


class Exchange:
    """One request on its way, and everything that came back.

    `times[i]` is when the bytes `pieces[i]` of the response, its headers included, arrived.
    `error` is the class of what went wrong on the way, None when the response is complete;
    `said` is what the machine said of it. `warmup` requests keep up the load before and behind the
    window and are not counted; their `index` is below 0. `delays[i]` is how many seconds pieces[i]
    had waited in the kernel by then, None where it did not tell; `delays` is None where it was not
    asked.
    """

    __slots__ = (
        "delays",
        "error",
        "finished",
        "index",
        "pieces",
        "request",
        "retried",
        "said",
        "scheduled",
        "sent",
        "status",
        "times",
        "under_way",
        "warmup",
    )

    def __init__(self, request: Request, scheduled: float, *, warmup: bool) -> None:
        self.request = request
        self.warmup = warmup
        self.index = -1 - request.index if warmup else request.index
        self.scheduled = scheduled
        self.sent = scheduled
        self.finished = scheduled
        self.status = 0
        self.times: list[float] = []
        self.pieces: list[bytes] = []
        self.delays: list[float | None] | None = None
        self.error: str | None = None
        self.said = ""
        self.retried = False
        self.under_way = False


CompletionCallback = Callable[["Connection", Exchange], None]


class Connection(asyncio.BaseProtocol):
    """A connection that carries one exchange at a time and calls `done` at its end."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.event_loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.response = Response()
        self.parsed_pieces = 0
        self.on_done: CompletionCallback | None = None
        self.timeout_timer: asyncio.TimerHandle | None = None
        self.used_before = False
        self.on_idle_loss: Callable[[Connection], None] | None = None

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self.transport is not None and not self.transport.is_closing() and self.exchange is None

    def send(self, exchange: Exchange, payload: bytes, on_done: CompletionCallback) -> None:
        """Send one request: `exchange.sent` is the instant before its first byte is written."""
        assert self.transport is not None
        self.exchange = exchange
        self.response = Response()
        self.parsed_pieces = 0
        self.on_done = on_done
        exchange.under_way = True
        exchange.sent = monotonic()
        self.transport.write(payload)
        self.timeout_timer = self.event_loop.call_later(self.timeout, self._on_timeout)

    def close(self) -> None:
        """Close at once, whatever is on the way."""
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, and have it write at once."""
        # uvloop's transports are not subclasses of asyncio's
        self.transport = cast(asyncio.Transport, transport)
        # older uvloop queues a write to the end of the loop's turn unless it exceeds this limit
        self.transport.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        """Stamp and store; the parser sees the bytes when they can be the end of the response."""
        now = monotonic()
        exchange = self.exchange
        if exchange is None:
            self.close()
            return
        exchange.times.append(now)
        exchange.pieces.append(data)
        if self.response.is_chunked and len(data) >= 4 and not data.endswith(b"\r\n\r\n"):
            return
        if not self._parse_new_pieces(exchange):
            self._finish(now, "malformed")
        elif self.response.is_complete:
            self._finish(now, None)

    def eof_received(self) -> None:
        """Have the connection closed."""

    def connection_lost(self, error: Exception | None) -> None:
        """End the exchange on the way: complete if only the end was missing, else failed."""
        now = monotonic()
        exchange = self.exchange
        if exchange is None:
            if self.on_idle_loss is not None:
                self.on_idle_loss(self)
            return
        if not self._parse_new_pieces(exchange):
            self._finish(now, "malformed")
        elif self.response.headers_complete and not self.response.is_framed and error is None:
            self._finish(now, None)
        elif (
            self.used_before
            and not (exchange.pieces or exchange.retried)
            and now - exchange.sent < _STALE_DETECTION_SECONDS
        ):
            self._finish(now, STALE_CONNECTION)
        else:
            self._finish(now, "tls" if isinstance(error, ssl.SSLError) else "reset")

    def _on_timeout(self) -> None:
        if self.exchange is not None:
            self._finish(monotonic(), "timeout" if self._parse_new_pieces(self.exchange) else "malformed")

    def _parse_new_pieces(self, exchange: Exchange) -> bool:
        """Give the parser what it has not seen yet; False when it is not HTTP."""
        unseen = exchange.pieces[self.parsed_pieces :]
        self.parsed_pieces += len(unseen)
        try:
            self.response.feed(unseen[0] if len(unseen) == 1 else b"".join(unseen))
        except HttpParserError:
            return False
        return True

    def _finish(self, now: float, error: str | None) -> None:
        exchange, done, response = self.exchange, self.on_done, self.response
        assert exchange is not None
        assert done is not None
        if self.timeout_timer is not None:
            self.timeout_timer.cancel()
        self.exchange = self.on_done = self.timeout_timer = None
        self.used_before = True
        exchange.finished = now
        exchange.status = response.status
        exchange.error = error or ("compressed" if response.is_compressed else None)
        if not (response.is_complete and response.keep_alive):
            self.close()
        done(self, exchange)


SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_PEEK_FLAGS = socket.MSG_PEEK | getattr(socket, "MSG_DONTWAIT", 0)
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)
_READ_BUFFER_BYTES = 1 << 16


class TimestampedConnection(Connection, asyncio.BufferedProtocol):
    """One that also asks the kernel when the bytes it is about to read arrived, which takes 3 us a read.

    Of several packets that wait, the kernel may know only when the last one came: where the client
    is later than the next token, the delay is understated.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout)
        self.buffer = memoryview(bytearray(_READ_BUFFER_BYTES))
        self.file_descriptor: int | None = None
        self.kernel_delay: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have the kernel note when packets arrive, where it does that."""
        super().connection_made(transport)
        if sys.platform != "linux":
            return
        file: int = transport.get_extra_info("socket").fileno()
        source = _borrow_socket(file)
        with contextlib.suppress(OSError):
            source.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self.file_descriptor = file
        source.detach()

    def send(self, exchange: Exchange, payload: bytes, on_done: CompletionCallback) -> None:
        """Send one request; see Connection."""
        exchange.delays = []
        super().send(exchange, payload, on_done)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Ask the kernel; the event loop reads right after this."""
        self.kernel_delay = None if self.file_descriptor is None else _kernel_delay(self.file_descriptor)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Stamp and store; see Connection."""
        if self.exchange is not None and self.exchange.delays is not None:
            self.exchange.delays.append(self.kernel_delay)
        self.data_received(bytes(self.buffer[:nbytes]))


def _borrow_socket(file_descriptor: int) -> socket.socket:
    """Return a socket that belongs to an event loop, whose own object does not let others read; detach it after use."""
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, file_descriptor)


def _kernel_delay(file_descriptor: int) -> float | None:
    """Return how many seconds the first unread bytes have waited; None where there are none or nothing says so."""
    source = _borrow_socket(file_descriptor)
    try:
        _, notes, _, _ = source.recvmsg(1, _ANCILLARY_BYTES, _PEEK_FLAGS)
    except OSError:
        return None
    finally:
        source.detach()
    now = time_ns()
    for level, kind, data in notes:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
            arrival: tuple[int, int] = _TIMESPEC.unpack(data)
            return max(0.0, (now - arrival[0] * 1_000_000_000 - arrival[1]) / 1e9)
    return None


class DialError(Exception):
    """A connection could not be opened; `kind` is the class it is counted under."""

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


class Dialer:
    """Opens connections to one server, whose name it looks up once; one of every `timed` is a TimedConnection.

    Under TLS none is, for the bytes that arrive are not those that are read.
    """

    def __init__(self, address: Address, timeout: float, *, timestamp_every: int = 1) -> None:
        self.address = address
        self.timeout = timeout
        self.timestamp_every = timestamp_every
        self.opened_count = 0
        self.hosts: list[str] = []
        self.tls_context = ssl.create_default_context() if address.tls else None

    async def open(self) -> Connection:
        """Connect; DialError says why not."""
        loop = asyncio.get_running_loop()
        last: OSError | TimeoutError | None = None
        kind = (
            TimestampedConnection
            if self.opened_count % self.timestamp_every == 0 and not self.tls_context
            else Connection
        )
        self.opened_count += 1
        for host in await self._resolve(loop):
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                    _, connection = await loop.create_connection(
                        lambda: kind(self.timeout),
                        host,
                        self.address.port,
                        ssl=self.tls_context,
                        server_hostname=self.address.host if self.tls_context else None,
                    )
            except (OSError, TimeoutError) as error:
                last = error
            else:
                self.hosts = [host]
                return connection
        assert last is not None
        raise DialError(_error_class(last), str(last) or type(last).__name__) from last

    async def _resolve(self, loop: asyncio.AbstractEventLoop) -> list[str]:
        if not self.hosts:
            try:
                found = await loop.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                raise DialError("dns", str(error)) from error
            self.hosts = list(dict.fromkeys(str(info[4][0]) for info in found))
        return self.hosts


def _error_class(error: OSError | TimeoutError) -> str:
    match error:
        case ssl.SSLError():
            return "tls"
        case ConnectionRefusedError():
            return "connection-refused"
        case ConnectionError():
            return "reset"
        case TimeoutError():
            return "timeout"
    return "unreachable"
