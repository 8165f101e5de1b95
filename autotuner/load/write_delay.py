"""Whether a server delays small writes until the client acknowledges earlier ones: Nagle's algorithm."""

from __future__ import annotations

import contextlib
import socket
import statistics
from dataclasses import dataclass
from time import monotonic

from httptools import HttpParserError

from autotuner.core import Workload
from autotuner.endpoints.address import Endpoint
from autotuner.load.connection import CONNECT_TIMEOUT_SECONDS, TCP_QUICKACK
from autotuner.load.job import request_head
from autotuner.load.response import Response, extract_body
from autotuner.load.stream import decode
from autotuner.workload.prompts import Prompts

_PAIRS = 3
_PROMPT_TOKENS = 16
_MAX_FIRST_TOKEN_SECONDS = 1.0
"""A server that takes longer is not asked further: a delayed acknowledgement is small against its TTFT."""
_MIN_DELAYED_GAP_SECONDS = 0.035
"""Linux acknowledges 40 ms late at the earliest."""
_MIN_DIFFERENCE_SECONDS = 0.005


@dataclass(frozen=True)
class FirstToken:
    """When the first token of an answer came, in seconds from its request and from the answer's first byte."""

    ttft: float
    gap: float


def first_token_delay(endpoint: Endpoint, workload: Workload) -> float | None:
    """Seconds by which the first token is later for a client whose kernel delays acknowledgements.

    None where there is no such delay, the server keeps no connection open, or this cannot be told. Sends a few
    requests for one token on one connection: three to a server without the delay.
    """
    if TCP_QUICKACK is None:
        return None
    prompts = Prompts(
        kind=workload.endpoint,
        model=endpoint.model,
        vocab_size=endpoint.vocab_size,
        salt=str(monotonic()),
        phase="write delay",
        form=workload.request_form,
    )
    head, timeout = request_head(endpoint, workload.endpoint), min(workload.request_timeout, CONNECT_TIMEOUT_SECONDS)
    pairs: list[tuple[FirstToken, FirstToken]] = []
    with contextlib.suppress(OSError, HttpParserError), _connect(endpoint, timeout) as connection:

        def ask(index: int, *, quick_ack: bool) -> FirstToken | None:
            body = prompts.body(index, _PROMPT_TOKENS, 1)
            return _first_token(connection, b"%s%d\r\n\r\n%s" % (head, len(body), body), quick_ack=quick_ack)

        first = ask(0, quick_ack=True)
        if first is None or first.ttft > _MAX_FIRST_TOKEN_SECONDS:
            return None
        for number in range(_PAIRS):
            late, at_once = ask(1 + 2 * number, quick_ack=False), ask(2 + 2 * number, quick_ack=True)
            if late is None or at_once is None or not is_delayed(late, at_once):
                return None
            pairs.append((late, at_once))
    if len(pairs) < _PAIRS:
        return None
    return statistics.median(late.ttft - at_once.ttft for late, at_once in pairs)


def is_delayed(late: FirstToken, at_once: FirstToken) -> bool:
    """Whether the first token waited for the late acknowledgement of the bytes before it."""
    return late.gap >= _MIN_DELAYED_GAP_SECONDS and at_once.gap <= late.gap - _MIN_DIFFERENCE_SECONDS


def _connect(endpoint: Endpoint, timeout: float) -> socket.socket:
    address = endpoint.address
    plain = socket.create_connection((address.host, address.port), timeout)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not address.tls:
        return plain
    try:
        return endpoint.tls.context().wrap_socket(plain, server_hostname=address.host)
    except OSError:
        plain.close()
        raise


def _first_token(connection: socket.socket, request: bytes, *, quick_ack: bool) -> FirstToken | None:
    """Send a request and read its answer; None without a token, or if the connection cannot be used again."""
    assert TCP_QUICKACK is not None
    response, times, pieces = Response(), [], []
    sent = monotonic()
    connection.sendall(request)
    connection.setsockopt(socket.IPPROTO_TCP, TCP_QUICKACK, int(quick_ack))
    while not response.is_complete:
        piece = connection.recv(1 << 16)
        if not piece:
            return None
        times.append(monotonic())
        pieces.append(piece)
        response.feed(piece)
    if response.status != 200 or not response.keep_alive:
        return None
    tokens = decode(*extract_body(times, pieces)).chunk_times
    return FirstToken(tokens[0] - sent, tokens[0] - times[0]) if tokens else None
