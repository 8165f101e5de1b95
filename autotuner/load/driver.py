"""Drives one load point: its clock, its measurement window, and when it ends.

`LoadPointRun` keeps time and counts requests; `ClosedLoop` and `OpenLoop` (loops.py) decide when the next
request goes out. Everything here runs on one event loop, in callbacks from the connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Protocol

from autotuner.core import CUT_OFF_ERROR
from autotuner.endpoints.error_text import error_text
from autotuner.load.connection import CONNECT_TIMEOUT_SECONDS, Exchange
from autotuner.load.job import Job, request_head
from autotuner.load.overhead import OverheadMeter
from autotuner.load.response import extract_body, is_success
from autotuner.load.retry_after import MAX_SECONDS, retry_after
from autotuner.load.spool import Spool
from autotuner.load.stream import decode
from autotuner.workload.client_policy import ClientPolicy, complete_until
from autotuner.workload.conversations import Conversations
from autotuner.workload.requests import Request

_PREBUILT_BYTES = 8 << 20
"""Memory bound of each buffer of prebuilt requests."""
_RESPONSE_BYTES, _TOKEN_BYTES, _OWN_FIELDS_TOKEN_BYTES = 1 << 19, 1 << 11, 1 << 14
"""Limits of a response, and for each of its tokens: servers send 200 to 600 bytes, with 20 log probabilities 3,000."""
_UNHELD_LENGTH_TOKENS = 2048
"""What a server may answer that takes no length."""
_FLUSH_INTERVAL_SECONDS = 0.1


@dataclass(frozen=True)
class DriveOutcome:
    """The result of one worker's load point, beside its request records.

    `window` is (start, end) on the records' clock, in seconds. Every request of the window due up to
    `complete_until` has ended. `ended_early` is why the worker gave up, `halted` whether the parent
    ended the load point. `held_back` requests of the window were sent late because `max_in_flight`
    was reached. `cpu` is the share of a core that the worker's event loop took. `retry_after` is the longest
    pause that a refusal asked for.
    """

    window: tuple[float, float]
    complete_until: float
    loop_lag_p99: float
    cut_off: int
    ended_early: str | None
    halted: bool
    held_back: int
    loop_lag_mean: float | None = None
    cpu: float | None = None
    retry_after: float | None = None


class RequestBuffer:
    """Requests built ahead of time, so that sending one costs a pop."""

    def __init__(self, requests: Iterator[Request], depth: int) -> None:
        self.requests = requests
        self.prebuilt = deque(islice(requests, 1))
        self.depth = max(1, min(depth, _PREBUILT_BYTES // len(self.prebuilt[0].body))) if self.prebuilt else 0
        self.prebuilt.extend(islice(requests, max(0, self.depth - 1)))
        self.refill_scheduled = False

    def take(self) -> Request:
        """Return the next request, and schedule a refill."""
        if not self.refill_scheduled:
            self.refill_scheduled = True
            asyncio.get_running_loop().call_later(0.001, self._refill)
        return self.prebuilt.popleft() if self.prebuilt else next(self.requests)

    def _refill(self) -> None:
        """Build up to 8 requests, then let the event loop run for 1 ms before the next ones."""
        missing = self.depth - len(self.prebuilt)
        built = list(islice(self.requests, min(8, missing)))
        self.prebuilt.extend(built)
        if len(built) == missing or not built:
            self.refill_scheduled = False
            return
        asyncio.get_running_loop().call_later(0.001, self._refill)


class LoadPointRun:
    """State of one load point: its clock, open exchanges and spool, by the rules of a ClientPolicy.

    `halt` ends it at once.
    """

    def __init__(
        self,
        job: Job,
        warmup_requests: Iterator[Request],
        window_requests: Iterator[Request],
        spool: Spool,
        on_phase: Callable[[str], None],
    ) -> None:
        depth = min(len(job.closed_loop_users) or 64, 256)
        self.job = job
        self.warmup_requests = RequestBuffer(warmup_requests, depth if job.workload.warmup else 1)
        self.window_requests = RequestBuffer(window_requests, depth)
        self.spool = spool
        self.on_phase = on_phase
        self.request_head = request_head(job.endpoint, job.workload.endpoint)
        max_requests = math.inf if job.max_requests is None else job.max_requests
        self.policy = ClientPolicy(
            job.workload, job.workload.window_limit, max_requests, users=len(job.closed_loop_users)
        )
        self.stop_reason: str | None = None
        self.halted = False
        self.held_back_count = 0
        self.retry_after: float | None = None
        self.closed = False
        self.open_exchanges: set[Exchange] = set()
        self.done_event = asyncio.Event()
        self.overhead = OverheadMeter()
        self.window = (math.inf, math.inf)

    def begin(self, start: float) -> None:
        """Start the clock; `start`, the beginning of the warm-up, is a moment ago."""
        self.policy.begin(start)
        self.on_phase("warming-up")
        if self.job.workload.warmup:
            pause = max(0.0, self.policy.window_start - monotonic())
            asyncio.get_running_loop().call_later(pause, self._start_measuring)
        else:
            self._start_measuring()
        self._flush_periodically()

    def issue(self, due: float, conversations: Conversations | None = None) -> Exchange | None:
        """Open an exchange for the request due at `due`, from `conversations` if given; None after the last."""
        index = self.policy.issued_count
        counted = None if self.stop_reason or self.halted else self.policy.issue(due)
        if counted is None:
            return None
        buffer = self.window_requests if counted else self.warmup_requests
        request = conversations.current_request() if conversations else buffer.take()
        exchange = Exchange(request, due, warmup=not counted, byte_limit=self._byte_limit(request))
        if counted:
            exchange.index = self.job.worker_index + self.job.worker_count * index
        self.open_exchanges.add(exchange)
        return exchange

    def _byte_limit(self, request: Request) -> int:
        """Bytes of memory that a response may take; fields of the user's own may ask for more of each token."""
        form = self.job.workload.request_form
        token_bytes = _OWN_FIELDS_TOKEN_BYTES if form.extra_body else _TOKEN_BYTES
        tokens = request.output_tokens if form.holds_length else max(request.output_tokens, _UNHELD_LENGTH_TOKENS)
        return _RESPONSE_BYTES + token_bytes * tokens

    def payload(self, request: Request) -> bytes:
        """Return the bytes of one HTTP request."""
        return b"%s%d\r\n\r\n%s" % (self.request_head, len(request.body), request.body)

    def record_result(self, exchange: Exchange) -> bool:
        """Record a finished exchange, give up when nothing works, and return whether this one succeeded."""
        if self.closed:
            return False
        self.open_exchanges.discard(exchange)
        error = exchange.error or (None if is_success(exchange.status) else f"http-{exchange.status}")
        if error is None and not self.policy.any_success:
            # decoding, which finds a broken stream, is left to the transcriber once one response was good
            body = extract_body(exchange.times, exchange.pieces)
            response = decode(*body, exchange.request.output_tokens)
            error, exchange.error_message = response.error, response.error_message
        if error or not exchange.warmup or exchange.finished > self.policy.window_start:
            self.spool.add(exchange)
        self.policy.finish(error, exchange.finished, counted=not exchange.warmup)
        if not exchange.warmup:
            self.end_if_complete(monotonic())
        if error is None:
            return True
        asked = retry_after(exchange.status, exchange.pieces)
        if asked is not None:
            self.retry_after = max(asked, self.retry_after or 0.0)
        in_flight = (other.sent for other in self.open_exchanges if other.in_flight)
        if self.policy.gives_up(error, monotonic(), in_flight):
            from autotuner.load.error_messages import readable_message

            words = readable_message(_error_text(exchange), self.job.endpoint.headers)
            pause = f" (Retry-After: {asked:g} s)" if asked is not None else ""
            self.give_up(f"{self.policy.give_up_reason(error).removesuffix('.')}{pause}. {words}".rstrip())
        return False

    def pause_after(self, exchange: Exchange) -> float:
        """Seconds that the client of a failed exchange is to wait at least, because the server asked for it."""
        if not self.job.workload.honour_retry_after:
            return 0.0
        return min(MAX_SECONDS, retry_after(exchange.status, exchange.pieces) or 0.0)

    def end_if_complete(self, now: float) -> None:
        """End if all requests of the window have been issued and have ended."""
        if self.policy.is_complete(now):
            self.done_event.set()

    def halt(self) -> None:
        """End now, because the parent decided that the load point is over."""
        self.halted = True
        self.done_event.set()

    def give_up(self, reason: str) -> None:
        """End now, because requests keep failing."""
        if self.stop_reason is None:
            self.stop_reason = reason
            self.done_event.set()

    def close(self) -> None:
        """Fix the window and cut off requests in flight; a run that ended in its warm-up keeps that as its window.

        Requests that only keep the load up are recorded up to now: Little's law needs their time in the window.
        """
        self.closed = True
        self.overhead.stop()
        now = monotonic()
        self.window = self.policy.window(now, ended_early=self.halted, gave_up=self.stop_reason is not None)
        if self.stop_reason is None:
            for exchange in self.open_exchanges:
                if exchange.warmup and exchange.sent < self.window[1]:
                    exchange.finished, exchange.error = now, CUT_OFF_ERROR
                    self.spool.add(exchange)

    def outcome(self) -> DriveOutcome:
        """Summarise a closed run."""
        running_due = [exchange.scheduled for exchange in self.open_exchanges if not exchange.warmup]
        return DriveOutcome(
            window=self.window,
            complete_until=complete_until(self.window[1], running_due),
            loop_lag_p99=self.overhead.lag_p99,
            cut_off=len(running_due),
            ended_early=self.stop_reason,
            halted=self.halted,
            held_back=self.held_back_count,
            loop_lag_mean=self.overhead.lag_mean,
            cpu=self.overhead.cpu_share,
            retry_after=self.retry_after,
        )

    def _flush_periodically(self) -> None:
        """Write finished exchanges soon, for the parent that follows the records."""
        if not self.closed:
            self.spool.flush()
            asyncio.get_running_loop().call_later(_FLUSH_INTERVAL_SECONDS, self._flush_periodically)

    def _start_measuring(self) -> None:
        self.on_phase("measuring")
        self.overhead.start()


def _error_text(exchange: Exchange) -> str:
    """The server's own error message, from an error object or the start of the body."""
    if exchange.error_message:
        return exchange.error_message
    return error_text(b"".join(extract_body(exchange.times, exchange.pieces)[1]).decode("utf-8", "replace"))


class ArrivalLoop(Protocol):
    """Decides when the next request goes out."""

    async def open(self) -> None:
        """Open the connections that are needed from the first instant."""
        ...

    def begin(self) -> None:
        """Send the first requests; `run.done_event` is set after the last one."""
        ...

    def close(self) -> None:
        """Drop all connections, including those being opened."""
        ...


async def drive(run: LoadPointRun, loop: ArrivalLoop, wait_for_start: Callable[[], Awaitable[float]]) -> DriveOutcome:
    """Open the connections, then drive the load point from the instant that `wait_for_start` returns to its end."""
    workload = run.job.workload
    limit = workload.warmup + workload.window_limit + workload.request_timeout + CONNECT_TIMEOUT_SECONDS
    await loop.open()
    with _without_garbage_collection():
        try:
            run.begin(await wait_for_start())
            loop.begin()
            async with asyncio.timeout(limit):
                await run.done_event.wait()
        except TimeoutError:
            run.give_up("Requests were still waiting for a connection when the time was up.")
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
