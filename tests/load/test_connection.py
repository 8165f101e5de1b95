"""What a connection does with the bytes of a request."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from autotuner.endpoints.address import Address
from autotuner.load import connection
from autotuner.load.connection import Dialer, Exchange, TimestampedConnection
from autotuner.workload.requests import Request
from tests.servers import ReceivedRequest, Server, complete

Serve = Callable[..., Server]
PEM = Path(__file__).with_name("localhost.pem")
BODY = b'{"prompt": [1], "max_tokens": 1}'
PAYLOAD = b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


@pytest.mark.parametrize("factory", [uvloop.Loop, None], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_request_goes_out_at_once_and_not_at_the_end_of_the_loops_turn(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, factory: Callable[[], asyncio.AbstractEventLoop] | None, tls: bool
):
    """The loop is blocked until the server has the request, which it would never get if the loop had to send it."""
    arrived = threading.Event()

    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await complete(request, writer)

    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(PEM)
        monkeypatch.setenv("SSL_CERT_FILE", str(PEM))
    server = serve(behave, tls=context)

    async def send() -> tuple[bool, Exchange]:
        connection = await Dialer(Address.from_url(server.url.replace("127.0.0.1", "localhost")), 60.0).open()
        ended: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        exchange = Exchange(Request(0, 1, 1, BODY), 0.0, warmup=False)
        connection.send(exchange, PAYLOAD, lambda _, done: ended.set_result(done))
        at_once = arrived.wait(20)
        await ended
        connection.close()
        await asyncio.sleep(0)
        return at_once, exchange

    with asyncio.Runner(loop_factory=factory) as runner:
        at_once, exchange = runner.run(send())
    assert at_once
    assert exchange.status == 200


@pytest.fixture(params=[uvloop.Loop, None], ids=["uvloop", "asyncio"])
def factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop] | None:
    chosen: Callable[[], asyncio.AbstractEventLoop] | None = request.param
    return chosen


@pytest.fixture
def stamping() -> Iterator[None]:
    """Wait until the kernel notes when packets arrive: it begins a moment after the first socket wants it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as here, listener.accept()[0] as there:
            here.setsockopt(socket.SOL_SOCKET, connection.SO_TIMESTAMPNS, 1)
            deadline = time.monotonic() + 60
            notes: list[Any] = []
            while not notes:
                assert time.monotonic() < deadline
                there.send(b"x")
                notes = here.recvmsg(1, socket.CMSG_SPACE(16))[1]
            yield


async def answered(dialer: Dialer, *, until: threading.Event, blocked_seconds: float) -> Exchange:
    """Send a request, and block the loop for `blocked_seconds` after `until`."""
    client = await dialer.open()
    completed: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
    exchange = Exchange(Request(0, 1, 1, BODY), 0.0, warmup=False)
    client.send(exchange, PAYLOAD, lambda _, done: completed.set_result(done))
    assert until.wait(60)
    time.sleep(blocked_seconds)
    await completed
    client.close()
    await asyncio.sleep(0.01)
    return exchange


def test_the_wait_of_bytes_in_the_kernel_is_measured(
    serve: Serve, stamping: None, factory: Callable[[], asyncio.AbstractEventLoop] | None
):
    written = threading.Event()

    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await complete(request, writer, gap=0.0)
        written.set()

    server = serve(behave)
    with asyncio.Runner(loop_factory=factory) as runner:
        exchange = runner.run(answered(Dialer(Address.from_url(server.url), 60.0), until=written, blocked_seconds=0.2))
    assert exchange.status == 200
    assert exchange.delays is not None
    assert len(exchange.delays) == len(exchange.times) == len(exchange.pieces)
    assert exchange.delays[0] is not None
    assert exchange.delays[0] >= 0.1


@pytest.mark.parametrize("timed", [1, 2], ids=["timed", "plain"])
def test_either_kind_reads_an_answer_that_ends_with_its_connection(
    serve: Serve, factory: Callable[[], asyncio.AbstractEventLoop] | None, timed: int
):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for part in (b"one ", b"two"):
            await asyncio.sleep(0.005)
            writer.write(part)
        writer.close()

    server = serve(behave)

    async def ask() -> tuple[bool, Exchange]:
        dialer = Dialer(Address.from_url(server.url), 60.0, timestamp_every=timed)
        unused, opened = await dialer.open(), await dialer.open()
        unused.close()
        ended: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        opened.send(
            Exchange(Request(0, 1, 1, BODY), 0.0, warmup=False), PAYLOAD, lambda _, done: ended.set_result(done)
        )
        return isinstance(opened, TimestampedConnection), await ended

    with asyncio.Runner(loop_factory=factory) as runner:
        is_timed, exchange = runner.run(ask())
    assert is_timed is (timed == 1)
    assert (exchange.status, exchange.error) == (200, None)
    assert b"".join(exchange.pieces).endswith(b"one two")
    assert len(exchange.times) == len(exchange.pieces)
    assert (exchange.delays is not None) is is_timed


def test_under_tls_and_on_the_other_connections_there_are_no_kernel_timestamps(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    monkeypatch.setenv("SSL_CERT_FILE", str(PEM))

    async def kinds(url: str, timed: int) -> list[bool]:
        dialer = Dialer(Address.from_url(url.replace("127.0.0.1", "localhost")), 60.0, timestamp_every=timed)
        connections = [await dialer.open() for _ in range(7)]
        for opened in connections:
            opened.close()
        await asyncio.sleep(0.01)
        return [isinstance(opened, TimestampedConnection) for opened in connections]

    assert asyncio.run(kinds(serve().url, 3)) == [True, False, False, True, False, False, True]
    assert asyncio.run(kinds(serve().url, 1)) == [True] * 7
    assert asyncio.run(kinds(serve(tls=context).url, 1)) == [False] * 7


@pytest.mark.parametrize(
    "endless",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 20_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
        b"HTTP/1.1 200 OK\r\n\r\ndata: " + b"a" * 200_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"5\r\naaaaa\r\n" * 20_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 200_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 8_000,
    ],
    ids=["headers", "header", "body", "chunks", "chunk size", "interim responses"],
)
def test_a_response_without_an_end_fails_at_its_limit_and_little_of_it_is_kept(serve: Serve, endless: bytes):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(endless)
        await writer.drain()
        await asyncio.sleep(60)

    server = serve(behave)

    async def ask() -> Exchange:
        opened = await Dialer(Address.from_url(server.url), 60.0).open()
        ended: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        exchange = Exchange(Request(0, 1, 1, BODY), 0.0, warmup=False, byte_limit=100_000)
        opened.send(exchange, PAYLOAD, lambda _, done: ended.set_result(done))
        return await ended

    exchange = asyncio.run(ask())
    assert exchange.error in (connection.RESPONSE_TOO_LONG, "malformed")
    if exchange.error == connection.RESPONSE_TOO_LONG:
        assert "longer than 0.1 MiB" in exchange.error_message
        assert len(exchange.times) == len(exchange.pieces) == 1
    assert sum(map(len, exchange.pieces)) < 200_000


class SilentTransport(asyncio.Transport):
    """A transport to nowhere, whose connection is handed bytes by a test."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def abort(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("beginning", "repeated"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X: a\r\n" * 200),
        (b"HTTP/1.1 200 OK\r\nX: ", b"a" * 9_999),
        (b"HTTP/1.1 200 OK\r\n\r\ndata: ", b"a" * 9_999),
        (CHUNKED, b"5\r\naaaaa\r\n"),
        (CHUNKED, b"0" * 9_999),
        (CHUNKED + b"5;extension=", b"a" * 9_999),
        (CHUNKED + b"fffffffffff\r\n", b"a" * 9_999),
        (CHUNKED + b"0\r\n", b"X: a\r\n" * 200),
        (CHUNKED, b"8\r\n: ping\n\n\r\n" * 100),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100),
    ],
    ids=["headers", "header", "body", "chunks", "chunk size", "extension", "chunk", "trailers", "pings", "interim"],
)
def test_streams_without_an_end_hold_no_more_than_their_limits_together(beginning: bytes, repeated: bytes):
    byte_limit, streams = 20_000, 64

    async def most_held() -> int:
        ended: list[Exchange] = []
        connections = [connection.Connection(60.0) for _ in range(streams)]
        exchanges = [Exchange(Request(n, 1, 1, BODY), 0.0, warmup=False, byte_limit=byte_limit) for n in range(streams)]
        for opened, exchange in zip(connections, exchanges, strict=True):
            opened.connection_made(SilentTransport())
            opened.send(exchange, PAYLOAD, lambda _, done: ended.append(done))
            opened.data_received(beginning or repeated)
        most = 0
        for _ in range(byte_limit // len(repeated) + 1):
            for opened in connections:
                if opened.exchange is not None:
                    opened.data_received(repeated)
            held = sum(len(piece) + connection.PIECE_BYTES for exchange in exchanges for piece in exchange.pieces)
            most = max(most, held)
        assert len(ended) == streams
        assert {exchange.error for exchange in ended} <= {connection.RESPONSE_TOO_LONG, "malformed"}
        return most

    assert asyncio.run(most_held()) <= streams * (byte_limit + len(repeated))


def test_headers_have_a_limit_of_their_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "MAX_HEADER_BYTES", 1_000)

    async def ended_by(*pieces: bytes) -> str | None:
        errors: list[str | None] = []
        opened = connection.Connection(60.0)
        opened.connection_made(SilentTransport())
        exchange = Exchange(Request(0, 1, 1, BODY), 0.0, warmup=False)
        opened.send(exchange, PAYLOAD, lambda _, done: errors.append(done.error))
        for piece in pieces:
            opened.data_received(piece)
        return errors[0] if errors else "in flight"

    assert asyncio.run(ended_by(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 1_000)) == connection.RESPONSE_TOO_LONG
    assert asyncio.run(ended_by(b"HTTP/1.1 100 Continue\r\n\r\n" * 40)) == connection.RESPONSE_TOO_LONG
    assert asyncio.run(ended_by(b"HTTP/1.1 200 OK\r\nX: a\r\n\r\n", b"a" * 2_000)) == "in flight"
    assert asyncio.run(ended_by(CHUNKED, b"7d0\r\n" + b"a" * 2_000 + b"\r\n", b"0\r\n\r\n")) is None
