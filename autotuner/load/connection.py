"""One keep-alive HTTP/1.1 connection that timestamps response bytes as they arrive, without interpreting them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from time import monotonic, time_ns
from typing import TYPE_CHECKING, cast

from httptools import HttpParserError

from autotuner.endpoints.address import Address
from autotuner.endpoints.tls import TlsTrust, tls_fault
from autotuner.load.response import Response
from autotuner.workload.requests import Request

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket

CONNECT_TIMEOUT_SECONDS = 10.0
TCP_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""The socket option that acknowledges at once; only Linux has it."""
STALE_CONNECTION = "stale"
RESPONSE_TOO_LONG = "response-too-long"
PIECE_BYTES = 96
"""Memory that one read takes besides its bytes: the object, its time, and their places in two lists."""
MAX_HEADER_BYTES = 1 << 17
"""Limit of the headers of a response and of interim responses before it: the parser holds a second copy of them."""
_KEPT_BYTES = 16_384
"""What is kept of a response that was too long: its status and the beginning of its text."""
_STALE_DETECTION_SECONDS = 1.0
"""A reused connection that fails this soon, without a byte, had been closed by the server while idle."""


class Exchange:
    """One HTTP request and the raw bytes of its response.

    `times[i]` is when `pieces[i]` of the response, headers included, was read. `error` is the error
    class, None when the response is complete; `error_message` the server's or the system's message.
    `warmup` requests keep the load up before and after the window and are not counted; their `index`
    is negative. `delays[i]` is how many seconds pieces[i] had waited in the kernel, None where the
    kernel gave no timestamp; `delays` is None on connections without kernel timestamps.
    A response fails as RESPONSE_TOO_LONG when its reads take more than `byte_limit` bytes of memory, or its headers
    more than MAX_HEADER_BYTES.
    """

    __slots__ = (
        "byte_limit",
        "delays",
        "error",
        "error_message",
        "finished",
        "in_flight",
        "index",
        "pieces",
        "received_bytes",
        "request",
        "retried",
        "scheduled",
        "sent",
        "status",
        "times",
        "warmup",
    )

    def __init__(self, request: Request, scheduled: float, *, warmup: bool, byte_limit: float = math.inf) -> None:
        self.byte_limit = byte_limit
        self.received_bytes = 0
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
        self.error_message = ""
        self.retried = False
        self.in_flight = False


CompletionCallback = Callable[["Connection", Exchange], None]


class Connection(asyncio.BaseProtocol):
    """A connection that carries one exchange at a time and calls its `on_done` at the end."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.event_loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.socket: TransportSocket | None = None
        self.exchange: Exchange | None = None
        self.response = Response()
        self.parsed_piece_count = 0
        self.on_done: CompletionCallback | None = None
        self.timeout_timer: asyncio.TimerHandle | None = None
        self.used_before = False
        self.on_idle_loss: Callable[[Connection], None] | None = None

    @property
    def usable(self) -> bool:
        """Whether it is open and carries no request."""
        return self.transport is not None and not self.transport.is_closing() and self.exchange is None

    def send(self, exchange: Exchange, payload: bytes, on_done: CompletionCallback) -> None:
        """Send one request; `exchange.sent` is the instant before its first byte is written."""
        assert self.transport is not None
        self.exchange = exchange
        self.response = Response()
        self.parsed_piece_count = 0
        self.on_done = on_done
        exchange.in_flight = True
        exchange.sent = monotonic()
        self.transport.write(payload)
        self._acknowledge_at_once()
        self.timeout_timer = self.event_loop.call_later(self.timeout, self._on_timeout)

    def close(self) -> None:
        """Close at once, even with a request in flight."""
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, and make it write without buffering."""
        # uvloop's transports are not subclasses of asyncio's
        self.transport = cast(asyncio.Transport, transport)
        # older uvloop queues a write to the end of the loop's turn unless it exceeds this limit
        self.transport.set_write_buffer_limits(high=0)
        self.socket = transport.get_extra_info("socket") if TCP_QUICKACK is not None else None

    def data_received(self, data: bytes) -> None:
        """Timestamp and store `data`; parse only when it may end the response, to keep this path short."""
        now = monotonic()
        exchange = self.exchange
        if exchange is None:
            self.close()
            return
        exchange.times.append(now)
        exchange.pieces.append(data)
        exchange.received_bytes += len(data) + PIECE_BYTES
        if exchange.received_bytes > exchange.byte_limit:
            self._refuse_rest(exchange, now)
            return
        if len(exchange.pieces) == 1:
            # the rest of a long request may have been written after `send`
            self._acknowledge_at_once()
        if self.response.is_chunked and len(data) >= 4 and not data.endswith(b"\r\n\r\n"):
            return
        if not self._parse_new_pieces(exchange):
            self._finish(now, "malformed")
        elif self.response.is_complete:
            self._finish(now, None)
        elif exchange.received_bytes > MAX_HEADER_BYTES and not self.response.headers_complete:
            self._refuse_rest(exchange, now)

    def _refuse_rest(self, exchange: Exchange, now: float) -> None:
        """Fail a response that is too long, and forget all but its beginning."""
        with contextlib.suppress(HttpParserError):
            self.response.feed(exchange.pieces[0][:_KEPT_BYTES] if not self.parsed_piece_count else b"")
        part, limit = "response was", exchange.byte_limit
        if not self.response.headers_complete:
            part, limit = "headers were", min(limit, MAX_HEADER_BYTES)
        exchange.error_message = f"The {part} longer than {limit / 2**20:.1f} MiB."
        exchange.pieces[:] = [b"".join(exchange.pieces[:8])[:_KEPT_BYTES]]
        del exchange.times[1:]
        if exchange.delays is not None:
            del exchange.delays[1:]
        self._finish(now, RESPONSE_TOO_LONG)

    def eof_received(self) -> None:
        """Let the transport close itself."""

    def connection_lost(self, error: Exception | None) -> None:
        """End the exchange in flight: complete if the body was to end with the connection, else failed."""
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
        elif self._was_stale(exchange, now):
            self._finish(now, STALE_CONNECTION)
        else:
            self._finish(now, "tls" if isinstance(error, ssl.SSLError) else "reset")

    def _acknowledge_at_once(self) -> None:
        """Have the kernel acknowledge what it receives at once, which each write ends.

        A server without TCP_NODELAY keeps a small write, such as the first token, until the one before, such as
        the headers, is acknowledged; the kernel of a client that writes and reads in turn does so after 40 ms.
        """
        if self.socket is not None and TCP_QUICKACK is not None:
            try:
                self.socket.setsockopt(socket.IPPROTO_TCP, TCP_QUICKACK, 1)
            except OSError:
                self.socket = None

    def _was_stale(self, exchange: Exchange, now: float) -> bool:
        untouched = self.used_before and not (exchange.pieces or exchange.retried)
        return untouched and now - exchange.sent < _STALE_DETECTION_SECONDS

    def _on_timeout(self) -> None:
        if self.exchange is not None:
            self._finish(monotonic(), "timeout" if self._parse_new_pieces(self.exchange) else "malformed")

    def _parse_new_pieces(self, exchange: Exchange) -> bool:
        """Parse the pieces not parsed yet; False when they are not HTTP."""
        new_pieces = exchange.pieces[self.parsed_piece_count :]
        self.parsed_piece_count += len(new_pieces)
        try:
            self.response.feed(new_pieces[0] if len(new_pieces) == 1 else b"".join(new_pieces))
        except HttpParserError:
            return False
        return True

    def _finish(self, now: float, error: str | None) -> None:
        exchange, on_done, response = self.exchange, self.on_done, self.response
        assert exchange is not None
        assert on_done is not None
        if self.timeout_timer is not None:
            self.timeout_timer.cancel()
        self.exchange = self.on_done = self.timeout_timer = None
        self.used_before = True
        exchange.finished = now
        exchange.status = response.status
        exchange.error = error or ("compressed" if response.is_compressed else None)
        if not (response.is_complete and response.keep_alive):
            self.close()
        on_done(self, exchange)


SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_PEEK_FLAGS = socket.MSG_PEEK | getattr(socket, "MSG_DONTWAIT", 0)
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)
_READ_BUFFER_BYTES = 1 << 16


class TimestampedConnection(Connection, asyncio.BufferedProtocol):
    """A connection that also asks the kernel when the bytes of each read arrived, which takes 3 us a read.

    Of several waiting packets the kernel may know only the last arrival: where the client falls behind
    by more than one token, the delay is understated.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout)
        self.buffer = memoryview(bytearray(_READ_BUFFER_BYTES))
        self.file_descriptor: int | None = None
        self.kernel_delay: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Enable receive timestamps on the socket, where the kernel has them."""
        super().connection_made(transport)
        if sys.platform != "linux":
            return
        descriptor: int = transport.get_extra_info("socket").fileno()
        source = _borrow_socket(descriptor)
        with contextlib.suppress(OSError):
            source.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self.file_descriptor = descriptor
        source.detach()

    def send(self, exchange: Exchange, payload: bytes, on_done: CompletionCallback) -> None:
        """Send one request, and collect kernel delays for it."""
        exchange.delays = []
        super().send(exchange, payload, on_done)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Ask the kernel for the delay: the event loop reads right after this."""
        self.kernel_delay = None if self.file_descriptor is None else _kernel_delay(self.file_descriptor)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Store the delay, and handle the bytes as `Connection` does."""
        if self.exchange is not None and self.exchange.delays is not None:
            self.exchange.delays.append(self.kernel_delay)
        self.data_received(bytes(self.buffer[:nbytes]))


def _borrow_socket(file_descriptor: int) -> socket.socket:
    """Wrap a descriptor that the event loop owns and whose own socket object has no recvmsg; detach it after use."""
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, file_descriptor)


def _kernel_delay(file_descriptor: int) -> float | None:
    """Seconds that the first unread bytes have waited in the kernel; None without unread bytes or a timestamp."""
    source = _borrow_socket(file_descriptor)
    try:
        _, ancillary, _, _ = source.recvmsg(1, _ANCILLARY_BYTES, _PEEK_FLAGS)
    except OSError:
        return None
    finally:
        source.detach()
    now = time_ns()
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
            arrival: tuple[int, int] = _TIMESPEC.unpack(data)
            return max(0.0, (now - arrival[0] * 1_000_000_000 - arrival[1]) / 1e9)
    return None


class DialError(Exception):
    """A connection could not be opened."""

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


class Dialer:
    """Opens connections to one server, whose name it resolves once.

    One in `timestamp_every` connections has kernel timestamps; none under TLS, where the bytes that
    arrive are not those that are read.
    """

    def __init__(
        self, address: Address, timeout: float, *, tls: TlsTrust | None = None, timestamp_every: int = 1
    ) -> None:
        self.address = address
        self.timeout = timeout
        self.timestamp_every = timestamp_every
        self.opened_count = 0
        self.hosts: list[str] = []
        self.tls_context = (tls or TlsTrust()).context() if address.tls else None

    async def open(self) -> Connection:
        """Connect to the first address that accepts; DialError if none does."""
        loop = asyncio.get_running_loop()
        last_error: OSError | TimeoutError | None = None
        timestamped = self.opened_count % self.timestamp_every == 0 and not self.tls_context
        connection_class = TimestampedConnection if timestamped else Connection
        self.opened_count += 1
        for host in await self._resolve(loop):
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                    _, connection = await loop.create_connection(
                        lambda: connection_class(self.timeout),
                        host,
                        self.address.port,
                        ssl=self.tls_context,
                        server_hostname=self.address.host if self.tls_context else None,
                    )
            except (OSError, TimeoutError) as error:
                last_error = error
            else:
                self.hosts = [host]
                return connection
        assert last_error is not None
        message = tls_fault(last_error) or str(last_error) or type(last_error).__name__
        raise DialError(_error_class(last_error), message) from last_error

    async def _resolve(self, loop: asyncio.AbstractEventLoop) -> list[str]:
        if not self.hosts:
            try:
                addresses = await loop.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                raise DialError("dns", str(error)) from error
            self.hosts = list(dict.fromkeys(str(info[4][0]) for info in addresses))
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
