"""A server that sends tokens at scheduled times and logs when it actually sent them.

One process, one epoll loop, no framework: each completion or chat completion is answered with a
first token after `--ttft` seconds and one more every `--tpot` seconds, on an absolute schedule.
For each request the log has its nonce (the first six prompt ids, empty when the prompt is text),
the instant it was read completely, and the instants just before its first and its last token were
written, on the clock that the load generator uses.

    python reference_server.py --port 8099 --core 1 --log sent.json
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import re
import select
import signal
import socket
from collections import deque
from pathlib import Path
from time import monotonic, sleep

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON_HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
MODELS = json.dumps({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "reference"}]}).encode()
CONTENT_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
PROMPT_NONCE = re.compile(rb'"prompt":\[((?: *\d+,){5} *\d+)')


def event(data: str) -> bytes:
    """One server-sent event as one HTTP chunk."""
    body = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(body), body)


def chunk(kind: str, text: str, finish: str | None = None) -> bytes:
    """A streamed chunk of a completion or a chat, as large as those of real engines."""
    content = {"text": text} if kind == "text_completion" else {"delta": {"role": "assistant", "content": text}}
    choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish, "stop_reason": None}
    return event(
        json.dumps(
            {
                "id": "cmpl-0123456789abcdef0123456789abcdef",
                "object": kind,
                "created": 1700000000,
                "model": "m",
                "choices": [choice],
                "usage": None,
            }
        )
    )


class StreamBytes:
    """The bytes of a stream's first token, of each middle one, and of the last with all that follows."""

    def __init__(self, kind: str, tokens: int) -> None:
        usage = {"prompt_tokens": 100, "completion_tokens": tokens, "total_tokens": 100 + tokens}
        tail = {"id": "x", "object": kind, "created": 1700000000, "model": "m", "choices": [], "usage": usage}
        self.middle = chunk(kind, " token")
        self.first = HEAD + self.middle
        self.last = chunk(kind, " token", "length") + event(json.dumps(tail)) + event("[DONE]") + b"0\r\n\r\n"


class ClientConnection:
    """One connection: the bytes of its request so far, and the state of its response."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()
        self.is_open = True
        self.position = 0
        self.due = 0.0
        self.nonce = ""
        self.received = 0.0
        self.first_token = 0.0
        self.stream: StreamBytes


class ReferenceServer:
    """Answers every POST with `tokens` tokens at scheduled times."""

    def __init__(self, port: int, ttft: float, tpot: float, tokens: int) -> None:
        self.ttft, self.tpot, self.tokens = ttft, tpot, tokens
        self.completion = StreamBytes("text_completion", tokens)
        self.chat = StreamBytes("chat.completion.chunk", tokens)
        self.listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self.listener.setblocking(False)
        self.poll = select.epoll()
        self.poll.register(self.listener, select.EPOLLIN)
        self.clients: dict[int, ClientConnection] = {}
        # both are sorted by due time: each adds a constant delay to an increasing instant
        self.first_token_queue: deque[ClientConnection] = deque()
        self.next_token_queue: deque[ClientConnection] = deque()
        self.log: list[tuple[str, float, float, float]] = []
        self.lateness: list[float] = []
        self.running = True

    def serve(self) -> None:
        """Run until `running` is cleared; sleeps below a millisecond, which epoll's timeout cannot express."""
        while self.running:
            now = monotonic()
            for queue in (self.first_token_queue, self.next_token_queue):
                for _ in range(64):
                    if not queue or queue[0].due > now:
                        break
                    now = self.send(queue.popleft())
            wait = min(
                (queue[0].due - now for queue in (self.first_token_queue, self.next_token_queue) if queue), default=0.1
            )
            if 0 < wait < 0.001:
                sleep(min(wait, 0.0002))
            for fd, _ in self.poll.poll(max(0.0, wait - 0.001), 64):
                if fd == self.listener.fileno():
                    self.accept()
                else:
                    self.receive(fd)

    def accept(self) -> None:
        """Accept every waiting connection."""
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.clients[sock.fileno()] = ClientConnection(sock)
            self.poll.register(sock, select.EPOLLIN)

    def receive(self, fd: int) -> None:
        """Read, and schedule the first token once the request is complete."""
        client = self.clients[fd]
        try:
            data = client.sock.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            self.poll.unregister(fd)
            client.sock.close()
            client.is_open = False
            del self.clients[fd]
            return
        client.buffer += data
        head_end = client.buffer.find(b"\r\n\r\n")
        length = CONTENT_LENGTH.search(client.buffer, 0, max(0, head_end) + 4)
        if head_end < 0 or (length is not None and len(client.buffer) < head_end + 4 + int(length[1])):
            return
        head, body = bytes(client.buffer[:head_end]), bytes(client.buffer[head_end + 4 :])
        client.buffer.clear()
        if not head.startswith(b"POST"):
            is_known = head.split(b" ", 2)[1].rstrip(b"/") in (b"/v1/models", b"/health")
            client.sock.send(
                JSON_HEAD % ((b"200 OK", len(MODELS), MODELS) if is_known else (b"404 Not Found", 2, b"{}"))
            )
            return
        prompt = PROMPT_NONCE.search(body)
        client.nonce = prompt[1].decode().replace(" ", "") if prompt else ""
        client.stream = self.chat if b"/chat/" in head[:64] else self.completion
        client.position = 0
        client.received = monotonic()
        client.due = client.received + self.ttft
        self.first_token_queue.append(client)

    def send(self, client: ClientConnection) -> float:
        """Write one token, schedule the next, and return the instant of writing."""
        position = client.position
        now = monotonic()
        self.lateness.append(now - client.due)
        if not client.is_open:
            return now
        try:
            if position == 0:
                client.first_token = now
                client.sock.send(client.stream.first)
            elif position < self.tokens - 1:
                client.sock.send(client.stream.middle)
            else:
                client.sock.send(client.stream.last)
                self.log.append((client.nonce, client.received, client.first_token, now))
                return now
        except OSError:
            return now
        client.position = position + 1
        client.due += self.tpot
        self.next_token_queue.append(client)
        return now

    def summary(self) -> dict[str, object]:
        """The log, and how late tokens were sent, in seconds."""
        lateness = sorted(self.lateness) or [0.0]
        return {
            "requests": self.log,
            "late_mean": sum(lateness) / len(lateness),
            "late_p99": lateness[int(len(lateness) * 0.99)],
            "tokens": len(self.lateness),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--ttft", type=float, default=0.1)
    parser.add_argument("--tpot", type=float, default=0.02)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--core", type=int)
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    server = ReferenceServer(arguments.port, arguments.ttft, arguments.tpot, arguments.tokens)

    def stop(*_: object) -> None:
        server.running = False

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    gc.disable()
    print("ready", flush=True)
    server.serve()
    if arguments.log:
        arguments.log.write_text(json.dumps(server.summary()))


if __name__ == "__main__":
    main()
