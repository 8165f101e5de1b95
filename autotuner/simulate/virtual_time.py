"""The simulated engine and its load generator in virtual time.

There is no process, no HTTP and no wall clock: equal settings and seeds give equal records.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from autotuner.core import CUT_OFF_ERROR, LoadStep, Observation, RequestRecord
from autotuner.simulate.fast_scheduler import FastScheduler
from autotuner.simulate.faults import CRASH_STATUS, FaultPlan
from autotuner.simulate.scheduler import EngineCounters, ScheduledRequest
from autotuner.simulate.settings import SimulationSettings
from autotuner.simulate.started_engine import StartedEngine
from autotuner.workload import arrivals, scenarios
from autotuner.workload.client_policy import (
    STOP_CHECK_SECONDS,
    ClientPolicy,
    complete_until,
    retry_pause,
    start_offset,
)
from autotuner.workload.requests import RequestShape, draw_shapes
from autotuner.workload.scenarios import ConversationScenario, Scenario, TraceReplay

TURNAROUND_SECONDS = 0.0002
"""Time from a response's last token until the next request of the same closed-loop user reaches the engine."""

ONE_TOKEN_CHUNKS = array("I", [1]) * 4096
"""Sliced for the chunk sizes of a record, because every simulated chunk carries one token."""


class EngineDiedError(Exception):
    """The engine exited with `status`, or hangs if that is None, `seconds` after the load point began."""

    def __init__(self, status: int | None, message: str, seconds: float) -> None:
        super().__init__(message)
        self.status = status
        self.seconds = seconds


class VirtualScheduler(Protocol):
    """What serves requests in virtual time: one server's scheduler, or those of several behind a router."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is waiting or running."""

    @property
    def counters(self) -> EngineCounters:
        """Totals since the start."""

    def add(self, request: ScheduledRequest) -> None:
        """Queue a request at its arrival time."""

    def abort(self, request: ScheduledRequest) -> bool:
        """Drop a request; False if it was neither waiting nor running."""

    def run(self, now: float, until: float) -> tuple[float, list[ScheduledRequest]]:
        """Run up to the first end of a request, or `until`; see FastScheduler."""

    def token_times(self, request: ScheduledRequest) -> array[float]:
        """Return and forget when each token of a finished or aborted request was emitted."""


class VirtualServer:
    """A running engine; its scheduler, prefix cache, faults and clock persist across load points."""

    def __init__(self, settings: SimulationSettings, started_engine: StartedEngine) -> None:
        self.started_engine = started_engine
        self.scheduler: VirtualScheduler = FastScheduler(
            started_engine.limits, started_engine.iteration_times.step, started_engine.iteration_times.decode_time
        )
        self.faults = FaultPlan(settings.faults, settings.seed)
        self.clock = 0.0
        self._block_ids = count()

    def drive(self, load_step: LoadStep, on_phase: Callable[[str], None] = lambda phase: None) -> Observation:
        """Serve one load point and return what the load generator would observe.

        Advances the clock to the end of the last request. EngineDiedError: an injected crash or hang.
        """
        return _VirtualRun(self, load_step, on_phase).run()

    def unique_block_ids(self, block_count: int) -> range:
        """Return prompt hashes of `block_count` blocks that no other prompt shares."""
        first = next(self._block_ids)
        self._block_ids = count(first + block_count + 1)
        return range(first, first + block_count)


@dataclass(slots=True)
class _InFlightRequest:
    """The client's view of a request in flight.

    `index` counts the requests of the window; it is negative for others. `user` numbers the users of a
    closed loop; it is 0 in an open loop.
    """

    index: int
    sent_time: float
    prompt_tokens: int
    output_tokens: int
    user: int
    due_time: float
    malformed: bool = False

    @property
    def is_warmup(self) -> bool:
        return self.index < 0


@dataclass(slots=True)
class _UserTurn:
    """The turn of a conversation that a user comes to next."""

    conversation: int
    turn: int


class _VirtualRun:
    """One load point by the rules of a ClientPolicy, as the load generator drives it, on the scheduler's clock.

    Requests before and after the window keep up the load without counting; `is_warmup` marks them.
    """

    def __init__(self, server: VirtualServer, load_step: LoadStep, on_phase: Callable[[str], None]) -> None:
        self.server, self.scheduler, self.load_step = server, server.scheduler, load_step
        self.load_point = load_step.load_point
        self.workload = arrivals.limit_to_trace(self.load_point, load_step.workload)
        self.on_phase = on_phase
        scenario = scenarios.parse(self.load_point.scenario)
        self.shared_prefix_ids = server.unique_block_ids(
            scenario.prefix_tokens // server.started_engine.limits.block_size
        )
        self.conversation = scenario if isinstance(scenario, ConversationScenario) else None
        self.user_turns: dict[int, _UserTurn] = {}
        if self.conversation:
            for user in range(self.load_point.concurrency or 0):
                self.user_turns[user] = _UserTurn(user, user % len(self.conversation.turns_of(user)))
        self.user_block_ids: dict[int, list[int]] = {}
        self.trace_block_tokens = scenario.block_tokens if isinstance(scenario, TraceReplay) else 0
        self.trace_block_salts = {phase: server.unique_block_ids(1)[0] for phase in (True, False)}
        self.warmup_shapes = self._request_shapes(scenario, "warm-up")
        self.window_shapes = self._request_shapes(scenario, "window")
        self.start_time = server.clock
        is_nonstationary = self.workload.arrival.startswith(arrivals.NONSTATIONARY_PREFIXES)
        self.nonstationary_arrivals = self.load_point.rate is not None and is_nonstationary
        self.stop_rule = None if self.nonstationary_arrivals else load_step.stop_rule
        window_seconds = self.workload.window_limit if self.stop_rule else self.workload.duration
        max_requests, users = self.workload.max_requests or math.inf, self.load_point.concurrency or 0
        self.policy = ClientPolicy(self.workload, window_seconds, max_requests, users)
        self.policy.begin(self.start_time)
        self.max_in_flight = self.workload.max_in_flight if self.load_point.rate else None
        self.held_back_requests, self.slot_freed_time = 0, -math.inf
        self.uncounted_requests = 0
        self.send_schedule = SendSchedule(self.start_time, load_step)
        self.in_flight: dict[ScheduledRequest, _InFlightRequest] = {}
        self.records: list[RequestRecord] = []
        self.window_records: list[RequestRecord] = []
        self.user_failures: dict[int, int] = {}
        self.next_stop_check, self.checked_records = self.policy.window_start, 0
        self.abort_reason: str | None = None
        self.stop_reason: str | None = None

    def _request_shapes(self, scenario: Scenario, phase: str) -> Iterator[RequestShape]:
        arrival = self.workload.arrival if self.load_point.rate else ""
        return draw_shapes(scenario, seed=self.workload.seed, phase=phase, arrival=arrival)

    def run(self) -> Observation:
        """Step from event to event until no request is in flight or due."""
        counters_before = replace(self.scheduler.counters)
        self.on_phase("warming-up")
        now, scheduler, is_measuring = self.start_time, self.scheduler, False
        while not (self.abort_reason or self.stop_reason):
            now = self._send_due(now)
            if not is_measuring and now >= self.policy.window_start:
                is_measuring = True
                self.on_phase("measuring")
            is_drained = not self.in_flight and self._next_send_time == math.inf
            if is_drained or self.policy.is_complete(now):
                break
            until = min(self._next_send_time, self._next_timeout(), self.policy.remaining_window_end(now))
            now, finished = scheduler.run(now, until)
            was_full = len(self.in_flight) == self.max_in_flight
            for request in finished:
                self._complete(request, now)
            self._expire_requests(now)
            if was_full and len(self.in_flight) != self.max_in_flight:
                self.slot_freed_time = now
            self._check_stop_rule(now)
        cut_off = sum(not sent.is_warmup for sent in self.in_flight.values())
        _, window_end = self._window(now)
        for request, sent in self.in_flight.items():
            scheduler.abort(request)
            token_times = scheduler.token_times(request)
            if sent.is_warmup and not self.abort_reason and sent.sent_time < window_end:
                self._record(sent, now, token_times, error=CUT_OFF_ERROR)
        self.server.clock = now
        counters, due_requests = scheduler.counters, self._scheduled_requests(now)
        return Observation(
            load_point=self.load_point,
            records=tuple(sorted(self.records, key=lambda record: record.sent)),
            window=self._window(now),
            loop_lag_p99=0.0,
            counters={
                "prefix_cache_queries": counters.prefix_query_tokens - counters_before.prefix_query_tokens,
                "prefix_cache_hits": counters.prefix_hit_tokens - counters_before.prefix_hit_tokens,
                "preemptions": counters.preemptions - counters_before.preemptions,
            },
            cut_off_requests=cut_off,
            abort_reason=self.abort_reason,
            stop_reason=self.stop_reason or arrivals.trace_end_reason(self.load_point, self.workload, due_requests),
            due_requests=due_requests,
            held_back_requests=self.held_back_requests if self.max_in_flight else None,
            nonstationary_arrivals=self.nonstationary_arrivals,
        )

    @property
    def _next_send_time(self) -> float:
        """When the next request can be sent; infinity if none is due or `max_in_flight` is reached."""
        return math.inf if len(self.in_flight) == self.max_in_flight else self.send_schedule.next_due

    def _scheduled_requests(self, now: float) -> int | None:
        """Requests that an open loop scheduled in the window; None for a closed loop."""
        start, end = self._window(now)
        return arrivals.count_in_window(self.load_point, self.workload, end - start) if self.load_point.rate else None

    def _window(self, now: float) -> tuple[float, float]:
        """Start and end of the measured window if the load point ends at `now`."""
        stopped, gave_up = self.stop_reason is not None, self.abort_reason is not None
        start, end = self.policy.window(now, ended_early=stopped, gave_up=gave_up)
        if stopped:
            unfinished_due = (sent.due_time for sent in self.in_flight.values() if not sent.is_warmup)
            end = max(start, complete_until(end, unfinished_due))
        return start, end

    def _send_due(self, now: float) -> float:
        """Send the requests that are due; an idle engine first skips to the next due time or the window's end."""
        if self.scheduler.is_idle and self._next_send_time < math.inf:
            now = max(now, min(self._next_send_time, self.policy.remaining_window_end(now)))
        while self._next_send_time <= now:
            due_time, user = self.send_schedule.pop()
            index = self.policy.issued_count
            counted = self.policy.issue(due_time)
            if counted is None:
                self.send_schedule.stop()
            else:
                self._issue_request(due_time, now, user, index if counted else None)
        return now

    def _issue_request(self, due_time: float, now: float, user: int, index: int | None) -> None:
        """Send the request due at `due_time`: number `index` of the window, None for one that does not count."""
        is_warmup = index is None
        was_held_back = due_time < self.slot_freed_time
        self.held_back_requests += was_held_back and not is_warmup
        sent_time = now if was_held_back else due_time
        if self.conversation:
            position = self.user_turns[user]
            shape = RequestShape(*self.conversation.turn_lengths(position.turn, position.conversation))
        else:
            shape = next(self.warmup_shapes if is_warmup else self.window_shapes)
        prompt_tokens, output_tokens, _ = shape
        if index is None:
            self.uncounted_requests += 1
            index = -self.uncounted_requests
        sent = _InFlightRequest(index, sent_time, prompt_tokens, output_tokens, user, due_time)
        if prompt_tokens + output_tokens > self.server.started_engine.limits.max_model_len:
            self._fail(sent, sent_time + TURNAROUND_SECONDS, "http-400")
            return
        fault = self.server.faults.draw(output_tokens)
        if fault.crash:
            message = "Segmentation fault (simulated, as --fault-crash-after asked)"
            raise EngineDiedError(CRASH_STATUS, message, sent_time - self.start_time)
        if fault.hang:
            message = "hanging as --fault-hang-after asked: no token from here on"
            raise EngineDiedError(None, message, sent_time + self.workload.request_timeout - self.start_time)
        if fault.status:
            self._fail(sent, sent_time + TURNAROUND_SECONDS, f"http-{fault.status}")
            return
        sent.malformed = fault.malformed
        prompt_hashes = self._prompt_hashes(shape, user, index, is_warmup=is_warmup)
        request = ScheduledRequest(prompt_tokens, fault.stop_length or output_tokens, prompt_hashes, sent_time)
        self.in_flight[request] = sent
        self.scheduler.add(request)

    def _prompt_hashes(self, shape: RequestShape, user: int, index: int, *, is_warmup: bool) -> Sequence[Hashable]:
        """Block hashes of a prompt: its user's conversation so far, or what it shares and unique blocks.

        With a `prompt_salt`, request `index` of every load point with that salt has the same prompt.
        """
        limits = self.server.started_engine.limits
        if not limits.prefix_caching:
            return ()
        block_count = shape.prompt_tokens // limits.block_size
        if self.workload.prompt_salt is not None:
            return [(self.workload.prompt_salt, index, block) for block in range(block_count)]
        if self.conversation:
            conversation_ids = self.user_block_ids.setdefault(user, [])
            conversation_ids += self.server.unique_block_ids(block_count - len(conversation_ids))
            return tuple(conversation_ids)
        if shape.block_ids:
            shared = self._trace_block_hashes(shape.block_ids, block_count, self.trace_block_salts[is_warmup])
            return [*shared, *self.server.unique_block_ids(block_count - len(shared))]
        unique_ids = self.server.unique_block_ids(max(0, block_count - len(self.shared_prefix_ids)))
        return [*self.shared_prefix_ids[:block_count], *unique_ids] if self.shared_prefix_ids else unique_ids

    def _trace_block_hashes(self, block_ids: Sequence[int], block_count: int, salt: int) -> list[Hashable]:
        """Hashes of the engine's blocks that lie within blocks of the trace: equal where all of those are."""
        size, tokens = self.server.started_engine.limits.block_size, self.trace_block_tokens
        shared_count = min(block_count, len(block_ids) * tokens // size)
        return [
            (salt, block, *block_ids[block * size // tokens : ((block + 1) * size - 1) // tokens + 1])
            for block in range(shared_count)
        ]

    def _complete(self, request: ScheduledRequest, now: float) -> None:
        sent = self.in_flight.pop(request)
        token_times = self.scheduler.token_times(request)
        if sent.malformed:
            self._fail(sent, now, "malformed", token_times[:1])
            return
        self.policy.finish(None, now, counted=not sent.is_warmup)
        self.user_failures.pop(sent.user, None)
        finish_reason = "length" if len(token_times) == sent.output_tokens else "stop"
        self._record(sent, now, token_times, finish_reason=finish_reason)
        if self.conversation:
            self._continue_conversation(sent.user)
        self.send_schedule.resume(sent.user, now + TURNAROUND_SECONDS)

    def _continue_conversation(self, user: int, *, failed: bool = False) -> None:
        """Continue a user's conversation, or start another after the last turn or a failed one."""
        assert self.conversation is not None
        position = self.user_turns[user]
        position.turn += 1
        if failed or position.turn == len(self.conversation.turns_of(position.conversation)):
            position.conversation += self.load_point.concurrency or 1
            position.turn = 0
            self.user_block_ids.pop(user, None)

    def _fail(
        self, sent: _InFlightRequest, end_time: float, error: str, token_times: array[float] | None = None
    ) -> None:
        self._record(sent, end_time, token_times or array("d"), error=error)
        if self.conversation:
            self._continue_conversation(sent.user, failed=True)
        self.policy.finish(error, end_time, counted=not sent.is_warmup)
        failures = self.user_failures[sent.user] = self.user_failures.get(sent.user, -1) + 1
        self.send_schedule.resume(sent.user, end_time + retry_pause(failures))
        if self.policy.gives_up(error, end_time, (other.sent_time for other in self.in_flight.values())):
            self.abort_reason = self.policy.give_up_reason(error)

    def _record(
        self,
        sent: _InFlightRequest,
        end_time: float,
        token_times: array[float],
        *,
        finish_reason: str | None = None,
        error: str | None = None,
    ) -> None:
        if sent.is_warmup and error is None and end_time <= self.policy.window_start:
            return
        tokens = len(token_times)
        record = RequestRecord(
            index=sent.index,
            scheduled=sent.due_time,
            sent=sent.sent_time,
            finished=end_time,
            chunk_times=token_times,
            chunk_tokens=ONE_TOKEN_CHUNKS[:tokens] if tokens <= len(ONE_TOKEN_CHUNKS) else array("I", [1]) * tokens,
            requested_prompt=sent.prompt_tokens,
            requested_output=sent.output_tokens,
            prompt_tokens=None if error else sent.prompt_tokens,
            output_tokens=None if error else tokens,
            first_output=token_times[0] if tokens else None,
            finish_reason=finish_reason,
            error=error,
        )
        self.records.append(record)
        if not sent.is_warmup:
            self.window_records.append(record)

    def _next_timeout(self) -> float:
        oldest = next(iter(self.in_flight.values()), None)
        return math.inf if oldest is None else oldest.sent_time + self.workload.request_timeout

    def _expire_requests(self, now: float) -> None:
        while (timeout := self._next_timeout()) <= now:
            request, sent = next(iter(self.in_flight.items()))
            del self.in_flight[request]
            self.scheduler.abort(request)
            self._fail(sent, timeout, "timeout", self.scheduler.token_times(request))

    def _check_stop_rule(self, now: float) -> None:
        """Evaluate the stop rule on the finished requests, as often as the load generator does."""
        if self.stop_rule is None or now < self.next_stop_check or len(self.window_records) == self.checked_records:
            return
        self.next_stop_check, self.checked_records = now + STOP_CHECK_SECONDS, len(self.window_records)
        self.stop_reason = self.stop_rule(self.window_records)


class SendSchedule:
    """When the next request is due: after the previous one of its user, or at the times of an open loop.

    A closed loop has one user per request in flight, an open loop a single user 0.
    """

    def __init__(self, start_time: float, load_step: LoadStep) -> None:
        workload, point = load_step.workload, load_step.load_point
        self._due_users: list[tuple[float, int]] = []
        self._arrivals: Iterator[float] | None = None
        if point.concurrency is None:
            self._arrivals = (start_time + offset for offset in arrivals.offsets(point, workload))
            heappush(self._due_users, (next(self._arrivals, math.inf), 0))
            return
        for user in range(point.concurrency):
            heappush(self._due_users, (start_time + start_offset(user, point.concurrency, workload), user))

    @property
    def next_due(self) -> float:
        """When the next request is due; infinity if none is."""
        return self._due_users[0][0] if self._due_users else math.inf

    def pop(self) -> tuple[float, int]:
        """Remove and return the next request's due time and user."""
        next_request = heappop(self._due_users)
        if self._arrivals is not None:
            heappush(self._due_users, (next(self._arrivals, math.inf), 0))
        return next_request

    def resume(self, user: int, due_time: float) -> None:
        """Let a user of a closed loop send its next request at `due_time`."""
        if self._arrivals is None:
            heappush(self._due_users, (due_time, user))

    def stop(self) -> None:
        """Drop the arrivals of an open loop; a user of a closed loop stops when it is not resumed."""
        if self._arrivals is not None:
            self._due_users.clear()
