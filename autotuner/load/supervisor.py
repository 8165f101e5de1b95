"""`measure`: one load point in processes of its own, from job to observation."""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

from autotuner.core import CUT_OFF, LoadPoint, Observation, RequestRecord, StopRule, Workload
from autotuner.errors import ConfigError
from autotuner.load import worker_protocol
from autotuner.load.counters import differences, read_counters
from autotuner.load.job import Endpoint, Job, request_head
from autotuner.load.worker_count import workers
from autotuner.load.worker_process import WorkerProcess, started
from autotuner.workload import arrivals

_ASKING_SECONDS = 0.25
_LAST_SECONDS = 30.0
_TOGETHER_SECONDS = 0.05


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a load point; `observation` is what was seen until then, None when no request had ended."""

    def __init__(self, observation: Observation | None) -> None:
        super().__init__()
        self.observation = observation


def measure(
    endpoint: Endpoint,
    load_point: LoadPoint,
    workload: Workload,
    *,
    salt: str,
    on_phase: Callable[[str], None],
    enough: StopRule | None = None,
) -> Observation:
    """Drive `load_point` on a running server and bring back its raw records.

    The window lasts `workload.duration` or, with `enough`, up to `workload.longest`.

    `salt` sets this run's prompts apart from every other run's. `on_phase` gets "warming-up" and
    "measuring". `enough` is asked a few times a second while requests of the window end; with its
    first reason the window ends, what is in flight is cut off, and the observation is `decided`.
    A ramp and a trace are driven to their end, for no part of them stands for the whole. What the
    server does wrong is counted in the records, never raised; ConfigError: the scenario, the
    arrival or the address is not one, or chat prompts would be all alike; MachineError: a worker
    process died; Interrupted: Ctrl-C, with what was seen until then.

    The records are those sent in the window, and those of the warm-up that were still running when
    it began: their tokens count towards throughput, their latencies do not. Those of the warm-up
    have an index below 0; what failed in the warm-up is kept too.
    """
    workload = arrivals.bounded(load_point, workload.at(load_point))
    arrivals.check(workload)
    request_head(endpoint, workload.endpoint)
    changing = load_point.rate is not None and workload.arrival.startswith(arrivals.CHANGING)
    if changing or enough is None:
        enough, workload = None, replace(workload, longest=None)
    base = endpoint.address.base
    before = read_counters(base, headers=endpoint.headers)
    with tempfile.TemporaryDirectory(prefix=f"autotune-load-{os.getpid()}-") as folder:
        parts = workers(load_point, workload)
        jobs = [Job(endpoint, workload, salt, f"{folder}/{part}", part, parts) for part in range(parts)]
        with _all_started(jobs) as processes:
            run = _Supervision(processes, on_phase, enough)
            try:
                run.attend()
            except KeyboardInterrupt as interrupt:
                run.break_off()
                answered = any(record.error != CUT_OFF for record in run.records)
                seen = run.observation(workload, {}) if run.ended and answered else None
                raise Interrupted(seen) from interrupt
    return run.observation(workload, differences(before, read_counters(base, headers=endpoint.headers)))


@contextlib.contextmanager
def _all_started(jobs: list[Job]) -> Iterator[list[WorkerProcess]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(started(job)) for job in jobs]


class _Supervision:
    """One load point as the parent sees it: what the workers said, and the records as they are written."""

    def __init__(
        self, processes: list[WorkerProcess], on_phase: Callable[[str], None], enough: StopRule | None
    ) -> None:
        self.processes = processes
        self.on_phase = on_phase
        self.enough = enough
        self.records: list[RequestRecord] = []
        self.window: list[RequestRecord] = []
        self.phase = ""
        self.reason: str | None = None

    @property
    def ended(self) -> bool:
        """Whether every worker has said how it went."""
        return all(process.outcome is not None for process in self.processes)

    def attend(self, limit: float = math.inf) -> None:
        """Listen until the workers have ended, and ask the rule meanwhile."""
        deadline = monotonic() + limit
        with selectors.DefaultSelector() as selector:
            for process in self.processes:
                if process.outcome is None:
                    selector.register(process, selectors.EVENT_READ, process)
            while not self.ended and monotonic() < deadline:
                asking = self.enough is not None and self.reason is None and self.phase == "measuring"
                heard = selector.select(_ASKING_SECONDS if asking or limit < math.inf else None)
                for key, _ in heard:
                    for message in key.data.hear():
                        self._take(key.data, message)
                    if key.data.outcome is not None:
                        selector.unregister(key.data)
                if asking and not heard:
                    self._ask()
        self._read()

    def break_off(self) -> None:
        """Stop the workers and take what there is; before the window there is nothing."""
        if self.phase == "measuring":
            self.enough = None
            self._tell_all(worker_protocol.stop())
            self.attend(_LAST_SECONDS)

    def observation(self, workload: Workload, counters: Mapping[str, float]) -> Observation:
        """Merge what the workers brought back."""
        outcomes = [process.outcome for process in self.processes if process.outcome is not None]
        point = workload.load_points[0]
        start = min(outcome["window"][0] for outcome in outcomes)
        end = max(outcome["window"][1] for outcome in outcomes)
        halted = any(outcome["halted"] for outcome in outcomes)
        decided = self.reason if halted else None
        if halted:
            end = max(start, min(outcome["settled"] for outcome in outcomes))
        open_loop = point.rate is not None
        bounded = open_loop and workload.max_in_flight is not None
        due = arrivals.in_window(point, workload, end - start) if open_loop else None
        return Observation(
            load_point=point,
            records=tuple(sorted(self.records, key=lambda record: record.sent)),
            window=(start, end),
            loop_lag_p99=max(outcome["loop_lag_p99"] for outcome in outcomes),
            loop_lag_mean=_worst(outcome["loop_lag_mean"] for outcome in outcomes),
            client_cpu=_worst(outcome["cpu"] for outcome in outcomes),
            counters=counters,
            cut_off=sum(outcome["cut_off"] for outcome in outcomes),
            ended_early=next((outcome["ended_early"] for outcome in outcomes if outcome["ended_early"]), None),
            decided=decided or arrivals.exhausted(point, workload, due),
            due=due,
            held_back=sum(outcome["held_back"] for outcome in outcomes) if bounded else None,
            changing=open_loop and workload.arrival.startswith(arrivals.CHANGING),
        )

    def _take(self, process: WorkerProcess, message: dict[str, Any]) -> None:
        match message:
            case {"refused": error}:
                raise ConfigError(**error)
            case {"fit": found}:
                self._tell_all(worker_protocol.fit(found))
            case {"ready": _}:
                process.ready = True
                if all(other.ready for other in self.processes):
                    together = _TOGETHER_SECONDS if len(self.processes) > 1 else 0.0
                    self._tell_all(worker_protocol.start(monotonic() + together))
            case {"phase": phase} if process is self.processes[0]:
                self.phase = phase
                self.on_phase(phase)
            case {"outcome": outcome}:
                process.outcome = outcome
                if outcome["ended_early"]:
                    self._tell_all(worker_protocol.stop())

    def _ask(self) -> None:
        """Tell the workers to stop when the rule has a reason; it is asked when a request has ended since."""
        if self.enough is not None and self._read():
            self.reason = self.enough(self.window)
            if self.reason is not None:
                self._tell_all(worker_protocol.stop())

    def _read(self) -> bool:
        """Take in the records written since, and say whether the window has more."""
        fresh = [record for process in self.processes for record in process.fresh_records()]
        self.records += fresh
        ended = [record for record in fresh if record.index >= 0]
        self.window += ended
        if len(self.processes) > 1:
            self.window.sort(key=lambda record: record.finished)
        return bool(ended)

    def _tell_all(self, order: str) -> None:
        for process in self.processes:
            process.tell(order)


def _worst(figures: Iterable[float | None]) -> float | None:
    return max((figure for figure in figures if figure is not None), default=None)
