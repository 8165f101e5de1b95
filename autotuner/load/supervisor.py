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

from autotuner.core import CUT_OFF_ERROR, LoadPoint, Observation, RequestRecord, StopRule, Workload
from autotuner.errors import ConfigError
from autotuner.load import worker_protocol
from autotuner.load.counters import counter_deltas, read_counters
from autotuner.load.job import Endpoint, Job, request_head
from autotuner.load.worker_count import choose_worker_count
from autotuner.load.worker_process import WorkerProcess, start_worker
from autotuner.workload import arrivals

_STOP_RULE_INTERVAL_SECONDS = 0.25
_SHUTDOWN_TIMEOUT_SECONDS = 30.0
_START_DELAY_SECONDS = 0.05


class MeasurementInterrupted(KeyboardInterrupt):
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
    stop_rule: StopRule | None = None,
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
    workload = arrivals.limit_to_trace(load_point, workload.for_load_point(load_point))
    arrivals.check(workload)
    request_head(endpoint, workload.endpoint)
    changing = load_point.rate is not None and workload.arrival.startswith(arrivals.NONSTATIONARY_PREFIXES)
    if changing or stop_rule is None:
        stop_rule, workload = None, replace(workload, max_duration=None)
    base = endpoint.address.base_url
    before = read_counters(base, headers=endpoint.headers)
    with tempfile.TemporaryDirectory(prefix=f"autotune-load-{os.getpid()}-") as folder:
        parts = choose_worker_count(load_point, workload)
        jobs = [Job(endpoint, workload, salt, f"{folder}/{part}", part, parts) for part in range(parts)]
        with _start_workers(jobs) as processes:
            run = _Supervisor(processes, on_phase, stop_rule)
            try:
                run.wait()
            except KeyboardInterrupt as interrupt:
                run.interrupt()
                answered = any(record.error != CUT_OFF_ERROR for record in run.records)
                seen = run.observation(workload, {}) if run.all_ended and answered else None
                raise MeasurementInterrupted(seen) from interrupt
    return run.observation(workload, counter_deltas(before, read_counters(base, headers=endpoint.headers)))


@contextlib.contextmanager
def _start_workers(jobs: list[Job]) -> Iterator[list[WorkerProcess]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(start_worker(job)) for job in jobs]


class _Supervisor:
    """One load point as the parent sees it: what the workers said, and the records as they are written."""

    def __init__(
        self, workers: list[WorkerProcess], on_phase: Callable[[str], None], stop_rule: StopRule | None
    ) -> None:
        self.workers = workers
        self.on_phase = on_phase
        self.stop_rule = stop_rule
        self.records: list[RequestRecord] = []
        self.window_records: list[RequestRecord] = []
        self.phase = ""
        self.stop_reason: str | None = None

    @property
    def all_ended(self) -> bool:
        """Whether every worker has said how it went."""
        return all(process.outcome is not None for process in self.workers)

    def wait(self, timeout: float = math.inf) -> None:
        """Listen until the workers have ended, and ask the rule meanwhile."""
        deadline = monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            for process in self.workers:
                if process.outcome is None:
                    selector.register(process, selectors.EVENT_READ, process)
            while not self.all_ended and monotonic() < deadline:
                asking = self.stop_rule is not None and self.stop_reason is None and self.phase == "measuring"
                heard = selector.select(_STOP_RULE_INTERVAL_SECONDS if asking or timeout < math.inf else None)
                for key, _ in heard:
                    for message in key.data.receive():
                        self._handle(key.data, message)
                    if key.data.outcome is not None:
                        selector.unregister(key.data)
                if asking and not heard:
                    self._check_stop_rule()
        self._read_records()

    def interrupt(self) -> None:
        """Stop the workers and take what there is; before the window there is nothing."""
        if self.phase == "measuring":
            self.stop_rule = None
            self._send_all(worker_protocol.stop_command())
            self.wait(_SHUTDOWN_TIMEOUT_SECONDS)

    def observation(self, workload: Workload, counters: Mapping[str, float]) -> Observation:
        """Merge what the workers brought back."""
        outcomes = [process.outcome for process in self.workers if process.outcome is not None]
        point = workload.load_points[0]
        start = min(outcome["window"][0] for outcome in outcomes)
        end = max(outcome["window"][1] for outcome in outcomes)
        halted = any(outcome["halted"] for outcome in outcomes)
        decided = self.stop_reason if halted else None
        if halted:
            end = max(start, min(outcome["settled"] for outcome in outcomes))
        open_loop = point.rate is not None
        bounded = open_loop and workload.max_in_flight is not None
        due = arrivals.count_in_window(point, workload, end - start) if open_loop else None
        return Observation(
            load_point=point,
            records=tuple(sorted(self.records, key=lambda record: record.sent)),
            window=(start, end),
            loop_lag_p99=max(outcome["loop_lag_p99"] for outcome in outcomes),
            loop_lag_mean=_max_or_none(outcome["loop_lag_mean"] for outcome in outcomes),
            client_cpu=_max_or_none(outcome["cpu"] for outcome in outcomes),
            counters=counters,
            cut_off_requests=sum(outcome["cut_off"] for outcome in outcomes),
            abort_reason=next((outcome["ended_early"] for outcome in outcomes if outcome["ended_early"]), None),
            stop_reason=decided or arrivals.trace_end_reason(point, workload, due),
            due_requests=due,
            held_back_requests=sum(outcome["held_back"] for outcome in outcomes) if bounded else None,
            nonstationary_arrivals=open_loop and workload.arrival.startswith(arrivals.NONSTATIONARY_PREFIXES),
        )

    def _handle(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        match message:
            case {"refused": error}:
                raise ConfigError(**error)
            case {"fit": found}:
                self._send_all(worker_protocol.fit_command(found))
            case {"ready": _}:
                worker.is_ready = True
                if all(other.is_ready for other in self.workers):
                    together = _START_DELAY_SECONDS if len(self.workers) > 1 else 0.0
                    self._send_all(worker_protocol.start_command(monotonic() + together))
            case {"phase": phase} if worker is self.workers[0]:
                self.phase = phase
                self.on_phase(phase)
            case {"outcome": outcome}:
                worker.outcome = outcome
                if outcome["ended_early"]:
                    self._send_all(worker_protocol.stop_command())

    def _check_stop_rule(self) -> None:
        """Tell the workers to stop when the rule has a reason; it is asked when a request has ended since."""
        if self.stop_rule is not None and self._read_records():
            self.stop_reason = self.stop_rule(self.window_records)
            if self.stop_reason is not None:
                self._send_all(worker_protocol.stop_command())

    def _read_records(self) -> bool:
        """Take in the records written since, and say whether the window has more."""
        fresh = [record for process in self.workers for record in process.read_new_records()]
        self.records += fresh
        ended = [record for record in fresh if record.index >= 0]
        self.window_records += ended
        if len(self.workers) > 1:
            self.window_records.sort(key=lambda record: record.finished)
        return bool(ended)

    def _send_all(self, command: str) -> None:
        for process in self.workers:
            process.send(command)


def _max_or_none(figures: Iterable[float | None]) -> float | None:
    return max((figure for figure in figures if figure is not None), default=None)
