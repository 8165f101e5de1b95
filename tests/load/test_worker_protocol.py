"""What a worker is told while it runs."""

from __future__ import annotations

import asyncio
import os
from time import monotonic

import uvloop

from autotuner.load import worker_protocol


def test_nobody_starts_before_the_instant_that_was_named() -> None:
    async def early() -> float:
        found = []
        for tenths in range(20):
            own, other = os.pipe()
            instant = monotonic() + 0.004 + tenths / 10_000
            ear = worker_protocol.CommandReader(
                own, worker_protocol.start_command(instant).encode() + b"\n", lambda: None
            )
            assert await ear.wait_for_start() == instant
            found.append(instant - monotonic())
            os.close(own)
            os.close(other)
        return max(found)

    with asyncio.Runner(loop_factory=uvloop.Loop) as runner:
        assert runner.run(early()) <= 0
