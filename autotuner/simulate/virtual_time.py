"""The simulated engine in virtual time: a load point is driven as the load generator drives it, without waiting.

No process, no HTTP, no clock: equal settings and seeds give equal records.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from autotuner.core import CUT_OFF, LoadStep, Observation, RequestRecord
from autotuner.simulate.fast_scheduler import FastScheduler
from autotuner.simulate.faults import CRASH_STATUS, FaultPlan
from autotuner.simulate.scheduler import Request
from autotuner.simulate.settings import Settings
from autotuner.simulate.world import World
from autotuner.workload import arrivals, scenarios
from autotuner.workload.requests import lengths
from autotuner.workload.scenarios import Conversation, Scenario

TURNAROUND = 0.0002
"""Seconds from a response's last token to the next request of its lane in the engine."""
LONGEST_RAMP = 2.0
"""Seconds over which the lanes of a closed loop begin at most."""
ASKING_SECONDS = 0.25
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
PATIENCE = 5
"""Failures in a row, and nothing that ever worked, after which a load point is given up."""

ONES = array("I", [1]) * 4096


class EngineDiedError(Exception):
    """The engine ended, or hangs where `status` is None, `seconds` after the load point began."""

    def __init__(self, status: int | None, said: str, seconds: float) -> None:
        super().__init__(said)
        self.status = status
        self.seconds = seconds


class VirtualServer:
    """One launched engine: its scheduler, prefix cache, faults and clock last from load point to load point."""

    def __init__(self, settings: Settings, world: World) -> None:
        self.world = world
        self.scheduler = FastScheduler(world.limits, world.times.step, world.times.decoding)
        self.faults = FaultPlan(settings.faults, settings.seed)
        self.clock = 0.0
        self.blocks = count()

    def drive(self, step: LoadStep, on_phase: Callable[[str], None] = lambda phase: None) -> Observation:
        """Serve one load point and return what the load generator would have seen.

        The clock ends where the last request did. EngineDiedError: a fault that was asked for.
        """
        return _Drive(self, step, on_phase).run()

    def identities(self, blocks: int) -> range:
        """Names for so many blocks of prompt that no other prompt shares."""
        first = next(self.blocks)
        self.blocks = count(first + blocks + 1)
        return range(first, first + blocks)


@dataclass(slots=True)
class _Sent:
    """A request on its way, as the client keeps it."""

    index: int
    at: float
    prompt: int
    output: int
    lane: int
    due: float
    malformed: bool = False

    @property
    def warmup(self) -> bool:
        return self.index < 0


class _Drive:
    """One load point: the rules of `load.driver` and `load.loops`, on the scheduler's clock."""

    def __init__(self, server: VirtualServer, step: LoadStep, on_phase: Callable[[str], None]) -> None:
        self.server, self.scheduler, self.step = server, server.scheduler, step
        self.point = step.load_point
        self.workload = arrivals.bounded(self.point, step.workload)
        self.on_phase = on_phase
        scenario = scenarios.parse(self.point.scenario)
        self.shared = server.identities(scenario.prefix // server.world.limits.block_size)
        self.talk = scenario if isinstance(scenario, Conversation) else None
        self.turns = {lane: lane % self.talk.turns for lane in range(self.point.concurrency or 0)} if self.talk else {}
        self.told: dict[int, list[int]] = {}
        self.warm, self.cold = self._lengths(scenario, "warm-up"), self._lengths(scenario, "window")
        self.start = server.clock
        self.window_start = self.start + self.workload.warmup
        self.most = self.workload.max_requests or math.inf
        self.changing = self.point.rate is not None and self.workload.arrival.startswith(arrivals.CHANGING)
        self.enough = None if self.changing else step.enough
        self.window_end = self.window_start + (self.workload.limit if self.enough else self.workload.duration)
        self.bound = self.workload.max_in_flight if self.point.rate else None
        self.held_back, self.freed_at = 0, -math.inf
        self.issued, self.others, self.unfinished = 0, 0, 0
        self.sends = Sends(self.start, step)
        self.on_their_way: dict[Request, _Sent] = {}
        self.records: list[RequestRecord] = []
        self.ended: list[RequestRecord] = []
        self.failures: dict[int, int] = {}
        self.in_a_row, self.worked = 0, False
        self.last_finished = 0.0
        self.asked_at, self.asked_of = self.window_start, 0
        self.given_up: str | None = None
        self.decided: str | None = None

    def _lengths(self, scenario: Scenario, phase: str) -> Iterator[tuple[int, int]]:
        arrival = self.workload.arrival if self.point.rate else ""
        return lengths(scenario, seed=self.workload.seed, phase=phase, arrival=arrival)

    def run(self) -> Observation:
        """Go from one event to the next until nothing is sent and nothing on its way."""
        before = self.scheduler.counters
        queries, hits, preemptions = before.prefix_queries, before.prefix_hits, before.preemptions
        self.on_phase("warming-up")
        now, scheduler, measuring = self.start, self.scheduler, False
        while not (self.given_up or self.decided):
            now = self._send(now)
            if (not self.on_their_way and self._due == math.inf) or (self._is_full(now) and not self.unfinished):
                break
            if not measuring and now >= self.window_start:
                measuring = True
                self.on_phase("measuring")
            now, finished = scheduler.run(now, min(self._due, self._patience_ends()))
            full = len(self.on_their_way) == self.bound
            for request in finished:
                self._answered(request, now)
            self._time_out(now)
            if full and len(self.on_their_way) != self.bound:
                self.freed_at = now
            self._ask(now)
        cut_off = sum(not sent.warmup for sent in self.on_their_way.values())
        _, end = self._window(now)
        for request, sent in self.on_their_way.items():
            scheduler.abort(request)
            times = scheduler.token_times(request)
            if sent.warmup and not self.given_up and sent.at < end:
                self._book(sent, now, times, error=CUT_OFF)
        self.server.clock = now
        after, due = scheduler.counters, self._scheduled(now)
        return Observation(
            load_point=self.point,
            records=tuple(sorted(self.records, key=lambda record: record.sent)),
            window=self._window(now),
            loop_lag_p99=0.0,
            counters={
                "prefix_cache_queries": after.prefix_queries - queries,
                "prefix_cache_hits": after.prefix_hits - hits,
                "preemptions": after.preemptions - preemptions,
            },
            cut_off=cut_off,
            ended_early=self.given_up,
            decided=self.decided or arrivals.exhausted(self.point, self.workload, due),
            due=due,
            held_back=self.held_back if self.bound else None,
            changing=self.changing,
        )

    def _is_full(self, when: float) -> bool:
        """Whether all requests of the window have been issued."""
        return when >= self.window_end or self.issued >= self.most

    @property
    def _due(self) -> float:
        """When the next request can go out; infinity when none is due or none may be added."""
        return math.inf if len(self.on_their_way) == self.bound else self.sends.next

    def _scheduled(self, now: float) -> int | None:
        start, end = self._window(now)
        return arrivals.in_window(self.point, self.workload, end - start) if self.point.rate else None

    def _window(self, now: float) -> tuple[float, float]:
        start, end = self.window_start, self.window_end
        if self.decided:
            running = (sent.due for sent in self.on_their_way.values() if not sent.warmup)
            end = min([end, now, *(math.nextafter(due, 0.0) for due in running)])
        elif self.given_up:
            end = min(end, now)
            if now < start:
                start = self.start
        elif self.issued >= self.most:
            end = min(end, self.last_finished)
        return start, max(start, end)

    def _send(self, now: float) -> float:
        """Send what is due; with nothing in the engine, go to when the next is."""
        if self.scheduler.idle and self._due < math.inf:
            now = max(now, self._due)
        while self._due <= now:
            when, lane = self.sends.pop()
            if self._is_full(when) and not self.unfinished:
                self.sends.stop(lane)
            else:
                self._issue(when, now, lane)
        return now

    def _issue(self, due: float, now: float, lane: int) -> None:
        warmup = due < self.window_start or self._is_full(due)
        late = due < self.freed_at
        self.held_back += late and not warmup
        when = now if late else due
        prompt, output = self.talk.turn(self.turns[lane]) if self.talk else next(self.warm if warmup else self.cold)
        if warmup:
            self.others += 1
            index = -self.others
        else:
            index, self.issued, self.unfinished = self.issued, self.issued + 1, self.unfinished + 1
        sent = _Sent(index, when, prompt, output, lane, due)
        if prompt + output > self.server.world.limits.max_model_len:
            self._failed(sent, when + TURNAROUND, "http-400")
            return
        fate = self.server.faults.next(output)
        if fate.crash:
            said = "Segmentation fault (simulated, as --fault-crash-after asked)"
            raise EngineDiedError(CRASH_STATUS, said, when - self.start)
        if fate.hang:
            said = "hanging as --fault-hang-after asked: no token from here on"
            raise EngineDiedError(None, said, when + self.workload.request_timeout - self.start)
        if fate.status:
            self._failed(sent, when + TURNAROUND, f"http-{fate.status}")
            return
        sent.malformed = fate.malformed
        request = Request(prompt, fate.stop_at or output, self._hashes(prompt, lane), when)
        self.on_their_way[request] = sent
        self.scheduler.add(request)

    def _hashes(self, prompt: int, lane: int) -> Sequence[Hashable]:
        limits = self.server.world.limits
        if not limits.prefix_caching:
            return ()
        blocks = prompt // limits.block_size
        if self.talk:
            told = self.told.setdefault(lane, [])
            told += self.server.identities(blocks - len(told))
            return tuple(told)
        own = self.server.identities(max(0, blocks - len(self.shared)))
        return [*self.shared[:blocks], *own] if self.shared else own

    def _answered(self, request: Request, now: float) -> None:
        sent = self.on_their_way.pop(request)
        times = self.scheduler.token_times(request)
        if sent.malformed:
            self._failed(sent, now, "malformed", times[:1])
            return
        self.worked, self.in_a_row = True, 0
        self.failures.pop(sent.lane, None)
        self._book(sent, now, times, reason="length" if len(times) == sent.output else "stop")
        if self.talk:
            self._go_on(sent.lane, self.turns[sent.lane] + 1)
        self.sends.again(sent.lane, now + TURNAROUND)

    def _go_on(self, lane: int, turn: int) -> None:
        """Let a lane's conversation go on with `turn`, or another one begin."""
        assert self.talk is not None
        self.turns[lane] = turn % self.talk.turns
        if not self.turns[lane]:
            self.told.pop(lane, None)

    def _failed(self, sent: _Sent, at: float, error: str, times: array[float] | None = None) -> None:
        self._book(sent, at, times or array("d"), error=error)
        if self.talk:
            self._go_on(sent.lane, 0)
        self.in_a_row += 1
        failures = self.failures[sent.lane] = self.failures.get(sent.lane, -1) + 1
        self.sends.again(sent.lane, at + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10)))
        patient = self.in_a_row < max(PATIENCE, self.point.concurrency or 0)
        if not patient and (not self.worked or error == "timeout"):
            self.given_up = f"The last {self.in_a_row} requests failed: {error}."

    def _book(
        self, sent: _Sent, at: float, times: array[float], *, reason: str | None = None, error: str | None = None
    ) -> None:
        if sent.warmup and error is None and at <= self.window_start:
            return
        tokens = len(times)
        record = RequestRecord(
            index=sent.index,
            scheduled=sent.due,
            sent=sent.at,
            finished=at,
            chunk_times=times,
            chunk_tokens=ONES[:tokens] if tokens <= len(ONES) else array("I", [1]) * tokens,
            requested_prompt=sent.prompt,
            requested_output=sent.output,
            prompt_tokens=None if error else sent.prompt,
            output_tokens=None if error else tokens,
            first_output=times[0] if tokens else None,
            finish_reason=reason,
            error=error,
        )
        self.records.append(record)
        if not sent.warmup:
            self.unfinished -= 1
            self.ended.append(record)
            self.last_finished = max(self.last_finished, at)

    def _patience_ends(self) -> float:
        oldest = next(iter(self.on_their_way.values()), None)
        return math.inf if oldest is None else oldest.at + self.workload.request_timeout

    def _time_out(self, now: float) -> None:
        while (limit := self._patience_ends()) <= now:
            request, sent = next(iter(self.on_their_way.items()))
            del self.on_their_way[request]
            self.scheduler.abort(request)
            self._failed(sent, limit, "timeout", self.scheduler.token_times(request))

    def _ask(self, now: float) -> None:
        """Whether enough is known, as often as the load generator asks."""
        if self.enough is None or now < self.asked_at or len(self.ended) == self.asked_of:
            return
        self.asked_at, self.asked_of = now + ASKING_SECONDS, len(self.ended)
        self.decided = self.enough(self.ended)


class Sends:
    """When the next request goes out: after the last one of its lane, or as scheduled."""

    def __init__(self, start: float, step: LoadStep) -> None:
        workload, point = step.workload, step.load_point
        self._lanes: list[tuple[float, int]] = []
        self._schedule: Iterator[float] | None = None
        if point.concurrency is None:
            self._schedule = (start + offset for offset in arrivals.offsets(point, workload))
            heappush(self._lanes, (next(self._schedule, math.inf), 0))
            return
        ramp = min(workload.warmup / 2, LONGEST_RAMP)
        for lane in range(point.concurrency):
            heappush(self._lanes, (start + ramp * lane / point.concurrency, lane))

    @property
    def next(self) -> float:
        """When the next one is due; infinity when none is."""
        return self._lanes[0][0] if self._lanes else math.inf

    def pop(self) -> tuple[float, int]:
        """Take the next one: when it is due, and its lane."""
        due = heappop(self._lanes)
        if self._schedule is not None:
            heappush(self._lanes, (next(self._schedule, math.inf), 0))
        return due

    def again(self, lane: int, when: float) -> None:
        """Let a lane of a closed loop go on."""
        if self._schedule is None:
            heappush(self._lanes, (when, lane))

    def stop(self, lane: int) -> None:
        """Send nothing more on this lane."""
        if self._schedule is not None:
            self._lanes.clear()
