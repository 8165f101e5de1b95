"""Drives one load point: when which request goes out, the window, and when it is over.

`Run` keeps the clock and the books; `ClosedLoop` and `OpenLoop` (loops.py) decide when the next
request goes out. Everything here runs on one event loop, in callbacks from the connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Protocol

from autotuner.core import CUT_OFF
from autotuner.load.connection import CONNECT_TIMEOUT, Exchange
from autotuner.load.job import Job, request_head
from autotuner.load.overhead import Overhead
from autotuner.load.response import body
from autotuner.load.spool import Spool
from autotuner.load.stream import decode, message
from autotuner.workload.conversations import Conversations
from autotuner.workload.requests import Request

_AHEAD_BYTES = 8 << 20
_HAND_OVER_SECONDS = 0.1
_PATIENCE = 5
_FRESH_SECONDS, _HOPE_SECONDS = 1.0, 2.0
_UNREACHABLE = frozenset({"connection-refused", "dns", "tls", "reset", "timeout", "unreachable"})


@dataclass(frozen=True)
class Outcome:
    """How a load point went, beside its records: `window` is on the records' clock.

    `settled` is the last instant before which every request of the window has ended. `ended_early`
    says why it was given up, `halted` that the parent ended it. `held_back` requests of the window
    were sent late because too many were in flight.
    """

    window: tuple[float, float]
    settled: float
    loop_lag_p99: float
    cut_off: int
    ended_early: str | None
    halted: bool
    held_back: int
    loop_lag_mean: float | None = None
    cpu: float | None = None


class Supply:
    """Requests built a little ahead, so that sending one costs a pop."""

    def __init__(self, requests: Iterator[Request], depth: int) -> None:
        self.requests = requests
        self.ready = deque(islice(requests, 1))
        self.depth = max(1, min(depth, _AHEAD_BYTES // len(self.ready[0].body))) if self.ready else 0
        self.ready.extend(islice(requests, max(0, self.depth - 1)))
        self.filling = False

    def take(self) -> Request:
        """Return the next request, and build another one soon."""
        if not self.filling:
            self.filling = True
            asyncio.get_running_loop().call_later(0.001, self._fill)
        return self.ready.popleft() if self.ready else next(self.requests)

    def _fill(self) -> None:
        lacking = self.depth - len(self.ready)
        built = list(islice(self.requests, min(8, lacking)))
        self.ready.extend(built)
        if len(built) == lacking or not built:
            self.filling = False
            return
        asyncio.get_running_loop().call_later(0.001, self._fill)


class Run:
    """The clock and the books of one load point.

    The window begins at `window_start`, after the warm-up, and ends at `window_end`, or, where
    `max_requests` were issued in it before, with the last of those. Until the last request of the
    window has ended the load is kept up by others, which count for nothing: under less of it the
    last ones would be faster. `halt` ends all of it at once.
    """

    def __init__(
        self,
        job: Job,
        warmup: Iterator[Request],
        window: Iterator[Request],
        spool: Spool,
        on_phase: Callable[[str], None],
    ) -> None:
        depth = min(len(job.lanes) or 64, 256)
        self.job = job
        self.warmup = Supply(warmup, depth if job.workload.warmup else 1)
        self.window = Supply(window, depth)
        self.spool = spool
        self.on_phase = on_phase
        self.head = request_head(job.endpoint, job.workload.endpoint)
        self.max_requests = math.inf if job.max_requests is None else job.max_requests
        self.patience = max(_PATIENCE, len(job.lanes))
        self.issued = 0
        self.unfinished = 0
        self.failures = 0
        self.failing_since = 0.0
        self.worked = False
        self.last_finished = 0.0
        self.stopped: str | None = None
        self.halted = False
        self.held_back = 0
        self.closed = False
        self.sending: set[Exchange] = set()
        self.over = asyncio.Event()
        self.overhead = Overhead()
        self.start = self.window_start = self.window_end = math.inf

    def begin(self, start: float) -> None:
        """Start the clock: the warm-up began at `start`, a moment ago."""
        workload = self.job.workload
        self.start = start
        self.window_start = self.start + workload.warmup
        self.window_end = self.window_start + workload.limit
        self.on_phase("warming-up")
        if workload.warmup:
            asyncio.get_running_loop().call_later(max(0.0, self.window_start - monotonic()), self._measure)
        else:
            self._measure()
        self._hand_over()

    def issue(self, when: float, talk: Conversations | None = None) -> Exchange | None:
        """Return the request that is to go out at `when`, the next of `talk` if there is one; None after the last."""
        if self.stopped or self.halted or (self._is_full(when) and not self.unfinished):
            return None
        counted = when >= self.window_start and not self._is_full(when)
        request = talk.take() if talk else (self.window if counted else self.warmup).take()
        exchange = Exchange(request, when, warmup=not counted)
        if counted:
            exchange.index = self.job.part + self.job.parts * self.issued
            self.issued += 1
            self.unfinished += 1
        self.sending.add(exchange)
        return exchange

    def _is_full(self, when: float) -> bool:
        """Whether all requests of the window have been issued."""
        return when >= self.window_end or self.issued >= self.max_requests

    def payload(self, request: Request) -> bytes:
        """Return the bytes of one HTTP request."""
        return b"%s%d\r\n\r\n%s" % (self.head, len(request.body), request.body)

    def finished(self, exchange: Exchange) -> bool:
        """Book an exchange that has ended, give up when nothing works, and say whether this one did."""
        if self.closed:
            return False
        self.sending.discard(exchange)
        error = exchange.error or (f"http-{exchange.status}" if exchange.status != 200 else None)
        if error is None and not self.worked:
            # a broken stream is found when it is decoded: until one answer was whole, that is here
            answer = decode(*body(exchange.times, exchange.pieces))
            error, exchange.said = answer.error, answer.said
        if error or not exchange.warmup or exchange.finished > self.window_start:
            self.spool.add(exchange)
        if not exchange.warmup:
            self.last_finished = max(self.last_finished, exchange.finished)
            self.unfinished -= 1
            if not self.unfinished and self._is_full(monotonic()):
                self.over.set()
        if error is None:
            self.worked = True
            self.failures = 0
            return True
        if not self.failures:
            self.failing_since = exchange.finished
        self.failures += 1
        if self._hopeless(error):
            self.stop(f"The last {self.failures} requests failed: {error}. {_said(exchange)}".rstrip())
        return False

    def halt(self) -> None:
        """Issue no more, and end now: enough is known."""
        self.halted = True
        self.over.set()

    def stop(self, reason: str) -> None:
        """Issue no more, and end now: nothing works."""
        if self.stopped is None:
            self.stopped = reason
            self.over.set()

    def close(self) -> None:
        """Close the books: what is still on its way is cut off, and a warm-up given up is all there is.

        Of requests that only keep up the load the part inside the window is booked, for Little's law.
        """
        self.closed = True
        self.overhead.stop()
        end, now = self.window_end, monotonic()
        if self.stopped is not None or self.halted:
            end = min(end, now)
            if now < self.window_start:
                self.window_start = self.start
        elif self.issued >= self.max_requests:
            end = min(end, self.last_finished)
        self.window_end = max(end, self.window_start)
        if self.stopped is None:
            for exchange in self.sending:
                if exchange.warmup and exchange.sent < self.window_end:
                    exchange.finished, exchange.error = now, CUT_OFF
                    self.spool.add(exchange)

    def outcome(self) -> Outcome:
        """Sum up a closed run."""
        running = [exchange.scheduled for exchange in self.sending if not exchange.warmup]
        return Outcome(
            window=(self.window_start, self.window_end),
            settled=min([self.window_end, *(math.nextafter(due, 0.0) for due in running)]),
            loop_lag_p99=self.overhead.lag_p99,
            cut_off=len(running),
            ended_early=self.stopped,
            halted=self.halted,
            held_back=self.held_back,
            loop_lag_mean=self.overhead.lag_mean,
            cpu=self.overhead.cpu,
        )

    def _hand_over(self) -> None:
        """Have what has ended written soon, for whoever follows the records."""
        if not self.closed:
            self.spool.hand_over()
            asyncio.get_running_loop().call_later(_HAND_OVER_SECONDS, self._hand_over)

    def _measure(self) -> None:
        self.on_phase("measuring")
        self.overhead.start()

    def _hopeless(self, error: str) -> bool:
        """Whether nothing works: failures alone, and no request on its way that may still end well."""
        if self.failures < self.patience or (self.worked and error not in _UNREACHABLE):
            return False
        now = monotonic()
        ages = [now - exchange.sent for exchange in self.sending if exchange.under_way]
        if error == "timeout" or not ages:
            return True
        return max(ages) < _FRESH_SECONDS and now - self.failing_since > _HOPE_SECONDS


def _said(exchange: Exchange) -> str:
    if exchange.said:
        return exchange.said
    text = b"".join(body(exchange.times, exchange.pieces)[1])[:4096].decode("utf-8", "replace").strip()
    try:
        return message(json.loads(text))
    except ValueError:
        return text[:300]


class Loop(Protocol):
    """Decides when the next request goes out."""

    async def open(self) -> None:
        """Open the connections that are needed from the first instant."""
        ...

    def begin(self) -> None:
        """Send the first requests; `run.over` is set after the last one."""
        ...

    def close(self) -> None:
        """Drop every connection and every attempt to open one."""
        ...


async def drive(run: Run, loop: Loop, started: Callable[[], Awaitable[float]]) -> Outcome:
    """Open the connections, run the load point from the instant of `started` to its end, and say how it went."""
    workload = run.job.workload
    limit = workload.warmup + workload.limit + workload.request_timeout + CONNECT_TIMEOUT
    await loop.open()
    with _without_garbage_collection():
        try:
            run.begin(await started())
            loop.begin()
            async with asyncio.timeout(limit):
                await run.over.wait()
        except TimeoutError:
            run.stop("Requests were still waiting for a connection when the time was up.")
        finally:
            run.close()
            loop.close()
    return run.outcome()


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
