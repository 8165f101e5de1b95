"""One keep-alive HTTP/1.1 connection that stamps bytes as they arrive and understands nothing of them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from time import monotonic
from typing import cast

from httptools import HttpParserError

from autotuner.load.job import Address
from autotuner.load.response import Response
from autotuner.workload.requests import Request

CONNECT_TIMEOUT = 10.0
STALE = "stale"
_STALE_SECONDS = 1.0
"""An idle connection that the server has closed shows itself within this time of being used again."""


class Exchange:
    """One request on its way, and everything that came back.

    `times[i]` is when the bytes `pieces[i]` of the response, its headers included, arrived.
    `error` is the class of what went wrong on the way, None when the response is complete;
    `said` is what the machine said of it. `warmup` requests keep up the load before and behind the
    window and are not counted; their `index` is below 0.
    """

    __slots__ = (
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
        self.error: str | None = None
        self.said = ""
        self.retried = False
        self.under_way = False


Done = Callable[["Connection", Exchange], None]


class Connection(asyncio.Protocol):
    """A connection that carries one exchange at a time and calls `done` at its end."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.response = Response()
        self.parsed = 0
        self.done: Done | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.used = False
        self.on_idle_loss: Callable[[Connection], None] | None = None

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self.transport is not None and not self.transport.is_closing() and self.exchange is None

    def send(self, exchange: Exchange, payload: bytes, done: Done) -> None:
        """Send one request: `exchange.sent` is the instant before its first byte is written."""
        assert self.transport is not None
        self.exchange = exchange
        self.response = Response()
        self.parsed = 0
        self.done = done
        exchange.under_way = True
        exchange.sent = monotonic()
        self.transport.write(payload)
        self.timer = self.loop.call_later(self.timeout, self._timed_out)

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
        if self.response.chunked and len(data) >= 4 and not data.endswith(b"\r\n\r\n"):
            return
        if not self._parse(exchange):
            self._finish(now, "malformed")
        elif self.response.complete:
            self._finish(now, None)

    def connection_lost(self, error: Exception | None) -> None:
        """End the exchange on the way: complete if only the end was missing, else failed."""
        now = monotonic()
        exchange = self.exchange
        if exchange is None:
            if self.on_idle_loss is not None:
                self.on_idle_loss(self)
            return
        if not self._parse(exchange):
            self._finish(now, "malformed")
        elif self.response.headed and not self.response.framed and error is None:
            self._finish(now, None)
        elif self.used and not (exchange.pieces or exchange.retried) and now - exchange.sent < _STALE_SECONDS:
            self._finish(now, STALE)
        else:
            self._finish(now, "tls" if isinstance(error, ssl.SSLError) else "reset")

    def _timed_out(self) -> None:
        if self.exchange is not None:
            self._finish(monotonic(), "timeout" if self._parse(self.exchange) else "malformed")

    def _parse(self, exchange: Exchange) -> bool:
        """Give the parser what it has not seen yet; False when it is not HTTP."""
        unseen = exchange.pieces[self.parsed :]
        self.parsed += len(unseen)
        try:
            self.response.feed(unseen[0] if len(unseen) == 1 else b"".join(unseen))
        except HttpParserError:
            return False
        return True

    def _finish(self, now: float, error: str | None) -> None:
        exchange, done, response = self.exchange, self.done, self.response
        assert exchange is not None
        assert done is not None
        if self.timer is not None:
            self.timer.cancel()
        self.exchange = self.done = self.timer = None
        self.used = True
        exchange.finished = now
        exchange.status = response.status
        exchange.error = error or ("compressed" if response.encoded else None)
        if not (response.complete and response.persistent):
            self.close()
        done(self, exchange)


class DialError(Exception):
    """A connection could not be opened; `kind` is the class it is counted under."""

    def __init__(self, kind: str, said: str) -> None:
        super().__init__(said)
        self.kind = kind


class Dialer:
    """Opens connections to one server, whose name it looks up once."""

    def __init__(self, address: Address, timeout: float) -> None:
        self.address = address
        self.timeout = timeout
        self.hosts: list[str] = []
        self.tls = ssl.create_default_context() if address.tls else None

    async def open(self) -> Connection:
        """Connect; DialError says why not."""
        loop = asyncio.get_running_loop()
        last: OSError | TimeoutError | None = None
        for host in await self._resolved(loop):
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    _, connection = await loop.create_connection(
                        lambda: Connection(self.timeout),
                        host,
                        self.address.port,
                        ssl=self.tls,
                        server_hostname=self.address.host if self.tls else None,
                    )
            except (OSError, TimeoutError) as error:
                last = error
            else:
                self.hosts = [host]
                return connection
        assert last is not None
        raise DialError(_kind(last), str(last) or type(last).__name__) from last

    async def _resolved(self, loop: asyncio.AbstractEventLoop) -> list[str]:
        if not self.hosts:
            try:
                found = await loop.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                raise DialError("dns", str(error)) from error
            self.hosts = list(dict.fromkeys(str(info[4][0]) for info in found))
        return self.hosts


def _kind(error: OSError | TimeoutError) -> str:
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
