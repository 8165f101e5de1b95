from __future__ import annotations

import asyncio
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.simulate import http
from autotuner.simulate.http import HttpConnection, ServerExchange

BODY = '{"prompt": "grüße"}'.encode()
POST = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = (
    b"POST /d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: r\r\n\r\n"
)


class FakeTransport(asyncio.Transport):
    """A transport that records what is written."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def exchange_bytes(pieces: list[bytes], handler) -> FakeTransport:
    async def run() -> FakeTransport:
        transport = FakeTransport()
        connection = HttpConnection(handler)
        connection.connection_made(transport)
        for piece in pieces:
            connection.data_received(piece)
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        return transport

    return asyncio.run(run())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 200), max_size=8))
def test_requests_are_the_same_however_their_bytes_arrive(cuts):
    stream = POST + CHUNKED + POST
    edges = [0, *sorted(cut for cut in set(cuts) if cut < len(stream)), len(stream)]
    requests: list[tuple[str, str, bytes]] = []

    def handle(exchange: ServerExchange) -> None:
        request = exchange.request
        requests.append((request.method, request.path, bytes(request.body)))
        exchange.send(200, b"ok")

    transport = exchange_bytes([stream[start:end] for start, end in pairwise(edges)], handle)
    assert requests == [("POST", "/a", BODY), ("POST", "/d", b"abcde"), ("POST", "/a", BODY)]
    assert transport.sent.count(b"HTTP/1.1 200 OK\r\n") == 3


def test_reading_pauses_while_too_many_requests_wait():
    exchanges: list[ServerExchange] = []
    reading_states: list[bool] = []

    def handle(exchange: ServerExchange) -> None:
        exchanges.append(exchange)

    async def run() -> None:
        transport = FakeTransport()
        connection = HttpConnection(handle)
        connection.connection_made(transport)
        connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * (http.MAX_PIPELINED_REQUESTS + 1))
        reading_states.append(transport.reading)
        for number in range(http.MAX_PIPELINED_REQUESTS + 1):
            exchanges[number].send(200, b"")
            await asyncio.sleep(0)
        reading_states.append(transport.reading)

    asyncio.run(run())
    assert reading_states == [False, True]
    assert len(exchanges) == http.MAX_PIPELINED_REQUESTS + 1


def test_a_body_above_the_limit_is_rejected_and_the_connection_closed(monkeypatch):
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 100)
    handled: list[ServerExchange] = []
    transport = exchange_bytes(
        [b"POST / HTTP/1.1\r\nContent-Length: 500\r\n\r\n", b"x" * 101, b"x" * 399], handled.append
    )
    assert transport.sent.startswith(b"HTTP/1.1 413 ")
    assert (transport.closed, handled) == (True, [])


def test_expect_100_continue_is_answered():
    transport = exchange_bytes(
        [b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"], lambda exchange: None
    )
    assert transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_garbage_in_the_middle_of_a_stream_ends_it_without_a_second_response():
    disconnects: list[bool] = []

    def handle(exchange: ServerExchange) -> None:
        exchange.on_disconnect = lambda: disconnects.append(True)
        exchange.start_stream()

    transport = exchange_bytes([POST, b"\x00\x01garbage\r\n\r\n"], handle)
    assert transport.sent.count(b"HTTP/1.1") == 1
    assert (transport.closed, disconnects) == (True, [True])


def test_a_stream_is_sent_in_chunks():
    def handle(exchange: ServerExchange) -> None:
        exchange.start_stream()
        exchange.write(b"data: a\n\n")
        exchange.end(b"data: b\n\n")

    sent = exchange_bytes([POST], handle).sent
    assert sent.endswith(b"\r\n\r\n9\r\ndata: a\n\n\r\n9\r\ndata: b\n\n\r\n0\r\n\r\n")
