"""When requests go out: closed loop (a fixed number in flight) and open loop (at scheduled arrival times)."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic

from autotuner.load.connection import STALE_CONNECTION, Connection, Dialer, DialError, Exchange
from autotuner.load.driver import LoadPointRun
from autotuner.load.response import extract_body
from autotuner.load.stream import chat_text
from autotuner.workload.client_policy import retry_pause, start_offset
from autotuner.workload.conversations import Conversations

_OPEN_BATCH_SIZE = 64
_MIN_SPARE_CONNECTIONS = 4
_MAX_PREOPENED_CONNECTIONS = 512


class ConnectionPool:
    """Opens connections in the background and drops them all at the end."""

    def __init__(self, dialer: Dialer) -> None:
        self.dialer = dialer
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    async def open(self, count: int) -> list[Connection]:
        """Open `count` connections before the clock starts; fewer where the server refuses."""
        opened: list[Connection] = []
        for begin in range(0, count, _OPEN_BATCH_SIZE):
            batch = min(_OPEN_BATCH_SIZE, count - begin)
            results = await asyncio.gather(*(self.dialer.open() for _ in range(batch)), return_exceptions=True)
            opened += [result for result in results if isinstance(result, Connection)]
            if not opened:
                break
        self.connections.update(opened)
        return opened

    def dial(self, on_opened: Callable[[Connection], None], on_failed: Callable[[DialError], None]) -> None:
        """Open one connection in the background, then call `on_opened` or `on_failed`."""
        task = asyncio.get_running_loop().create_task(self._dial(on_opened, on_failed))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def drop(self, connection: Connection) -> None:
        """Close and forget a connection that cannot be used again."""
        connection.close()
        self.connections.discard(connection)

    def close(self) -> None:
        """Close all connections, including those being opened."""
        for task in self.tasks:
            task.cancel()
        for connection in self.connections:
            connection.close()

    async def _dial(self, on_opened: Callable[[Connection], None], on_failed: Callable[[DialError], None]) -> None:
        try:
            connection = await self.dialer.open()
        except DialError as error:
            on_failed(error)
        else:
            self.connections.add(connection)
            on_opened(connection)


class ClosedLoop:
    """A fixed number of users, each with its own connection, one request in flight and, if given, conversations.

    The users start one after another, as `start_offset` says.
    """

    def __init__(
        self, run: LoadPointRun, dialer: Dialer, conversations_for_user: Callable[[int], Conversations] | None = None
    ) -> None:
        self.run = run
        self.pool = ConnectionPool(dialer)
        self.users = [
            _ClosedLoopUser(self, number, conversations_for_user and conversations_for_user(number))
            for number in run.job.closed_loop_users
        ]
        self.active_users = len(self.users)

    async def open(self) -> None:
        """Open one connection for each user."""
        for user, connection in zip(self.users, await self.pool.open(len(self.users)), strict=False):
            user.connection = connection

    def begin(self) -> None:
        """Start every user."""
        loop = asyncio.get_running_loop()
        workload, concurrency = self.run.job.workload, self.run.job.load_point.concurrency or 1
        for user in self.users:
            loop.call_later(start_offset(user.number, concurrency, workload), user.send_next)
        self._end_with_window()

    def close(self) -> None:
        """Drop every connection."""
        self.pool.close()

    def _end_with_window(self) -> None:
        """End the run with its window, unless requests of the window are in flight: users may pause for longer."""
        now = monotonic()
        end = self.run.policy.remaining_window_end(now)
        if end < math.inf:
            asyncio.get_running_loop().call_later(end - now, self._end_with_window)
        else:
            self.run.end_if_complete(now)

    def user_finished(self) -> None:
        """End the run after the last user."""
        self.active_users -= 1
        if not self.active_users:
            self.run.done_event.set()


class _ClosedLoopUser:
    """One simulated user of a closed loop: sends one request after the other on one connection."""

    def __init__(self, closed_loop: ClosedLoop, number: int, conversations: Conversations | None) -> None:
        self.closed_loop = closed_loop
        self.number = number
        self.conversations = conversations
        self.run = closed_loop.run
        self.connection: Connection | None = None
        self.consecutive_failures = 0

    def send_next(self) -> None:
        exchange = self.run.issue(monotonic(), self.conversations)
        if exchange is None:
            self.closed_loop.user_finished()
        elif self.connection is not None and self.connection.usable:
            self._send(self.connection, exchange)
        else:
            self._connect_and_send(exchange)

    def _send(self, connection: Connection, exchange: Exchange) -> None:
        connection.send(exchange, self.run.payload(exchange.request), self._on_done)
        exchange.scheduled = exchange.sent

    def _connect_and_send(self, exchange: Exchange) -> None:
        def on_opened(connection: Connection) -> None:
            self.connection = connection
            self._send(connection, exchange)

        def on_failed(error: DialError) -> None:
            _fail_unconnected(exchange, error)
            self._finish(exchange)

        if self.connection is not None:
            self.closed_loop.pool.drop(self.connection)
            self.connection = None
        self.closed_loop.pool.dial(on_opened, on_failed)

    def _on_done(self, connection: Connection, exchange: Exchange) -> None:
        if exchange.error == STALE_CONNECTION and not self.run.closed:
            exchange.retried = True
            self._connect_and_send(exchange)
        else:
            self._finish(exchange)

    def _finish(self, exchange: Exchange) -> None:
        """Record the result and send the next request, after a failure with exponential backoff."""
        succeeded = self.run.record_result(exchange)
        if self.conversations is not None:
            self._advance_conversation(self.conversations, exchange, succeeded)
        if succeeded:
            self.consecutive_failures = 0
            self.send_next()
        else:
            pause = retry_pause(self.consecutive_failures)
            self.consecutive_failures += 1
            pause = max(pause, self.run.pause_after(exchange))
            asyncio.get_running_loop().call_later(pause, self.send_next)

    def _advance_conversation(self, conversations: Conversations, exchange: Exchange, succeeded: bool) -> None:
        if succeeded and self.run.job.workload.endpoint == "chat":
            conversations.complete_turn(chat_text(*extract_body(exchange.times, exchange.pieces)))
        elif succeeded:
            conversations.complete_turn("")
        else:
            conversations.next_conversation()


class OpenLoop:
    """Sends requests at scheduled arrival times, whatever is in flight up to the job's `max_in_flight`.

    Idle connections are kept open for `burst_size` requests at once.
    """

    def __init__(
        self, run: LoadPointRun, dialer: Dialer, offsets: Iterator[float], rate: float, burst_size: int = 0
    ) -> None:
        self.run = run
        self.pool = ConnectionPool(dialer)
        self.offsets = offsets
        self.max_in_flight = run.job.max_in_flight
        max_preopened = min(_MAX_PREOPENED_CONNECTIONS, self.max_in_flight or _MAX_PREOPENED_CONNECTIONS)
        self.spare_connections = max(_MIN_SPARE_CONNECTIONS, min(max_preopened, burst_size))
        self.preopened_connections = min(max_preopened, round(2 * rate) + self.spare_connections)
        self.idle_connections: list[Connection] = []
        self.waiting_exchanges: deque[Exchange] = deque()
        self.opening_count = 0
        self.schedule_exhausted = False
        self.next_due = 0.0

    async def open(self) -> None:
        """Open the connections that the first two seconds need."""
        self.idle_connections = await self.pool.open(self.preopened_connections)
        for connection in self.idle_connections:
            connection.on_idle_loss = self._on_idle_loss

    def begin(self) -> None:
        """Schedule the first arrival."""
        self._schedule_next()
        self._tick()

    def close(self) -> None:
        """Drop every connection."""
        self.pool.close()

    def _tick(self) -> None:
        """Send every request that is due, then sleep until the next one or the end of the window.

        Ends the schedule when no request is left.
        """
        now = monotonic()
        while self.next_due <= now:
            exchange = self.run.issue(self.next_due)
            if exchange is None:
                self.next_due = math.inf
                break
            if self.max_in_flight is not None and len(self.run.open_exchanges) > self.max_in_flight:
                self.run.held_back_count += not exchange.warmup
            self.waiting_exchanges.append(exchange)
            self._dispatch()
            self._schedule_next()
        if self.next_due == math.inf:
            self.schedule_exhausted = True
            self._check_done()
            return
        self.run.end_if_complete(now)
        wake = min(self.next_due, self.run.policy.remaining_window_end(now))
        asyncio.get_running_loop().call_later(wake - now, self._tick)

    def _schedule_next(self) -> None:
        self.next_due = self.run.policy.start + next(self.offsets, math.inf)

    def _dispatch(self) -> None:
        """Send waiting exchanges on idle connections, and open more connections where they run short."""
        while self.waiting_exchanges and self.idle_connections:
            connection = self.idle_connections.pop()
            if connection.usable:
                exchange = self.waiting_exchanges.popleft()
                connection.send(exchange, self.run.payload(exchange.request), self._on_done)
            else:
                self.pool.drop(connection)
        spare = 0 if self.schedule_exhausted else self.spare_connections
        count = len(self.waiting_exchanges) + spare - len(self.idle_connections) - self.opening_count
        if self.max_in_flight is not None:
            count = min(count, self.max_in_flight - len(self.pool.connections) - self.opening_count)
        for _ in range(count):
            self.opening_count += 1
            self.pool.dial(self._on_opened, self._on_open_failed)

    def _on_opened(self, connection: Connection) -> None:
        self.opening_count -= 1
        connection.on_idle_loss = self._on_idle_loss
        self.idle_connections.append(connection)
        self._dispatch()

    def _on_open_failed(self, error: DialError) -> None:
        self.opening_count -= 1
        if self.waiting_exchanges:
            exchange = self.waiting_exchanges.popleft()
            _fail_unconnected(exchange, error)
            self._finish(exchange)
        if self.waiting_exchanges:
            self._dispatch()

    def _on_idle_loss(self, connection: Connection) -> None:
        """Replace an idle connection that the server closed, before a request needs it."""
        if connection in self.idle_connections and not self.run.closed:
            self.idle_connections.remove(connection)
            self.pool.drop(connection)
            self._dispatch()

    def _on_done(self, connection: Connection, exchange: Exchange) -> None:
        """Keep the connection if it is usable. A request whose connection was stale is sent again, before others."""
        if connection.usable:
            self.idle_connections.append(connection)
        else:
            self.pool.drop(connection)
        if exchange.error == STALE_CONNECTION and not self.run.closed:
            exchange.retried = True
            self.waiting_exchanges.appendleft(exchange)
        else:
            self._finish(exchange)
        self._dispatch()

    def _finish(self, exchange: Exchange) -> None:
        self.run.record_result(exchange)
        self._check_done()

    def _check_done(self) -> None:
        if self.schedule_exhausted and not self.run.open_exchanges:
            self.run.done_event.set()


def _fail_unconnected(exchange: Exchange, error: DialError) -> None:
    """End an exchange for which no connection could be opened."""
    exchange.error = "reset" if exchange.retried else error.error_class
    exchange.error_message = str(error)
    exchange.finished = monotonic()
