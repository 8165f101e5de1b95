"""What the parent tells a worker while it runs, as lines of JSON on its stdin: chat fit, start, stop."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from time import monotonic
from typing import Any


def start_command(instant: float) -> str:
    """Begin at `instant` of the monotonic clock, which all processes of a machine share."""
    return json.dumps({"start": instant})


def fit_command(token_fit: dict[str, Any]) -> str:
    """Make chat prompts with what another worker found out about the server's count of tokens."""
    return json.dumps({"fit": token_fit})


def stop_command() -> str:
    """Issue no more requests, and cut off those on their way."""
    return json.dumps({"stop": True})


class CommandReader:
    """A worker's ear; `unread` came behind its job, and `on_silence` is called when stdin ends."""

    def __init__(self, stdin: int, leftover: bytes, on_parent_exit: Callable[[], None]) -> None:
        self.stdin = stdin
        self.on_parent_exit = on_parent_exit
        self.partial_line = b""
        self.stop_requested = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._start: asyncio.Future[float] = loop.create_future()
        self._fit: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._split_lines(leftover)

    async def wait_for_start(self) -> float:
        """Wait for the instant to begin at, and return it."""
        instant = await self._start
        while (left := instant - monotonic()) > 0:  # uvloop wakes up to a millisecond early
            await asyncio.sleep(left)
        return instant

    async def wait_for_fit(self) -> dict[str, Any]:
        """Wait for what the worker that asked the server found out."""
        return await self._fit

    def receive(self) -> None:
        """Take in what can be read."""
        data = os.read(self.stdin, 1 << 16)
        if not data:
            self.on_parent_exit()
        self._split_lines(data)

    def _split_lines(self, data: bytes) -> None:
        *lines, self.partial_line = (self.partial_line + data).split(b"\n")
        for line in lines:
            self._handle(json.loads(line))

    def _handle(self, command: dict[str, Any]) -> None:
        if "start" in command:
            self._start.set_result(command["start"])
        if "fit" in command:
            self._fit.set_result(command["fit"])
        if "stop" in command:
            self.stop_requested.set()
