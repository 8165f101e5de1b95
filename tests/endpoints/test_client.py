"""How a running server is asked, and what is said of its answers."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from autotuner.endpoints import client as client_module
from autotuner.endpoints.client import Client, NoAnswerError
from autotuner.errors import ConfigError
from tests.servers import ScriptedResponses, ServeResponses


def test_every_request_has_the_headers_and_passes_no_proxy(
    serve_responses: ServeResponses, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    responses = ScriptedResponses(a=[(200, "one")])
    with Client(serve_responses(responses), {"X-Team": "search"}) as client:
        assert [client.ask_root("/a").text, client.ask_root("/a", {"b": 1}).text] == ["one", "one"]
    assert [headers["X-Team"] for headers in responses.requested_headers] == ["search", "search"]
    assert responses.requested_headers[1]["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "summary"),
    [
        (json.dumps({"error": {"message": "no s3cret"}}), "/a answered 401: no *****"),
        (json.dumps({"detail": "no s3cret"}), "/a answered 401: no *****"),
        ("no s3cret", "/a answered 401: no *****"),
        ("", "/a answered 401."),
    ],
)
def test_a_server_is_quoted_without_the_key(serve_responses: ServeResponses, body: str, summary: str) -> None:
    with Client(serve_responses(ScriptedResponses(a=[(401, body)])), {"Authorization": "Bearer s3cret"}) as client:
        assert client.ask_root("/a").summary == summary


def test_a_server_that_is_not_there_gives_no_answer() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(NoAnswerError, match=r"/a gave no answer: .*refused"):
        client.ask_root("/a")


def test_a_server_that_stays_silent_gives_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with Client(url) as client, pytest.raises(NoAnswerError, match="gave no answer: timed out"):
            client.ask_root("/a", timeout=0.1)


@contextlib.contextmanager
def endless(piece: bytes, pause: float) -> Iterator[str]:
    """The URL of a server whose answers never end."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(piece)
                    time.sleep(pause)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("piece", "pause", "timeout", "reason"),
    [(b": ping\n\n", 0.02, 0.2, "did not end in time"), (b" " * 65536, 0.0, 60.0, "is too long")],
)
def test_an_answer_without_an_end_is_none(
    piece: bytes, pause: float, timeout: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 1 << 20)
    with endless(piece, pause) as url, Client(url) as client, pytest.raises(NoAnswerError, match=reason):
        client.ask_root("/a", timeout=timeout)


@pytest.mark.parametrize("url", ["localhost:8000", "http://a b:8000", "http://a..b\N{SNOWMAN}/"])
def test_what_is_not_an_address_is_not_asked(url: str) -> None:
    with pytest.raises(ConfigError, match="not the address of a server"):
        Client(url)


def test_a_header_that_cannot_be_sent_is_refused_before_the_first_request(serve_responses: ServeResponses) -> None:
    responses = ScriptedResponses(a=[(200, "")])
    with pytest.raises(ConfigError, match="The header 'X-Key' begins or ends with a blank"):
        Client(serve_responses(responses), {"X-Key": "s3cret "})
    assert not responses.requested_paths


@contextlib.contextmanager
def raw_server(response: bytes, then: bytes = b"", pause: float = 0.02) -> Iterator[str]:
    """The URL of a server that sends these bytes, then `then` for ever where it is given, and else closes."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(response)
                while then:
                    connection.sendall(then)
                    time.sleep(pause)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    "response",
    [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX: a", b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"],
)
def test_a_question_ends_in_time_wherever_the_answer_drips(response: bytes) -> None:
    with raw_server(response, then=b"1") as url, Client(url) as client:
        with pytest.raises(NoAnswerError, match="did not end in time") as caught:
            client.ask_root("/a", timeout=0.2)
    assert caught.value.is_silent


@pytest.mark.parametrize(
    "response",
    [
        b"PRI * HTTP/2.0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"\xff\xfe",
        b"HTTP/1.1 99999999999999999999 OK\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_broken_response_is_no_answer_or_one_that_is_not_ok(response: bytes) -> None:
    with raw_server(response) as url, Client(url) as client, pytest.raises(NoAnswerError):
        client.ask_root("/a", timeout=5.0).require_ok()


def test_credentials_are_never_sent_to_where_a_redirect_leads(serve_responses: ServeResponses) -> None:
    other = ScriptedResponses(steal=[(200, "thanks")])
    with raw_server(
        f"HTTP/1.1 302 F\r\nLocation: {serve_responses(other)}/steal\r\nContent-Length: 0\r\n\r\n".encode()
    ) as url:
        with Client(url, {"Authorization": "Bearer s3cret"}) as client:
            assert client.ask_root("/metrics").status == 302
    assert other.requested_headers == []


def test_a_body_may_have_less_time_than_the_whole_answer() -> None:
    with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n", then=b"1") as url, Client(url) as client:
        with pytest.raises(NoAnswerError, match="did not end in time"):
            client.ask("/a", timeout=600.0, body_timeout=0.1)


def compressed(body: bytes, encoding: bytes) -> bytes:
    """A response whose body is compressed, or is said to be."""
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s" % (encoding, len(body), body)


@pytest.mark.parametrize(("encoding", "compress"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_a_compressed_answer_is_read_as_far_as_the_limit(
    encoding: bytes, compress: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_server(compressed(compress(b'{"a": 1}'), encoding)) as url, Client(url) as client:
        assert client.ask_root("/a").json() == {"a": 1}
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 1 << 20)
    with (
        raw_server(compressed(compress(b" " * (8 << 20)), encoding)) as url,
        Client(url) as client,
        pytest.raises(NoAnswerError, match="is too long"),
    ):
        client.ask_root("/a")


@pytest.mark.parametrize(("encoding", "reason"), [(b"gzip", "not the gzip"), (b"br", "compressed as 'br'")])
def test_an_answer_that_cannot_be_decoded_is_none(encoding: bytes, reason: str) -> None:
    with (
        raw_server(compressed(b"no such thing", encoding)) as url,
        Client(url) as client,
        pytest.raises(NoAnswerError, match=reason),
    ):
        client.ask_root("/a")
