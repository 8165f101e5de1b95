"""Commands from the parent to a running worker, as lines of JSON on its stdin: start, stop."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from time import monotonic
from typing import Any


def start_command(instant: float) -> str:
    """Start at `instant` of the monotonic clock, which all processes of a machine share."""
    return json.dumps({"start": instant})


def stop_command() -> str:
    """Issue no more requests, and cut off those in flight."""
    return json.dumps({"stop": True})


class CommandReader:
    """Reads the parent's commands; `leftover` was read after the job, `on_parent_exit` is called when stdin ends."""

    def __init__(self, stdin: int, leftover: bytes, on_parent_exit: Callable[[], None]) -> None:
        self.stdin = stdin
        self.on_parent_exit = on_parent_exit
        self.partial_line = b""
        self.stop_requested = asyncio.Event()
        self._start: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._handle_lines(leftover)

    async def wait_for_start(self) -> float:
        """Wait until the instant of the start command, and return it."""
        instant = await self._start
        while (remaining := instant - monotonic()) > 0:  # uvloop wakes up to a millisecond early
            await asyncio.sleep(remaining)
        return instant

    def receive(self) -> None:
        """Handle the commands that stdin holds."""
        data = os.read(self.stdin, 1 << 16)
        if not data:
            self.on_parent_exit()
        self._handle_lines(data)

    def _handle_lines(self, data: bytes) -> None:
        *lines, self.partial_line = (self.partial_line + data).split(b"\n")
        for line in lines:
            self._handle(json.loads(line))

    def _handle(self, command: dict[str, Any]) -> None:
        if "start" in command:
            self._start.set_result(command["start"])
        if "stop" in command:
            self.stop_requested.set()
