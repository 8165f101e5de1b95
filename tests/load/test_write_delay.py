"""Servers whose kernel keeps small writes back until the client acknowledges earlier ones (no TCP_NODELAY)."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Literal

import pytest
import uvloop

from autotuner.core import LoadPoint, Workload
from autotuner.endpoints.address import Address, Endpoint
from autotuner.load.connection import Connection, Dialer, Exchange
from autotuner.load.write_delay import FirstToken, first_token_delay, is_delayed
from autotuner.workload.requests import Request
from tests.servers import HEAD, Behaviour, ReceivedRequest, Server, chunked, complete, sse, status, token, usage

Serve = Callable[..., Server]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has TCP_QUICKACK")
BODY = b'{"prompt": [1], "max_tokens": 2}'
PAYLOAD = b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


async def answer_in_small_writes(
    request: ReceivedRequest, writer: asyncio.StreamWriter, *, no_delay: bool = False, role_first: bool = False
) -> None:
    """Headers at once, and each token a small write of its own 5 ms later."""
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(no_delay))
    tokens = request.body["max_tokens"]
    writer.write(HEAD)
    if role_first:
        writer.write(chunked(sse({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})))
    for number in range(tokens):
        await asyncio.sleep(0.005)
        writer.write(chunked(token(finish="length" if number == tokens - 1 else None)))
    writer.write(chunked(usage(1, tokens) + sse(b"[DONE]")) + b"0\r\n\r\n")


def delay(server: Server, endpoint: Literal["completions", "chat"] = "completions") -> float | None:
    workload = Workload((LoadPoint("D(10,5)", concurrency=1),), endpoint=endpoint)
    return first_token_delay(Endpoint(server.url, "m"), workload)


@pytest.mark.parametrize("factory", [uvloop.Loop, None], ids=["uvloop", "asyncio"])
def test_each_request_has_its_answer_acknowledged_at_once(
    serve: Serve, factory: Callable[[], asyncio.AbstractEventLoop] | None
):
    """The kernel turns to late acknowledgements with the next write, so that one setting does not last."""
    server = serve(partial(answer_in_small_writes, no_delay=True))

    async def acknowledges_at_once() -> list[int]:
        connection = await Dialer(Address.from_url(server.url), 60.0).open()
        states = []
        for _ in range(4):
            ended: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
            exchange = Exchange(Request(0, 1, 1, BODY), 0.0, warmup=False)

            def end(connection: Connection, exchange: Exchange, ended: asyncio.Future[Exchange] = ended) -> None:
                ended.set_result(exchange)

            connection.send(exchange, PAYLOAD, end)
            assert connection.socket is not None
            states.append(connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK))
            await ended
        connection.close()
        await asyncio.sleep(0)
        return states

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(acknowledges_at_once()) == [1] * 4


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
@pytest.mark.parametrize("role_first", [False, True])
def test_a_server_that_delays_small_writes_is_found(
    serve: Serve, endpoint: Literal["completions", "chat"], role_first: bool
):
    server = serve(partial(answer_in_small_writes, role_first=role_first))
    # on a busy machine a client may be as late as the kernel's acknowledgement
    found = [delay(server, endpoint) for _ in range(3)]
    assert any(seconds is not None and 0.005 <= seconds < 0.1 for seconds in found)


@pytest.mark.parametrize(
    "behave",
    [
        complete,
        partial(answer_in_small_writes, no_delay=True),
        partial(answer_in_small_writes, no_delay=True, role_first=True),
        status(500),
    ],
    ids=["a write per token", "small writes", "small writes after a role", "an error"],
)
def test_no_other_server_is_said_to_delay(serve: Serve, behave: Behaviour):
    server = serve(behave)
    assert delay(server) is None
    assert len(server.requests) <= 3


def test_a_server_that_closes_its_connections_or_is_not_there_is_not_said_to_delay(serve: Serve):
    async def answer_once(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await answer_in_small_writes(request, writer)
        await writer.drain()
        writer.close()

    server = serve(answer_once)
    assert delay(server) is None
    server.url = "http://127.0.0.1:9"
    assert delay(server) is None


@pytest.mark.parametrize(
    ("late", "at_once", "expected"),
    [
        ((0.044, 0.044), (0.021, 0.020), True),
        ((0.041, 0.041), (0.0005, 0.0001), True),
        # the first token came before any acknowledgement was late, or long after it
        ((0.021, 0.020), (0.012, 0.011), False),
        ((0.300, 0.290), (0.300, 0.291), False),
        # headers and token came together, from a busy server and an idle one
        ((0.300, 0.0), (0.020, 0.0), False),
    ],
)
def test_only_a_first_token_that_waited_for_the_acknowledgement_was_delayed(
    late: tuple[float, float], at_once: tuple[float, float], expected: bool
):
    assert is_delayed(FirstToken(*late), FirstToken(*at_once)) is expected
