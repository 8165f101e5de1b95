"""Memory of a load test of servers that never end an answer: `python hostile_servers.py`, 64 streams each.

Every way of not ending is one server, a process of its own that sends as fast as it can. Shown are how the load test
ended and the most memory that its processes, the command itself and its load workers, had together at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain, repeat
from pathlib import Path

LIMIT_MB = 300
STREAMS = 64
POLL_SECONDS = 0.02
PIECE = b"x" * 65_536

OK = b"HTTP/1.1 200 OK\r\n"
SSE = OK + b"Content-Type: text/event-stream\r\n"
CHUNKED = SSE + b"Transfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices": [{"index": 0, "text": "a", "finish_reason": null}]}\n\n'
ONE_TOKEN = b'{"choices": [{"index": 0, "text": "a", "finish_reason": "length"}], "usage": {"completion_tokens": 1}}'
MODELS = b'{"object": "list", "data": [{"id": "m", "object": "model"}]}'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def whole(body: bytes, fields: bytes = b"") -> bytes:
    """A response that ends."""
    return OK + fields + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


ANSWERS: dict[str, tuple[bytes, bytes]] = {
    "headers without end": (OK, b"X-A: " + PIECE + b"\r\n"),
    "a header without end": (OK + b"X-A: ", PIECE),
    "a body without end": (SSE + b"\r\ndata: ", PIECE),
    "chunks without end": (CHUNKED, chunk(PIECE)),
    "a chunk size without end": (CHUNKED, b"0" * 65_536),
    "a chunk extension without end": (CHUNKED + b"5;a=", PIECE),
    "one chunk of a terabyte": (CHUNKED + b"10000000000\r\n", PIECE),
    "trailers without end": (CHUNKED + b"0\r\n", b"X-A: b\r\n" * 8_192),
    "an event without end": (CHUNKED, chunk(b"data: " + PIECE.replace(b"\n", b""))),
    "events without end": (CHUNKED, chunk(EVENT) * 500),
    "empty events without end": (CHUNKED, chunk(b": ping\n\n") * 4_000),
    "JSON without end": (OK + b"Content-Type: application/json\r\n\r\n[", b"[[],{}," * 9_000),
    "interim responses without end": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 1_000),
    "responses without end": (b"", whole(ONE_TOKEN) * 300),
}
"""The beginning of the answer to a request of the load, and what follows for ever."""

MODEL_ANSWERS: dict[str, tuple[bytes, bytes]] = {
    "models: a body without end": (OK + b"\r\n{", PIECE),
    "models: headers without end": (OK, b"X-A: " + PIECE + b"\r\n"),
    "models: interim responses without end": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000),
    "models: compressed a thousandfold": (OK + b"Content-Encoding: gzip\r\n\r\n", b""),
    "models: compressed as chunks": (OK + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
}
"""The same of the answer to the question for the models."""


def read_request(connection: socket.socket) -> tuple[bytes, bytes]:
    """The head and the body of the next request; both empty at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65_536)
        if not received:
            return b"", b""
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    while length and len(body) < int(length[1]):
        body += connection.recv(65_536)
    return head, body


@cache
def compressed_gigabyte() -> bytes:
    """A gigabyte of blanks in a megabyte."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join(compressor.compress(b" " * (1 << 20)) for _ in range(1024)) + compressor.flush()


def answer(name: str, head: bytes, body: bytes) -> Iterable[bytes]:
    """The pieces of the answer to one request; only the load, or the question for models, gets the hostile one."""
    path = head.split(b" ")[1]
    if path == b"/v1/models":
        if "compressed" in name:
            start, bomb = MODEL_ANSWERS[name][0], compressed_gigabyte()
            return (start, chunk(bomb), b"0\r\n\r\n") if "chunks" in name else (start, bomb)
        start, more = MODEL_ANSWERS.get(name, (whole(MODELS), b""))
        return chain((start,), repeat(more)) if more else (start,)
    if path != b"/v1/completions":
        return (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",)
    if name not in ANSWERS or is_probe(body):
        return (whole(ONE_TOKEN),)
    start, more = ANSWERS[name]
    return chain((start,), repeat(more))


def is_probe(body: bytes) -> bool:
    """Whether a request asks for a single token, as the questions before a load test do."""
    return re.search(rb'"max_tokens": *1\b', body) is not None


def serve(name: str, listener: socket.socket) -> None:
    """Answer every connection in a thread of its own, for ever."""

    def handle(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while (request := read_request(connection))[0]:
                for piece in answer(name, *request):
                    connection.sendall(piece)
                if name in MODEL_ANSWERS and b"/v1/models" in request[0]:
                    return

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=handle, args=(connection,), daemon=True).start()


@contextlib.contextmanager
def hostile_server(name: str) -> Iterator[str]:
    """The URL of a server in a process of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        process = multiprocessing.get_context("fork").Process(target=serve, args=(name, listener), daemon=True)
        process.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.kill()
            process.join()


def process_tree(root: int) -> list[int]:
    """A process and all that it started, which are alive."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def memory_mb(pid: int) -> float:
    """The memory that a process has alone, and its part of what it shares."""
    with contextlib.suppress(OSError):
        match = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        return int(match[1]) / 1000 if match else 0.0
    return 0.0


def drive(name: str, streams: int) -> tuple[float, float, int, str]:
    """The most memory of a load test in MB, its seconds, its exit code and the last line of its output."""
    with hostile_server(name) as url, tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("autotune")), "bench", url, "--endpoint", "completions"]
        command += [] if name in MODEL_ANSWERS else ["--model", "m"]
        command += ["--scenario", "D(100,100)", "--concurrency", str(streams), "--warmup", "0"]
        command += ["--duration", "5", "--max-duration", "5", "--request-timeout", "10"]
        environment = {**os.environ, "AUTOTUNE_DATA_HOME": folder, "COLUMNS": "1000"}
        start, most = time.monotonic(), 0.0
        with (Path(folder) / "errors").open("w+") as errors:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment, cwd=folder)
            while process.poll() is None:
                most = max(most, sum(map(memory_mb, process_tree(process.pid))))
                time.sleep(POLL_SECONDS)
            errors.seek(0)
            lines = errors.read().strip().splitlines()
        return most, time.monotonic() - start, process.returncode, lines[-1] if lines else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--only", action="append", default=[], help="one of the servers; may be repeated")
    parser.add_argument("--verbose", action="store_true", help="show how each load test ended")
    options = parser.parse_args()
    compressed_gigabyte()  # before any server is asked for it
    highest = 0.0
    print(f"| server, {options.streams} streams | most memory, MB | s | exit code |\n| --- | ---: | ---: | ---: |")
    for name in options.only or [*ANSWERS, *MODEL_ANSWERS]:
        most, seconds, code, end = drive(name, options.streams)
        highest = max(highest, most)
        print(f"| {name} | {most:.0f} | {seconds:.0f} | {code} |", flush=True)
        if options.verbose:
            print(f"    {end[:300]}", flush=True)
    return 1 if highest > LIMIT_MB else 0


if __name__ == "__main__":
    sys.exit(main())
