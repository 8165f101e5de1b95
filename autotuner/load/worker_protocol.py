"""What the parent tells a worker while it runs, as lines of JSON on its stdin: chat fit, start, stop."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from time import monotonic
from typing import Any


def start(instant: float) -> str:
    """Begin at `instant` of the monotonic clock, which all processes of a machine share."""
    return json.dumps({"start": instant})


def fit(found: dict[str, Any]) -> str:
    """Make chat prompts with what another worker found out about the server's count of tokens."""
    return json.dumps({"fit": found})


def stop() -> str:
    """Issue no more requests, and cut off those on their way."""
    return json.dumps({"stop": True})


class Orders:
    """A worker's ear; `unread` came behind its job, and `on_silence` is called when stdin ends."""

    def __init__(self, stdin: int, unread: bytes, on_silence: Callable[[], None]) -> None:
        self.stdin = stdin
        self.on_silence = on_silence
        self.unread = b""
        self.stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._start: asyncio.Future[float] = loop.create_future()
        self._fit: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._take(unread)

    async def started(self) -> float:
        """Wait for the instant to begin at, and return it."""
        instant = await self._start
        while (left := instant - monotonic()) > 0:  # uvloop wakes up to a millisecond early
            await asyncio.sleep(left)
        return instant

    async def fitted(self) -> dict[str, Any]:
        """Wait for what the worker that asked the server found out."""
        return await self._fit

    def hear(self) -> None:
        """Take in what can be read."""
        data = os.read(self.stdin, 1 << 16)
        if not data:
            self.on_silence()
        self._take(data)

    def _take(self, data: bytes) -> None:
        *lines, self.unread = (self.unread + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))

    def _obey(self, order: dict[str, Any]) -> None:
        if "start" in order:
            self._start.set_result(order["start"])
        if "fit" in order:
            self._fit.set_result(order["fit"])
        if "stop" in order:
            self.stopped.set()
