"""Servers on loopback: a simulated engine, and small ones whose responses are scripted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from autotuner.launchers import ports, ready
from autotuner.launchers.external import ExternalServer

SIMULATED_MODEL = "llama-3.1-8b"
QUICK = ("--scenario", "D(32,4)", "--duration", "5", "--max-requests", "12", "--warmup", "0")
"""Arguments of a load test that a simulated engine ends in an instant."""


@contextmanager
def simulated_engine(folder: Path, *arguments: str) -> Iterator[str]:
    """Run a simulated engine as a process of its own, with its log in `folder`; yields its URL once it is ready."""
    port = ports.free_port()
    command = [sys.executable, "-m", "autotuner.simulate.server", "--load-seconds", "0", "--port", str(port)]
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen([*command, *arguments], stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        ready.wait_until_ready(ExternalServer(url), ready_path="/health", model=SIMULATED_MODEL, timeout=120)
        yield url
    finally:
        process.terminate()
        process.wait()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

TLS_HANDSHAKE = b"\x16"


def sse(*events: object) -> bytes:
    """Server-sent events."""
    return b"".join(
        b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n" for event in events
    )


def chunked(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def token(text: str = " a", finish: str | None = None) -> bytes:
    """The event of one completion token."""
    return sse({"choices": [{"index": 0, "text": text, "finish_reason": finish}]})


def usage(prompt: int, output: int) -> bytes:
    """The usage-only event."""
    return sse({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output}})


@dataclass
class ReceivedRequest:
    """One request as the server read it."""

    connection: int
    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def prompt_tokens(self) -> int:
        return len(self.body["prompt"]) if "prompt" in self.body else 0


Behaviour = Callable[[ReceivedRequest, asyncio.StreamWriter], Awaitable[None]]


async def complete(request: ReceivedRequest, writer: asyncio.StreamWriter, *, gap: float = 0.002) -> None:
    """Stream the requested number of tokens, then usage and [DONE]."""
    total = request.body["max_tokens"]
    writer.write(HEAD)
    for number in range(total):
        await asyncio.sleep(gap)
        writer.write(chunked(token(finish="length" if number == total - 1 else None)))
    writer.write(chunked(usage(request.prompt_tokens, total)) + chunked(sse(b"[DONE]")) + b"0\r\n\r\n")
    await writer.drain()


def status(code: int, message: str = "no") -> Behaviour:
    """Answer every request with an error status."""

    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        body = json.dumps({"error": {"message": message}}).encode()
        writer.write(b"HTTP/1.1 %d Oops\r\nContent-Length: %d\r\n\r\n%s" % (code, len(body), body))

    return behave


def reset(writer: asyncio.StreamWriter) -> None:
    """Drop the connection with an RST."""
    writer.transport.abort()


@dataclass
class Server:
    """The server's URL, scripted pages, and what it has received."""

    url: str = ""
    requests: list[ReceivedRequest] = field(default_factory=list)
    in_flight: int = 0
    in_flight_levels: list[int] = field(default_factory=list)
    connections: int = 0
    metrics: str | None = None
    tokenize: Callable[[str], list[int]] | None = None


class _ServerThread:
    def __init__(self, behaviour: Behaviour, server: Server, tls: ssl.SSLContext | None) -> None:
        self.behaviour = behaviour
        self.tls = tls
        self.server = server
        self.ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self.loop.run_until_complete(self._serve())
        self.loop.close()

    async def _serve(self) -> None:
        self.task = asyncio.current_task()
        handlers: set[asyncio.Task[None]] = set()
        writers: list[asyncio.StreamWriter] = []

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._connection(reader, writer))
            writers.append(writer)
            handlers.add(task)
            task.add_done_callback(handlers.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=512, ssl=self.tls)
        port = server.sockets[0].getsockname()[1]
        self.server.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{port}"
        self.ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            # asyncio makes the transport of an accepted connection in a task of its own, which fails and leaks the
            # socket once the server is closed; a TLS handshake that nobody finishes never ends by itself
            self.loop.remove_reader(server.sockets[0].fileno())
            while accepting := asyncio.all_tasks() - handlers - {self.task}:
                _, unfinished = await asyncio.wait(accepting, timeout=1)
                for task in unfinished:
                    task.cancel()
            server.close()
            for task in handlers:
                task.cancel()
            for writer in writers:
                writer.transport.abort()
            await asyncio.gather(*handlers, *(writer.wait_closed() for writer in writers), return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server.connections += 1
        connection = self.server.connections
        try:
            while True:
                first = await reader.readexactly(1)
                if first == TLS_HANDSHAKE:
                    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    await writer.drain()
                    return
                head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                await self._answer(connection, head[0].split()[1], headers, body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async def _answer(
        self, connection: int, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        server = self.server
        if path == "/metrics":
            text = (server.metrics or "").encode()
            code = 200 if server.metrics is not None else 404
            writer.write(
                b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (code, len(text), text)
            )
            return
        if path == "/tokenize" and server.tokenize is not None:
            tokens = json.dumps({"tokens": server.tokenize(json.loads(body)["prompt"])}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(tokens), tokens))
            return
        if not body or path == "/tokenize":
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        request = ReceivedRequest(connection, len(server.requests), path, headers, json.loads(body))
        server.requests.append(request)
        server.in_flight += 1
        server.in_flight_levels.append(server.in_flight)
        try:
            await self.behaviour(request, writer)
        finally:
            server.in_flight -= 1

    def stop(self) -> None:
        def cancel() -> None:
            assert self.task is not None
            self.task.cancel()

        self.loop.call_soon_threadsafe(cancel)
        self.thread.join()


@contextmanager
def scripted_server(
    behave: Behaviour = complete,
    *,
    metrics: str | None = None,
    tls: ssl.SSLContext | None = None,
    tokenize: Callable[[str], list[int]] | None = None,
) -> Iterator[Server]:
    """A server of completions and chats, each of which `behave` answers."""
    recorded = Server(metrics=metrics, tokenize=tokenize)
    server = _ServerThread(behave, recorded, tls)
    server.thread.start()
    server.ready.wait()
    try:
        yield recorded
    finally:
        server.stop()


ONE_TOKEN = (200, 'data: {"choices": [{"text": "a"}], "usage": {"prompt_tokens": 16, "completion_tokens": 1}}\n\n')


def served_models(*names: str, owner: str = "vllm") -> list[tuple[int, str]]:
    """What a server of these models answers to /v1/models."""
    return [(200, json.dumps({"data": [{"id": name, "owned_by": owner} for name in names]}))]


class ScriptedResponses:
    """What a small HTTP server says to each path: (status, body) in turn, the last for ever.

    The body of a redirect is where it leads.
    """

    def __init__(self, **by_name: list[tuple[int, str]]) -> None:
        self.by_path = {f"/{name.replace('__', '/')}": responses for name, responses in by_name.items()}
        self.requested_paths: list[str] = []
        self.requested_headers: list[dict[str, str]] = []

    def respond(self, path: str, headers: dict[str, str]) -> tuple[int, str]:
        self.requested_paths.append(path)
        self.requested_headers.append(headers)
        responses = self.by_path.get(path, [(404, "")])
        return responses.pop(0) if len(responses) > 1 else responses[0]


@contextmanager
def response_server(responses: ScriptedResponses) -> Iterator[str]:
    """Serve the responses over HTTP; yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = responses.respond(self.path, dict(self.headers))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body.encode())))
            if 300 <= status < 400 and body:
                self.send_header("Location", body)
            self.end_headers()
            self.wfile.write(body.encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


ServeResponses = Callable[[ScriptedResponses], str]
