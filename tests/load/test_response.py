from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.load.connection import Connection, Exchange
from autotuner.load.response import extract_body
from tests.load.streams import Wire, receive

EVENTS = [b'data: {"choices": [{"text": "h\xc3\xa9"}]}\n\n', b"data: [DONE]\n\n"]
CRLF_EVENTS = [event.replace(b"\n", b"\r\n") for event in EVENTS]


def chunks(*parts: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    framed = b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n" + trailers + b"\r\n"


WHOLE = b"".join(EVENTS)
RESPONSES = {
    "chunked": (chunks(*EVENTS), WHOLE),
    "one chunk": (chunks(WHOLE), WHOLE),
    "CRLF events": (chunks(*CRLF_EVENTS), b"".join(CRLF_EVENTS)),
    "extensions": (chunks(*EVENTS, extension=b';a=1;b="x y"'), WHOLE),
    "trailers": (chunks(*EVENTS, trailers=b"X-Time: 5\r\nX-More: 6\r\n"), WHOLE),
    "capital hex": (chunks(b"x" * 255).replace(b"ff\r\n", b"FF\r\n"), b"x" * 255),
    "content length": (b"HTTP/1.1 200 OK\r\ncontent-LENGTH: %d\r\n\r\n" % len(WHOLE) + WHOLE, WHOLE),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\n" + chunks(*EVENTS), WHOLE),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
}


def content(exchange: Exchange) -> bytes:
    return b"".join(extract_body(exchange.times, exchange.pieces)[1])


@pytest.mark.parametrize("kind", RESPONSES)
def test_a_response_cut_at_any_one_place_ends_at_its_last_byte_and_has_the_same_body(kind: str):
    raw, expected = RESPONSES[kind]
    for cut in range(1, len(raw)):
        exchange, done, connection = receive(raw[:cut], raw[cut:])
        assert done == [1], cut
        assert (exchange.error, exchange.status, connection.usable) == (None, 200, True)
        assert content(exchange) == expected


@settings(max_examples=150)
@given(st.sampled_from(sorted(RESPONSES)), st.data())
def test_a_response_cut_at_any_places_ends_at_its_last_byte_and_has_the_same_body(kind: str, data: st.DataObject):
    raw, expected = RESPONSES[kind]
    cuts = sorted(set(data.draw(st.lists(st.integers(1, len(raw) - 1), max_size=30))))
    reads = [raw[begin:end] for begin, end in pairwise([0, *cuts, len(raw)])]
    exchange, done, _ = receive(*reads)
    assert done == [len(reads) - 1]
    assert content(exchange) == expected


@given(st.sampled_from(sorted(RESPONSES)), st.integers(1, 400))
def test_a_response_that_the_server_cuts_short_is_a_reset(kind: str, kept: int):
    raw, _ = RESPONSES[kind]
    exchange, done, connection = receive(raw[: min(kept, len(raw) - 1)], end=True)
    assert done == [0]
    assert exchange.error == "reset"
    assert not connection.usable


def test_a_body_without_length_ends_with_the_connection():
    exchange, done, _ = receive(b"HTTP/1.1 200 OK\r\n\r\n" + EVENTS[0], EVENTS[1], end=True)
    assert done == [1]
    assert exchange.error is None
    assert content(exchange) == WHOLE


def test_a_body_without_length_that_ends_with_an_error_is_a_reset():
    exchange, _, _ = receive(b"HTTP/1.1 200 OK\r\n\r\n" + EVENTS[0], end=True, error=ConnectionResetError())
    assert exchange.error == "reset"


def test_a_server_that_says_close_is_not_asked_again():
    raw = RESPONSES["chunked"][0].replace(b"Transfer", b"Connection: close\r\nTransfer")
    exchange, _, connection = receive(raw)
    assert exchange.error is None
    assert not connection.usable


def test_a_compressed_answer_is_refused():
    exchange, _, _ = receive(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08")
    assert exchange.error == "compressed"


def test_an_identity_encoding_is_not_compressed():
    exchange, _, _ = receive(b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}")
    assert exchange.error is None


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"\x15\x03\x01\x00\x02",
        RESPONSES["chunked"][0].replace(b"\r\n\r\n", b"\r\n\r\nzz\r\n\r\n", 1),
    ],
)
def test_what_is_not_http_is_malformed_and_the_connection_is_not_used_again(raw: bytes):
    exchange, done, connection = receive(raw)
    assert done == [0]
    assert exchange.error == "malformed"
    assert not connection.usable


def test_a_broken_chunk_is_found_when_the_connection_ends():
    exchange, _, _ = receive(chunks(*EVENTS)[:-5], b"not a chunk size", end=True)
    assert exchange.error == "malformed"


def test_bytes_that_nobody_asked_for_close_the_connection():
    async def idle() -> bool:
        connection = Connection(60.0)
        connection.connection_made(Wire())
        connection.data_received(b"HTTP/1.1 408 Timeout\r\n\r\n")
        return connection.usable

    assert not asyncio.run(idle())


def test_a_status_is_kept():
    assert receive(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")[0].status == 503
