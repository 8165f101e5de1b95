"""The HTTP client that asks a running server."""

from __future__ import annotations

import contextlib
import json
import math
import re
import socket
import threading
import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from autotuner.endpoints.address import Address, not_an_address
from autotuner.endpoints.error_text import error_text
from autotuner.endpoints.headers import check_headers, mask_secrets
from autotuner.endpoints.tls import TlsTrust, tls_fault

if TYPE_CHECKING:
    import httpx

_LINE_END = re.compile(r"\r\n|\n|\r")

MAX_ANSWER_BYTES = 32 << 20
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32

TIMEOUT_SECONDS = 5.0
"""Seconds that a question may take which generates no token."""


CONNECT_TIMEOUT_SECONDS = 10.0

SHUTDOWN_GRACE_SECONDS = 0.1
"""Lets the HTTP library's own time-out come first, whose errors say more."""


class NoAnswerError(Exception):
    """A server gave no usable answer; `status` is its HTTP status, None without a response.

    `is_tls_fault` when no response could come, because its certificate is not trusted or it speaks no TLS;
    `is_silent` when it took the question and did not answer in time.
    """

    def __init__(
        self, message: str, status: int | None = None, *, is_tls_fault: bool = False, is_silent: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.is_tls_fault = is_tls_fault
        self.is_silent = is_silent


class RedirectedError(NoAnswerError):
    """A page of an API is elsewhere; `location` says where, and `path` is what was asked for."""

    def __init__(self, path: str, answer: Answer) -> None:
        super().__init__(answer.summary, answer.status)
        self.path = path
        self.location = answer.location or ""


@dataclass(frozen=True)
class Answer:
    """A response to a question; `summary` has its status and the server's own words, without secrets.

    `location` is where a redirect leads, as a whole URL.
    """

    status: int
    text: str
    summary: str
    location: str | None = None

    def require_ok(self) -> None:
        """NoAnswerError for any status but 200."""
        if self.status != 200:
            raise NoAnswerError(self.summary, self.status)

    def json(self) -> Any:
        """The JSON of the response; ValueError if it is none."""
        return _parse_json(self.text.removeprefix("\ufeff"))

    def events(self) -> list[dict[str, Any]]:
        """The JSON objects of the response, which may be an event stream; ValueError if there is anything else."""
        text = self.text.lstrip("\ufeff \t\r\n")
        if text.startswith("{"):
            events = [self.json()]
        else:
            # not splitlines: a text may contain other line separators
            lines = [line.removeprefix("data:").strip() for line in _LINE_END.split(text) if line.startswith("data:")]
            events = [_parse_json(line) for line in lines if line not in ("", "[DONE]")]
        if not all(isinstance(event, dict) for event in events):
            raise ValueError("an event is not an object")
        return events


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


class Client(AbstractContextManager["Client"]):
    """Asks one server, without a proxy and trusting the same certificates as the load generator does."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, tls: TlsTrust | None = None) -> None:
        import httpx

        self.address = Address.from_url(url)
        self._headers = headers or {}
        check_headers(self._headers)
        # loading certificates takes long
        verify = (tls or TlsTrust()).context() if self.address.tls else False
        self._sockets: list[socket.socket] = []
        fields = {"User-Agent": "autotune", "Accept-Encoding": "identity", **self._headers}
        try:
            self._http = httpx.Client(base_url=self.address.origin, headers=fields, trust_env=False, verify=verify)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise not_an_address(url) from error

    def __exit__(self, *exception: object) -> None:
        self._http.close()

    def ask(
        self,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        timeout: float = TIMEOUT_SECONDS,
        body_timeout: float = math.inf,
    ) -> Answer:
        """Ask a page of the API such as `/models`: a GET request, or with a JSON `body` a POST.

        NoAnswerError if no response comes in `timeout` seconds, or not all of it `body_timeout` seconds after its
        headers.
        """
        return self._ask(self.address.api_target(path), body, timeout, body_timeout)

    def ask_root(
        self, path: str, body: bytes | Mapping[str, Any] | None = None, timeout: float = TIMEOUT_SECONDS
    ) -> Answer:
        """Ask a page beside the API, such as `/metrics`, like `ask`."""
        return self._ask(self.address.root_target(path), body, timeout)

    def _ask(
        self, target: str, body: bytes | Mapping[str, Any] | None, timeout: float, body_timeout: float = math.inf
    ) -> Answer:
        import httpx

        content = json.dumps(body).encode() if isinstance(body, Mapping) else body
        method, headers = ("GET", {}) if content is None else ("POST", {"Content-Type": "application/json"})
        path = target.partition("?")[0]
        limits = httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT_SECONDS))
        with _Deadline(timeout, self._sockets) as deadline:
            extensions = {"trace": deadline.note_connection}
            try:
                with self._http.stream(
                    method, target, content=content, headers=headers, timeout=limits, extensions=extensions
                ) as response:
                    deadline.shorten(body_timeout)
                    text = self._read(response, deadline)
            except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RuntimeError) as error:
                # beside its own errors, the library raises those of h11 and of the sockets on some broken responses
                is_late = deadline.has_shut_down
                fault = None if is_late else tls_fault(error)
                reason = fault or mask_secrets(str(error), self._headers) or type(error).__name__
                reason = "the answer did not end in time" if is_late else reason
                raise NoAnswerError(
                    f"{path} gave no answer: {reason}.",
                    is_tls_fault=fault is not None,
                    is_silent=is_late or isinstance(error, httpx.ReadTimeout),
                ) from error
        location = response.headers.get("Location") if 300 <= response.status_code < 400 else None
        if location is not None:
            try:
                location = urljoin(f"{self.address.origin}{target}", location)
                urlsplit(location)
            except ValueError:  # it is no URL
                location = None
        words = mask_secrets(error_text(text), self._headers)
        summary = f"{path} answered {response.status_code}"
        return Answer(response.status_code, text, f"{summary}: {words}" if words else f"{summary}.", location)

    @staticmethod
    def _read(response: httpx.Response, deadline: _Deadline) -> str:
        import httpx

        body = bytearray()
        decode = _decoder(response.headers.get("Content-Encoding", ""))
        for piece in response.iter_raw():
            body += decode(piece, MAX_ANSWER_BYTES + 1 - len(body))
            if deadline.has_passed:
                raise httpx.ReadTimeout("the answer did not end in time")
            if len(body) > MAX_ANSWER_BYTES:
                raise httpx.ReadError(f"the answer is too long: over {MAX_ANSWER_BYTES >> 20} MiB")
        return body.decode("utf-8", "replace")


def _decoder(encoding: str) -> Callable[[bytes, int], bytes]:
    """Decodes the pieces of a body, each to at most so many bytes; ValueError for what cannot be decoded.

    The HTTP library's own decoders have no limit, and a compressed piece may be a thousand times as long.
    """
    if encoding.strip().lower() in ("", "identity"):
        return lambda piece, limit: piece
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        raise ValueError(f"the answer is compressed as {encoding!r}, which was not asked for")
    decompressor = zlib.decompressobj(_GZIP_OR_ZLIB)

    def decode(piece: bytes, limit: int) -> bytes:
        try:
            return decompressor.decompress(piece, limit)
        except zlib.error as error:
            raise ValueError(f"the answer is not the {encoding} that it is said to be: {error}") from error

    return decode


class _Deadline(AbstractContextManager["_Deadline"]):
    """Shuts a client's connections down when a whole question takes too long.

    The HTTP library's time-outs are for each read: a server that sends a header byte a second would never end.
    `sockets` are those of the client's open connections.
    """

    def __init__(self, seconds: float, sockets: list[socket.socket]) -> None:
        self.has_shut_down = False
        self._sockets = sockets
        self._start(seconds)

    def _start(self, seconds: float) -> None:
        self._end = monotonic() + seconds
        self._timer = threading.Timer(seconds + SHUTDOWN_GRACE_SECONDS, self._shut_down)
        self._timer.daemon = True
        self._timer.start()

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()

    def shorten(self, seconds: float) -> None:
        """End in at most `seconds` from now."""
        if monotonic() + seconds < self._end:
            self._timer.cancel()
            self._start(seconds)

    @property
    def has_passed(self) -> bool:
        return monotonic() >= self._end

    def note_connection(self, event: str, details: Mapping[str, Any]) -> None:
        """Keep the socket of a connection that was opened; the HTTP library calls this at every step."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            opened = details["return_value"].get_extra_info("socket")
            self._sockets[:] = [kept for kept in self._sockets if kept.fileno() >= 0] + [opened]

    def _shut_down(self) -> None:
        self.has_shut_down = True
        for opened in list(self._sockets):
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
