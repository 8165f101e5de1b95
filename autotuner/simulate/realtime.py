"""Runs the scheduler in real time: the tokens of an iteration are sent when its simulated time ends."""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import Callable

from autotuner.simulate.alarm import create_alarm
from autotuner.simulate.scheduler import ScheduledRequest, Scheduler

LOG = logging.getLogger(__name__)
LATENESS_BOUNDS_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
MAX_LATENESS_SECONDS = 1.0
"""Lateness above which the simulated clock is reset to the wall clock, with a warning."""

TokenSink = Callable[[int], None]
"""Receives the number of tokens that a request got in one iteration."""


class LatenessHistogram:
    """Histogram of the seconds from an iteration's simulated end until its last token was sent."""

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENESS_BOUNDS_SECONDS) + 1)
        self.total_seconds = 0.0

    def record(self, seconds: float) -> None:
        self.counts[bisect_left(LATENESS_BOUNDS_SECONDS, seconds)] += 1
        self.total_seconds += seconds


class RealtimeEngine:
    """Runs the scheduler on the wall clock.

    An iteration starts exactly when the previous one ended on the simulated clock, not when the event
    loop got to it, so lateness does not accumulate.
    """

    def __init__(self, scheduler: Scheduler, loop: asyncio.AbstractEventLoop) -> None:
        self.scheduler = scheduler
        self.lateness = LatenessHistogram()
        self._loop = loop
        self._alarm = create_alarm(loop, self._end_iteration)
        self._sinks: dict[ScheduledRequest, TokenSink] = {}
        self._delayed: dict[ScheduledRequest, asyncio.TimerHandle] = {}
        self._pending_tokens: list[tuple[ScheduledRequest, int]] = []
        self._deadline = 0.0
        self._iterating = False
        self._hung = False

    def submit(self, request: ScheduledRequest, sink: TokenSink) -> None:
        """Queue a request; `sink` is called after every iteration that gave it tokens."""
        self._sinks[request] = sink
        request.arrival_time = time.monotonic()
        self.scheduler.add(request)
        if not self._iterating and not self._hung:
            self._iterating = True
            # Deferred, so that requests submitted in this turn of the event loop share the first iteration.
            self._loop.call_soon(lambda: self._begin_iteration(time.monotonic()))

    def submit_at(self, start_time: float, request: ScheduledRequest, sink: TokenSink) -> None:
        """Submit a request at a monotonic time, unless it is aborted before."""
        seconds = start_time - time.monotonic()
        self._delayed[request] = self._loop.call_later(seconds, self._submit_delayed, request, sink)

    def _submit_delayed(self, request: ScheduledRequest, sink: TokenSink) -> None:
        del self._delayed[request]
        self.submit(request, sink)

    def abort(self, request: ScheduledRequest) -> None:
        """Drop a request whose client has disconnected."""
        self._sinks.pop(request, None)
        delayed = self._delayed.pop(request, None)
        if delayed is not None:
            delayed.cancel()
            return
        self.scheduler.abort(request)

    def hang(self) -> None:
        """Emit no more tokens, like an engine whose main loop has died."""
        self._hung = True

    def close(self) -> None:
        self._hung = True
        self._alarm.close()

    def _begin_iteration(self, now: float) -> None:
        """Schedule one iteration, whose tokens are sent when its simulated duration has passed."""
        result = None if self._hung else self.scheduler.step(now)
        if result is None:
            self._iterating = False
            return
        self._pending_tokens = result.emitted_tokens
        self._deadline = now + result.duration
        self._alarm.set(self._deadline)

    def _end_iteration(self) -> None:
        """Send the tokens of the iteration that has ended to their requests, and begin the next one."""
        if self._hung:
            return
        deadline = self._deadline
        for request, tokens in self._pending_tokens:
            sink = self._sinks.get(request)
            if sink is not None:
                if request.finish_time is not None:
                    del self._sinks[request]
                sink(tokens)
        # Runs after the event loop has flushed what the sinks wrote.
        self._loop.call_soon(self._record_lateness, deadline)
        self._begin_iteration(self._next_start(deadline))

    def _next_start(self, deadline: float) -> float:
        now = time.monotonic()
        if now - deadline < MAX_LATENESS_SECONDS:
            return deadline
        LOG.warning("fell %.1f s behind the simulated clock; this machine was too busy", now - deadline)
        return now

    def _record_lateness(self, deadline: float) -> None:
        self.lateness.record(time.monotonic() - deadline)
