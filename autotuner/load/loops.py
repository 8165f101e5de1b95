"""When requests go out: a fixed number in flight, or at scheduled instants."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic

from autotuner.load.connection import STALE, Connection, Dialer, DialError, Exchange
from autotuner.load.driver import Run
from autotuner.load.response import body
from autotuner.load.stream import text
from autotuner.workload.conversations import Conversations

_OPENING_AT_ONCE = 64
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_LONGEST_RAMP = 2.0
_SPARE_CONNECTIONS = 4
_MOST_OPENED_AHEAD = 512


class Pool:
    """Opens connections in the background and drops them all at the end."""

    def __init__(self, dialer: Dialer) -> None:
        self.dialer = dialer
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    async def open(self, number: int) -> list[Connection]:
        """Open `number` connections before the clock starts; fewer where the server refuses."""
        opened: list[Connection] = []
        for begin in range(0, number, _OPENING_AT_ONCE):
            batch = min(_OPENING_AT_ONCE, number - begin)
            results = await asyncio.gather(*(self.dialer.open() for _ in range(batch)), return_exceptions=True)
            opened += [result for result in results if isinstance(result, Connection)]
            if not opened:
                break
        self.connections.update(opened)
        return opened

    def dial(self, opened: Callable[[Connection], None], failed: Callable[[DialError], None]) -> None:
        """Open one connection in the background and call one of the two."""
        task = asyncio.get_running_loop().create_task(self._dial(opened, failed))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def drop(self, connection: Connection) -> None:
        """Forget a connection that cannot be used again."""
        connection.close()
        self.connections.discard(connection)

    def close(self) -> None:
        """Drop everything."""
        for task in self.tasks:
            task.cancel()
        for connection in self.connections:
            connection.close()

    async def _dial(self, opened: Callable[[Connection], None], failed: Callable[[DialError], None]) -> None:
        try:
            connection = await self.dialer.open()
        except DialError as error:
            failed(error)
        else:
            self.connections.add(connection)
            opened(connection)


class ClosedLoop:
    """The job's lanes, each with its own connection, one request in flight, and its own conversations if given.

    The lanes begin spread over the first half of the warm-up, so that requests of equal length
    do not stay in step.
    """

    def __init__(self, run: Run, dialer: Dialer, talk: Callable[[int], Conversations] | None = None) -> None:
        self.run = run
        self.pool = Pool(dialer)
        self.lanes = [_Lane(self, number, talk and talk(number)) for number in run.job.lanes]
        self.active = len(self.lanes)

    async def open(self) -> None:
        """Open one connection for each lane."""
        for lane, connection in zip(self.lanes, await self.pool.open(len(self.lanes)), strict=False):
            lane.connection = connection

    def begin(self) -> None:
        """Start every lane."""
        ramp = min(self.run.job.workload.warmup / 2, _LONGEST_RAMP)
        loop = asyncio.get_running_loop()
        concurrency = self.run.job.load_point.concurrency or 1
        for lane in self.lanes:
            loop.call_later(ramp * lane.number / concurrency, lane.advance)

    def close(self) -> None:
        """Drop every connection."""
        self.pool.close()

    def lane_over(self) -> None:
        """Count a lane out."""
        self.active -= 1
        if not self.active:
            self.run.over.set()


class _Lane:
    """One request after the other on one connection."""

    def __init__(self, loop: ClosedLoop, number: int, talk: Conversations | None) -> None:
        self.loop = loop
        self.number = number
        self.talk = talk
        self.run = loop.run
        self.connection: Connection | None = None
        self.failures = 0

    def advance(self) -> None:
        exchange = self.run.issue(monotonic(), self.talk)
        if exchange is None:
            self.loop.lane_over()
        elif self.connection is not None and self.connection.usable:
            self._send(self.connection, exchange)
        else:
            self._dial(exchange)

    def _send(self, connection: Connection, exchange: Exchange) -> None:
        connection.send(exchange, self.run.payload(exchange.request), self._done)
        exchange.scheduled = exchange.sent

    def _dial(self, exchange: Exchange) -> None:
        def opened(connection: Connection) -> None:
            self.connection = connection
            self._send(connection, exchange)

        def failed(error: DialError) -> None:
            _fail(exchange, error)
            self._ended(exchange)

        if self.connection is not None:
            self.loop.pool.drop(self.connection)
            self.connection = None
        self.loop.pool.dial(opened, failed)

    def _done(self, connection: Connection, exchange: Exchange) -> None:
        if exchange.error == STALE and not self.run.closed:
            exchange.retried = True
            self._dial(exchange)
        else:
            self._ended(exchange)

    def _ended(self, exchange: Exchange) -> None:
        worked = self.run.finished(exchange)
        if self.talk is not None:
            self._go_on(self.talk, exchange, worked)
        if worked:
            self.failures = 0
            self.advance()
        else:
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self.failures, 10))
            self.failures += 1
            asyncio.get_running_loop().call_later(pause, self.advance)

    def _go_on(self, talk: Conversations, exchange: Exchange, worked: bool) -> None:
        if worked and self.run.job.workload.endpoint == "chat":
            talk.answered(text(*body(exchange.times, exchange.pieces)))
        elif worked:
            talk.answered("")
        else:
            talk.broken_off()


class OpenLoop:
    """Requests at absolute instants, however many are in flight, or up to `cap` of them.

    Connections for `burst` of them at once are kept open.
    """

    def __init__(self, run: Run, dialer: Dialer, offsets: Iterator[float], rate: float, burst: int = 0) -> None:
        self.run = run
        self.pool = Pool(dialer)
        self.offsets = offsets
        self.cap = cap = run.job.max_in_flight
        most = min(_MOST_OPENED_AHEAD, cap or _MOST_OPENED_AHEAD)
        self.spare = max(_SPARE_CONNECTIONS, min(most, burst))
        self.ahead = min(most, round(2 * rate) + self.spare)
        self.idle: list[Connection] = []
        self.waiting: deque[Exchange] = deque()
        self.opening = 0
        self.exhausted = False
        self.due = 0.0

    async def open(self) -> None:
        """Open the connections of the first two seconds."""
        self.idle = await self.pool.open(self.ahead)
        for connection in self.idle:
            connection.on_idle_loss = self._lost

    def begin(self) -> None:
        """Put the schedule on the clock."""
        self._next()
        self._tick()

    def close(self) -> None:
        """Drop every connection."""
        self.pool.close()

    def _tick(self) -> None:
        now = monotonic()
        while self.due <= now:
            exchange = self.run.issue(self.due)
            if exchange is None:
                self.due = math.inf
                break
            if self.cap is not None and len(self.run.sending) > self.cap:
                self.run.held_back += not exchange.warmup
            self.waiting.append(exchange)
            self._dispatch()
            self._next()
        if self.due == math.inf:
            self.exhausted = True
            self._check_over()
            return
        asyncio.get_running_loop().call_later(self.due - now, self._tick)

    def _next(self) -> None:
        self.due = self.run.start + next(self.offsets, math.inf)

    def _dispatch(self) -> None:
        """Send what waits on the connections that are idle, and have more opened where they run short."""
        while self.waiting and self.idle:
            connection = self.idle.pop()
            if connection.usable:
                exchange = self.waiting.popleft()
                connection.send(exchange, self.run.payload(exchange.request), self._done)
            else:
                self.pool.drop(connection)
        spare = 0 if self.exhausted else self.spare
        wanted = len(self.waiting) + spare - len(self.idle) - self.opening
        room = wanted if self.cap is None else self.cap - len(self.pool.connections) - self.opening
        for _ in range(min(wanted, room)):
            self.opening += 1
            self.pool.dial(self._opened, self._failed)

    def _opened(self, connection: Connection) -> None:
        self.opening -= 1
        connection.on_idle_loss = self._lost
        self.idle.append(connection)
        self._dispatch()

    def _failed(self, error: DialError) -> None:
        self.opening -= 1
        if self.waiting:
            exchange = self.waiting.popleft()
            _fail(exchange, error)
            self._ended(exchange)
        if self.waiting:
            self._dispatch()

    def _lost(self, connection: Connection) -> None:
        """Replace an idle connection that the server has closed, before a request needs it."""
        if connection in self.idle and not self.run.closed:
            self.idle.remove(connection)
            self.pool.drop(connection)
            self._dispatch()

    def _done(self, connection: Connection, exchange: Exchange) -> None:
        if connection.usable:
            self.idle.append(connection)
        else:
            self.pool.drop(connection)
        if exchange.error == STALE and not self.run.closed:
            exchange.retried = True
            self.waiting.appendleft(exchange)
        else:
            self._ended(exchange)
        self._dispatch()

    def _ended(self, exchange: Exchange) -> None:
        self.run.finished(exchange)
        self._check_over()

    def _check_over(self) -> None:
        if self.exhausted and not self.run.sending:
            self.run.over.set()


def _fail(exchange: Exchange, error: DialError) -> None:
    """End an exchange for which there was no connection."""
    exchange.error = "reset" if exchange.retried else error.kind
    exchange.said = str(error)
    exchange.finished = monotonic()
