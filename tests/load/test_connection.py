"""What a connection does with the bytes of a request."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from autotuner.load.connection import Dialer, Exchange
from autotuner.load.job import Address
from autotuner.workload.requests import Request
from tests.load.conftest import Asked, Server, complete

Serve = Callable[..., Server]
PEM = Path(__file__).with_name("localhost.pem")
BODY = b'{"prompt": [1], "max_tokens": 1}'
PAYLOAD = b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


@pytest.mark.parametrize("factory", [uvloop.Loop, None], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_request_goes_out_at_once_and_not_at_the_end_of_the_loops_turn(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, factory: Callable[[], asyncio.AbstractEventLoop] | None, tls: bool
):
    """The loop is held until the server has the request, which it would never get if the loop had to send it."""
    arrived = threading.Event()

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await complete(asked, writer)

    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(PEM)
        monkeypatch.setenv("SSL_CERT_FILE", str(PEM))
    server = serve(behave, tls=context)

    async def send() -> tuple[bool, Exchange]:
        connection = await Dialer(Address.of(server.url.replace("127.0.0.1", "localhost")), 60.0).open()
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
