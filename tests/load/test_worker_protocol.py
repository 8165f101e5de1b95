"""The commands that a worker reads while it runs."""

from __future__ import annotations

import asyncio
import os
from time import monotonic

import uvloop

from autotuner.load import worker_protocol


def test_no_worker_starts_before_the_commanded_instant() -> None:
    async def early() -> float:
        remaining = []
        for tenths in range(20):
            read_end, write_end = os.pipe()
            instant = monotonic() + 0.004 + tenths / 10_000
            reader = worker_protocol.CommandReader(
                read_end, worker_protocol.start_command(instant).encode() + b"\n", lambda: None
            )
            assert await reader.wait_for_start() == instant
            remaining.append(instant - monotonic())
            os.close(read_end)
            os.close(write_end)
        return max(remaining)

    with asyncio.Runner(loop_factory=uvloop.Loop) as runner:
        assert runner.run(early()) <= 0
