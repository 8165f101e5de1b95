"""Prefill and decode servers behind a router, in virtual time: the same roles as the servers over HTTP."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from heapq import heappop, heappush
from itertools import count

from autotuner.simulate.fast_scheduler import FastScheduler
from autotuner.simulate.hand_over import TransferLink, prompt_kv_bytes
from autotuner.simulate.scheduler import EngineCounters, ScheduledRequest
from autotuner.simulate.settings import SimulationSettings
from autotuner.simulate.started_engine import StartedEngine
from autotuner.simulate.virtual_time import VirtualServer


@dataclass(eq=False)
class _Server:
    """One server: its scheduler, whose clock stands at the end of its last iteration, and what is on its way to it.

    `arrivals` holds (time, tie-breaker, request) in a heap.
    """

    engine: StartedEngine
    link: TransferLink
    scheduler: FastScheduler
    clock: float = 0.0
    in_flight: int = 0
    arrivals: list[tuple[float, int, ScheduledRequest]] = field(default_factory=list)

    @property
    def next_time(self) -> float:
        """When its next iteration starts; infinity while it has nothing to do."""
        if not self.scheduler.is_idle:
            return self.clock
        return max(self.clock, self.arrivals[0][0]) if self.arrivals else math.inf

    def run(self, until: float) -> list[ScheduledRequest]:
        """Run iterations that start before `until`, at least one and at most up to one that finishes requests."""
        start = self.next_time
        while self.arrivals and self.arrivals[0][0] <= start:
            self.scheduler.add(heappop(self.arrivals)[2])
        if self.arrivals:
            until = min(until, self.arrivals[0][0])
        self.clock, finished = self.scheduler.run(start, max(until, math.nextafter(start, math.inf)))
        return finished

    def abort(self, request: ScheduledRequest) -> array[float]:
        """Drop a request that has not finished; returns when each of its tokens was emitted."""
        self.arrivals[:] = sorted(item for item in self.arrivals if item[2] is not request)
        return self.scheduler.token_times(request) if self.scheduler.abort(request) else array("d")


@dataclass(eq=False)
class _Stage:
    """Where a client's request is: the server, and the request that the server was given for it."""

    server: _Server
    request: ScheduledRequest


class DisaggregatedScheduler:
    """Stands for a scheduler, over several servers: a request finishes when its decode server has finished it."""

    def __init__(self, prefill: Sequence[_Server], decode: Sequence[_Server]) -> None:
        self._prefill = prefill
        self._decode = decode
        self._stages: dict[ScheduledRequest, _Stage] = {}
        self._clients: dict[ScheduledRequest, ScheduledRequest] = {}
        self._finished: list[tuple[float, int, ScheduledRequest]] = []
        self._token_times: dict[ScheduledRequest, array[float]] = {}
        self._numbers = count()

    @property
    def is_idle(self) -> bool:
        return not self._stages and not self._finished

    @property
    def counters(self) -> EngineCounters:
        """The totals of all servers."""
        names = [item.name for item in fields(EngineCounters)]
        each = [server.scheduler.counters for server in (*self._prefill, *self._decode)]
        return EngineCounters(**{name: sum(getattr(counters, name) for counters in each) for name in names})

    def add(self, request: ScheduledRequest) -> None:
        """Give a request to the prefill server with the fewest, at its arrival time."""
        prompt = ScheduledRequest(request.prompt_tokens, 1, request.prompt_hashes, request.arrival_time)
        self._give(request, prompt, self._prefill, request.arrival_time)

    def abort(self, request: ScheduledRequest) -> bool:
        """Drop a request wherever it is; False if it has finished."""
        stage = self._stages.pop(request, None)
        if stage is None:
            return False
        del self._clients[stage.request]
        stage.server.in_flight -= 1
        token_times = stage.server.abort(stage.request)
        self._token_times[request] = token_times if stage.server in self._decode else array("d")
        return True

    def token_times(self, request: ScheduledRequest) -> array[float]:
        """Return and forget when each token of a finished or aborted request was emitted."""
        return self._token_times.pop(request)

    def run(self, now: float, until: float) -> tuple[float, list[ScheduledRequest]]:
        """Run all servers in the order of their iterations, up to the first end of a request before `until`."""
        while True:
            server = min((*self._prefill, *self._decode), key=lambda server: server.next_time)
            next_time = server.next_time
            if self._finished and self._finished[0][0] <= next_time:
                end, _, request = heappop(self._finished)
                return max(now, end), [request]
            if next_time >= until or next_time == math.inf:
                return (now if self.is_idle else max(now, until)), []
            others = (other.next_time for other in (*self._prefill, *self._decode) if other is not server)
            finish_limit = self._finished[0][0] if self._finished else math.inf
            for stage_request in server.run(min(until, finish_limit, *others)):
                self._finish_stage(server, stage_request)

    def _give(
        self, client: ScheduledRequest, request: ScheduledRequest, servers: Sequence[_Server], time: float
    ) -> None:
        """Route a request to the server with the fewest in flight, in turn among equals, where it arrives at `time`."""
        number = next(self._numbers)
        first = number % len(servers)
        server = min((*servers[first:], *servers[:first]), key=lambda server: server.in_flight)
        server.in_flight += 1
        if servers is self._decode:
            source = self._stages[client].server
            sent = prompt_kv_bytes(source.engine.memory_plan, request.prompt_tokens)
            received = prompt_kv_bytes(server.engine.memory_plan, request.prompt_tokens)
            time = server.link.receive(time, max(sent, received))
        heappush(server.arrivals, (time, number, request))
        self._stages[client] = _Stage(server, request)
        self._clients[request] = client

    def _finish_stage(self, server: _Server, request: ScheduledRequest) -> None:
        """Hand a computed prompt over to a decode server, or note the end of a whole request."""
        client = self._clients.pop(request)
        server.in_flight -= 1
        assert request.finish_time is not None
        token_times = server.scheduler.token_times(request)
        if server in self._prefill:
            decoding = ScheduledRequest(
                client.prompt_tokens,
                client.output_tokens,
                client.prompt_hashes,
                request.finish_time,
                received_tokens=client.prompt_tokens - 1,
            )
            self._give(client, decoding, self._decode, request.finish_time)
            return
        del self._stages[client]
        client.first_token_time, client.finish_time = request.first_token_time, request.finish_time
        client.generated_tokens, client.cached_tokens = request.generated_tokens, request.cached_tokens
        self._token_times[client] = token_times
        heappush(self._finished, (request.finish_time, next(self._numbers), client))


class VirtualDeployment(VirtualServer):
    """Prefill and decode servers that `drive` serves load points on; the settings are those of each server."""

    def __init__(
        self,
        prefill: Sequence[tuple[SimulationSettings, StartedEngine]],
        decode: Sequence[tuple[SimulationSettings, StartedEngine]],
    ) -> None:
        settings, started_engine = decode[0]
        super().__init__(settings, started_engine)
        self.scheduler = DisaggregatedScheduler(
            [_server(*pair) for pair in prefill], [_server(*pair) for pair in decode]
        )


def _server(settings: SimulationSettings, engine: StartedEngine) -> _Server:
    times = engine.iteration_times
    return _Server(engine, TransferLink.of(settings), FastScheduler(engine.limits, times.step, times.decode_time))
