"""A router for simulated servers: `python -m autotuner.simulate.router`.

Whole requests go to the server with the fewest in flight. With prefill and decode servers a prompt is first
computed by a prefill server, whose answer says where its KV cache is; a decode server gets the request with
that, and its answer goes to the client. The words are those of vLLM's routers.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from autotuner.simulate.backend import Backend, BackendAnswer, BackendError
from autotuner.simulate.hand_over import PREFILL_REQUEST
from autotuner.simulate.http import HttpConnection, ServerExchange
from autotuner.simulate.metrics import CONTENT_TYPE, add_samples
from autotuner.simulate.openai import error_body
from autotuner.simulate.server import listen, run

LOG = logging.getLogger("autotune-sim-router")
GENERATION_PATHS = ("/v1/completions", "/v1/chat/completions")
PROBE_TIMEOUT_SECONDS = 5.0
LENGTH_FIELDS = ("max_tokens", "max_completion_tokens", "min_tokens", "stream_options")
"""Fields of a request that are not for its prefill, which gives one token and no stream."""


class Router:
    """Routes over prefill and decode servers, or over `servers` that compute whole requests."""

    def __init__(
        self, *, servers: Sequence[Backend] = (), prefill: Sequence[Backend] = (), decode: Sequence[Backend] = ()
    ) -> None:
        self._servers = servers
        self._prefill = prefill
        self._decode = decode
        self._numbers = count()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def backends(self) -> list[Backend]:
        """All servers."""
        return [*self._servers, *self._prefill, *self._decode]

    def handle(self, exchange: ServerExchange) -> None:
        """Start to answer a request; dropped when its client disconnects."""
        task = asyncio.get_running_loop().create_task(self._answer(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        exchange.on_disconnect = lambda: _cancel(task)

    async def _answer(self, exchange: ServerExchange) -> None:
        request = exchange.request
        try:
            if request.path in GENERATION_PATHS and request.method == "POST":
                await self._generate(exchange)
            elif request.path == "/health":
                await self._health(exchange)
            elif request.path == "/metrics":
                await self._metrics(exchange)
            elif request.path == "/reset_prefix_cache":
                await self._to_all(exchange)
            else:
                status, body = await self._last_role[0].fetch(request.method, request.path, bytes(request.body))
                exchange.send(status, body)
        except BackendError as error:
            exchange.send(502, error_body(502, f"{error}."))

    @property
    def _last_role(self) -> Sequence[Backend]:
        """The servers whose answers clients see."""
        return self._decode or self._servers

    async def _health(self, exchange: ServerExchange) -> None:
        """200 when every server is ready, else 503 with the first that is not."""
        for backend in self.backends:
            try:
                status, _ = await asyncio.wait_for(backend.fetch("GET", "/health"), PROBE_TIMEOUT_SECONDS)
            except (BackendError, TimeoutError):
                status = 503
            if status != 200:
                exchange.send(503, error_body(503, f"{backend.address} is not ready."))
                return
        exchange.send(200, b"")

    async def _metrics(self, exchange: ServerExchange) -> None:
        """The counters of all servers, added up."""
        texts = [(await backend.fetch("GET", "/metrics"))[1].decode() for backend in self.backends]
        exchange.send(200, add_samples(texts).encode(), CONTENT_TYPE)

    async def _to_all(self, exchange: ServerExchange) -> None:
        answers = [await backend.fetch(exchange.request.method, exchange.request.path) for backend in self.backends]
        status, body = max(answers)
        exchange.send(status, body)

    async def _generate(self, exchange: ServerExchange) -> None:
        body = bytes(exchange.request.body)
        if self._prefill:
            try:
                data = json.loads(body)
            except (ValueError, RecursionError):
                data = None
            if not isinstance(data, dict):
                exchange.send(400, error_body(400, "The body is not a JSON object."))
                return
            transfer = await self._compute_prompt(exchange, data)
            if transfer is None:
                return
            body = json.dumps({**data, "kv_transfer_params": transfer}, separators=(",", ":")).encode()
        backend = self._least_busy(self._last_role)
        backend.in_flight += 1
        try:
            await forward(backend, exchange, body)
        finally:
            backend.in_flight -= 1

    async def _compute_prompt(self, exchange: ServerExchange, data: dict[str, Any]) -> dict[str, Any] | None:
        """Let a prefill server compute the prompt; its hand-over, or None after its error went to the client."""
        prompt = {name: value for name, value in data.items() if name not in LENGTH_FIELDS}
        prompt |= {"max_tokens": 1, "stream": False, "kv_transfer_params": PREFILL_REQUEST}
        backend = self._least_busy(self._prefill)
        backend.in_flight += 1
        try:
            body = json.dumps(prompt, separators=(",", ":")).encode()
            status, answer = await backend.fetch("POST", exchange.request.path, body)
        finally:
            backend.in_flight -= 1
        if status != 200:
            exchange.send(status, answer)
            return None
        try:
            transfer: dict[str, Any] = json.loads(answer)["kv_transfer_params"]
        except (ValueError, KeyError, TypeError) as error:
            raise BackendError(f"{backend.address} says nothing of the KV cache") from error
        return transfer

    def _least_busy(self, backends: Sequence[Backend]) -> Backend:
        """The server with the fewest requests in flight, in turn among equals."""
        first = next(self._numbers) % len(backends)
        return min((*backends[first:], *backends[:first]), key=lambda backend: backend.in_flight)


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


async def forward(backend: Backend, exchange: ServerExchange, body: bytes) -> None:
    """Send a request on, and write its answer to the client as it comes."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    is_stream = False
    status, parts = 0, bytearray()

    def on_headers(code: int, content_type: str) -> None:
        nonlocal status, is_stream
        status, is_stream = code, code == 200 and content_type.startswith("text/event-stream")
        if is_stream:
            exchange.start_stream(content_type)

    def on_body(part: bytes) -> None:
        if is_stream:
            exchange.write(part)
        else:
            parts.extend(part)

    def on_end(error: BackendError | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(None)

    drop = await backend.send("POST", exchange.request.path, body, BackendAnswer(on_headers, on_body, on_end))
    try:
        await done
    except asyncio.CancelledError:
        drop()
        raise
    except BackendError:
        if not is_stream:
            raise
        exchange.abort()
        return
    if is_stream:
        exchange.end(b"")
    else:
        exchange.send(status, bytes(parts))


def parse_address(url: str) -> Backend:
    """The server of an address such as http://127.0.0.1:8100."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise argparse.ArgumentTypeError(f"{url!r} is no address such as http://127.0.0.1:8100")
    try:
        return Backend(parts.hostname, parts.port or 80)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{url!r} has no valid port") from error


def build_parser() -> argparse.ArgumentParser:
    """The parser of the router's command line."""
    parser = argparse.ArgumentParser(
        prog="python -m autotuner.simulate.router",
        description="Routes requests over simulated servers: replicas, or prefill and decode servers.",
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    for name, help_text in (
        ("--server", "a server that computes whole requests"),
        ("--prefill", "a prefill server"),
        ("--decode", "a decode server"),
    ):
        parser.add_argument(
            name, type=parse_address, action="append", default=[], metavar="URL", help=f"{help_text}; repeatable"
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status, as the simulated server's `main` does."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if bool(arguments.prefill) != bool(arguments.decode) or bool(arguments.server) == bool(arguments.prefill):
        parser.error("give --server, or both --prefill and --decode")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(asctime)s %(name)s: %(message)s")
    try:
        listener = listen(arguments.host, arguments.port)
    except OSError as error:
        LOG.error("[Errno %s] cannot listen on %s:%d: %s", error.errno, arguments.host, arguments.port, error.strerror)
        return error.errno or errno.EADDRINUSE
    router = Router(servers=arguments.server, prefill=arguments.prefill, decode=arguments.decode)
    with listener:
        run(_serve(router, listener))
    return 0


async def _serve(router: Router, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    stop_event = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop_event.set)
    server = await loop.create_server(lambda: HttpConnection(router.handle), sock=listener)
    host, port = listener.getsockname()[:2]
    LOG.info("ready, listening on http://%s:%d for %d servers", host, port, len(router.backends))
    try:
        await stop_event.wait()
    finally:
        server.close()
        for backend in router.backends:
            backend.close()


if __name__ == "__main__":
    sys.exit(main())
