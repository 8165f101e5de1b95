"""The numbered ways in which servers stream, from the bytes of the connection to the record, cut anywhere.

The numbers are those of test_stream.py, which has the tests of each.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.core import RequestRecord
from autotuner.load import spool
from autotuner.load.connection import Exchange
from autotuner.workload.requests import Request
from tests.load.streams import DONE, delta, receive, text, usage
from tests.servers import sse


def chunked(*events: object, extension: bytes = b"", trailers: bytes = b"", last: bool = True) -> bytes:
    """A streamed answer, one HTTP chunk for each event."""
    parts = [sse(event) if not isinstance(event, bytes) or event == DONE else event for event in events]
    framed = b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + framed + (b"0\r\n" + trailers + b"\r\n" if last else b"")


def status(code: int) -> bytes:
    body = json.dumps({"error": {"message": "no"}}).encode()
    return b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%s" % (code, len(body), body)


def total(prompt: int, output: int) -> dict[str, Any]:
    return {"choices": [], "usage": usage(prompt, output)}


WORDS = [text("Hi"), text(" there", "length"), total(7, 2), DONE]
CRLF = b"".join(sse(event).replace(b"\n", b"\r\n") for event in WORDS)
SPLIT_CHARACTER = sse(text("日本🙂")).replace(b"\\u65e5\\u672c\\ud83d\\ude42", "日本🙂".encode())
PLAIN = b"".join(sse(event) for event in WORDS)

RecordCheck = Callable[[RequestRecord], bool]
STREAMS: dict[str, tuple[bytes, RecordCheck]] = {
    "1 role-only first": (
        chunked(delta(role="assistant", content=""), delta(content="Hi"), delta("length", content="!"), total(7, 2)),
        lambda r: list(r.chunk_tokens) == [1, 1],
    ),
    "1 empty first": (
        chunked(text(""), *WORDS),
        lambda r: list(r.chunk_tokens) == [1, 1],
    ),
    "2 reasoning and content": (
        chunked(delta(reasoning="hm"), delta(reasoning="so", content="4"), delta("stop", content="2"), total(7, 3)),
        lambda r: list(r.chunk_tokens) == [1, 1, 1] and r.first_output is not None,
    ),
    "3 several tokens in a chunk": (
        chunked(text("a"), text(" longer text", "stop"), total(7, 5)),
        lambda r: list(r.chunk_tokens) == [1, 4],
    ),
    "4 several events in a read, CRLF, comments": (
        chunked(b": ping\r\n\r\n" + CRLF),
        lambda r: r.error is None and list(r.chunk_tokens) == [1, 1],
    ),
    "4 a character of several bytes": (
        chunked(SPLIT_CHARACTER, text("!", "length"), total(7, 2)),
        lambda r: r.error is None and list(r.chunk_tokens) == [1, 1],
    ),
    "5 usage-only last chunk": (chunked(*WORDS), lambda r: (r.prompt_tokens, r.output_tokens) == (7, 2)),
    "5 usage in the last content chunk": (
        chunked(text("a"), {**text("b", "length"), "usage": usage(7, 2)}, DONE),
        lambda r: (r.prompt_tokens, r.output_tokens) == (7, 2),
    ),
    "5 no usage": (
        chunked(text("a"), text("b", "length"), DONE),
        lambda r: (r.prompt_tokens, r.output_tokens, r.output_token_count) == (None, None, 2),
    ),
    "6 an error mid-stream": (
        chunked(text("a"), {"error": {"message": "out of pages"}}, DONE),
        lambda r: r.error == "stream-error" and len(r.chunk_times) == 1,
    ),
    "6 no finish reason": (chunked(text("a"), DONE), lambda r: r.error == "incomplete"),
    "7 a stop too early": (
        chunked(text("a", "stop"), total(7, 1), DONE),
        lambda r: r.error == "early-stop",
    ),
    "8 429": (status(429), lambda r: r.error == "http-429"),
    "8 503": (status(503), lambda r: r.error == "http-503"),
    "8 400": (status(400), lambda r: r.error == "http-400"),
    "8 a server that dies mid-stream": (
        chunked(text("a"), text("b"), last=False),
        lambda r: r.error == "reset" and len(r.chunk_times) == 2,
    ),
    "9 a connection closed behind the answer": (
        chunked(*WORDS).replace(b"Transfer", b"Connection: close\r\nTransfer"),
        lambda r: r.error is None and r.output_token_count == 2,
    ),
    "10 extensions and trailers": (
        chunked(*WORDS, extension=b';a=1;b="x y"', trailers=b"X-Time: 5\r\n"),
        lambda r: r.error is None and r.output_token_count == 2,
    ),
    "10 Content-Length": (
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(PLAIN), PLAIN),
        lambda r: r.error is None and r.output_token_count == 2,
    ),
    "10 gzip": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
        lambda r: r.error == "compressed",
    ),
    "11 a prompt of 50,000 tokens": (
        chunked(text("a"), text("b", "length"), total(50_000, 2)),
        lambda r: r.prompt_tokens == 50_000,
    ),
    "12 no [DONE]": (chunked(*WORDS[:-1]), lambda r: r.error is None and r.output_token_count == 2),
}
REQUESTED_TOKENS = 2


def record(folder: Path, raw: bytes, cuts: list[int]) -> RequestRecord:
    """What is recorded of `raw` when it arrives cut at `cuts` and the connection ends behind it."""
    edges = sorted({0, len(raw), *(cut for cut in cuts if 0 < cut < len(raw))})
    exchange, _, _ = receive(*(raw[begin:end] for begin, end in pairwise(edges)), end=True)
    spooled = Exchange(Request(0, 7, REQUESTED_TOKENS, b""), 0.0, warmup=False)
    for name in ("times", "pieces", "status", "error", "finished"):
        setattr(spooled, name, getattr(exchange, name))
    out = spool.Spool(folder / "raw")
    out.add(spooled)
    out.close()
    (folder / "records").unlink(missing_ok=True)
    spool.transcribe(folder / "raw", folder / "records")
    (decoded,) = spool.read(folder / "records")
    return decoded


def untimed(decoded: RequestRecord) -> tuple[object, ...]:
    """All of a record that does not depend on when its bytes arrived."""
    names = ("requested_output", "prompt_tokens", "output_tokens", "finish_reason", "error", "output_token_count")
    values = tuple(getattr(decoded, name) for name in names)
    return (*values, list(decoded.chunk_tokens), len(decoded.chunk_times), decoded.first_output is None)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_recorded_as_what_it_is(name: str, tmp_path: Path):
    raw, check = STREAMS[name]
    assert check(record(tmp_path, raw, []))


@settings(max_examples=200)
@given(st.sampled_from(sorted(STREAMS)), st.data())
def test_any_split_of_the_same_bytes_gives_the_same_record(tmp_path_factory: pytest.TempPathFactory, name: str, data):
    raw, _ = STREAMS[name]
    folder = tmp_path_factory.getbasetemp()
    cuts = data.draw(st.lists(st.integers(1, len(raw) - 1), max_size=30))
    assert untimed(record(folder, raw, cuts)) == untimed(record(folder, raw, []))


def test_all_twelve_numbers_are_here():
    assert {int(name.split()[0]) for name in STREAMS} == set(range(1, 13))
