"""Events that servers stream, and a connection that is given their bytes."""

from __future__ import annotations

import asyncio
from typing import Any

from autotuner.load.connection import Connection, Exchange
from autotuner.workload.requests import Request

DONE = b"[DONE]"


def text(content: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "cmpl-1", "choices": [{"index": 0, "text": content, "finish_reason": finish, **more}]}


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def usage(prompt: int, output: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


class Wire(asyncio.Transport):
    """A transport that keeps nothing and knows whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def receive(*reads: bytes, end: bool = False, error: Exception | None = None) -> tuple[Exchange, list[int], Connection]:
    """Give a connection these reads; return the exchange, after which reads it was done, and the connection."""
    done: list[int] = []
    number = 0

    async def converse() -> tuple[Exchange, Connection]:
        nonlocal number
        connection = Connection(60.0)
        connection.connection_made(Wire())
        exchange = Exchange(Request(0, 1, 1, b""), 0.0, warmup=False)
        connection.send(exchange, b"POST", lambda connection, exchange: done.append(number))
        for number, data in enumerate(reads):  # noqa: B007
            if connection.exchange is not None:
                connection.data_received(data)
        if end:
            connection.connection_lost(error)
        return exchange, connection

    exchange, connection = asyncio.run(converse())
    return exchange, done, connection
