"""`measure`: drives one load point in worker processes and merges their results into an `Observation`."""

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

from autotuner.core import CUT_OFF_ERROR, EARLY_STOP_ERROR, LoadPoint, Observation, RequestRecord, StopRule, Workload
from autotuner.endpoints.address import Endpoint
from autotuner.endpoints.chat_token_fit import ChatTokenFit
from autotuner.endpoints.chat_tokens import fit_chat_tokens
from autotuner.endpoints.counters import counter_deltas, read_counters
from autotuner.load import worker_protocol
from autotuner.load.error_messages import readable_message
from autotuner.load.job import Job, request_head
from autotuner.load.worker_count import choose_worker_count
from autotuner.load.worker_process import WorkerProcess, start_worker
from autotuner.workload import arrivals
from autotuner.workload.client_policy import STOP_CHECK_SECONDS

_SHUTDOWN_TIMEOUT_SECONDS = 30.0
_START_DELAY_SECONDS = 0.05


class MeasurementInterrupted(KeyboardInterrupt):
    """Ctrl-C during a load point; `observation` is the part measured, None when no request had ended."""

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
    """Drive `load_point` on a running server and return its raw request records.

    The window lasts `workload.duration` seconds or, with `stop_rule`, up to `workload.max_duration`.
    `stop_rule` sees the finished requests of the window a few times a second; at its first reason the
    window ends, requests in flight are cut off, and the reason is the observation's `stop_reason`.
    Ramps and traces ignore it: they are not stationary, so a part does not represent the whole.

    `salt` keeps this run's prompts apart from every other run's, for the server's prefix cache.
    `on_phase` is called with "warming-up" and "measuring".

    Records are of requests sent in the window, and of warm-up requests still running when it began
    or failed before: these have a negative index, their tokens count towards throughput, and their
    latencies are ignored.

    Server errors are counted in the records and not raised. Raises ConfigError for a bad scenario,
    arrival or address, or when the model's tokenizer would make all chat prompts alike; MachineError
    when a worker process died; MeasurementInterrupted on Ctrl-C.
    """
    workload = arrivals.limit_to_trace(load_point, workload.for_load_point(load_point))
    arrivals.check(workload)
    request_head(endpoint, workload.endpoint)
    nonstationary = load_point.rate is not None and workload.arrival.startswith(arrivals.NONSTATIONARY_PREFIXES)
    if nonstationary or stop_rule is None:
        stop_rule, workload = None, replace(workload, max_duration=None)
    counters_before = read_counters(endpoint.url, headers=endpoint.headers, tls=endpoint.tls)
    with tempfile.TemporaryDirectory(prefix=f"autotune-load-{os.getpid()}-") as folder:
        has_words = workload.endpoint == "chat" or workload.request_form.prompts == "text"
        count = choose_worker_count(load_point, workload)
        fit = fit_chat_tokens(endpoint, workload) if has_words else ChatTokenFit()
        jobs = [Job(endpoint, workload, salt, f"{folder}/{index}", index, count, fit) for index in range(count)]
        with _start_workers(jobs) as workers:
            holds_length = workload.request_form.holds_length
            supervisor = _Supervisor(workers, on_phase, stop_rule, endpoint.headers, holds_length=holds_length)
            try:
                supervisor.wait()
            except KeyboardInterrupt as interrupt:
                supervisor.interrupt()
                any_finished = any(record.error != CUT_OFF_ERROR for record in supervisor.records)
                partial = supervisor.observation(workload, {}) if supervisor.all_ended and any_finished else None
                raise MeasurementInterrupted(partial) from interrupt
    counters = counter_deltas(counters_before, read_counters(endpoint.url, headers=endpoint.headers, tls=endpoint.tls))
    return supervisor.observation(workload, counters)


@contextlib.contextmanager
def _start_workers(jobs: list[Job]) -> Iterator[list[WorkerProcess]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(start_worker(job)) for job in jobs]


class _Supervisor:
    """The parent's side of a load point: handles the workers' messages and reads records as they are written.

    An answer that ends early is an error only where the requests asked for its whole length (`holds_length`);
    else the check of output lengths shows by how much.
    """

    def __init__(
        self,
        workers: list[WorkerProcess],
        on_phase: Callable[[str], None],
        stop_rule: StopRule | None,
        headers: Mapping[str, str],
        *,
        holds_length: bool = True,
    ) -> None:
        self.holds_length = holds_length
        self.workers = workers
        self.headers = headers
        self.on_phase = on_phase
        self.stop_rule = stop_rule
        self.records: list[RequestRecord] = []
        self.window_records: list[RequestRecord] = []
        self.phase = ""
        self.stop_reason: str | None = None

    @property
    def all_ended(self) -> bool:
        """Whether every worker has sent its outcome."""
        return all(worker.outcome is not None for worker in self.workers)

    def wait(self, timeout: float = math.inf) -> None:
        """Handle messages and check the stop rule until all workers have ended or `timeout` seconds passed."""
        deadline = monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            for worker in self.workers:
                if worker.outcome is None:
                    selector.register(worker, selectors.EVENT_READ, worker)
            while not self.all_ended and monotonic() < deadline:
                may_stop = self.stop_rule is not None and self.stop_reason is None and self.phase == "measuring"
                readable = selector.select(STOP_CHECK_SECONDS if may_stop or timeout < math.inf else None)
                for key, _ in readable:
                    for message in key.data.receive():
                        self._handle(key.data, message)
                    if key.data.outcome is not None:
                        selector.unregister(key.data)
                if may_stop and not readable:
                    self._check_stop_rule()
        self._read_records()

    def interrupt(self) -> None:
        """Stop the workers and wait for their outcomes; in the warm-up there is nothing to wait for."""
        if self.phase == "measuring":
            self.stop_rule = None
            self._send_all(worker_protocol.stop_command())
            self.wait(_SHUTDOWN_TIMEOUT_SECONDS)

    def observation(self, workload: Workload, counters: Mapping[str, float]) -> Observation:
        """Merge the workers' outcomes and records."""
        outcomes = [worker.outcome for worker in self.workers if worker.outcome is not None]
        point = workload.load_points[0]
        start = min(outcome["window"][0] for outcome in outcomes)
        end = max(outcome["window"][1] for outcome in outcomes)
        halted = any(outcome["halted"] for outcome in outcomes)
        if halted:
            # requests due after this instant may be unfinished, and the slow ones would be missing
            end = max(start, min(outcome["complete_until"] for outcome in outcomes))
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
            stop_reason=(self.stop_reason if halted else None) or arrivals.trace_end_reason(point, workload, due),
            due_requests=due,
            held_back_requests=sum(outcome["held_back"] for outcome in outcomes) if bounded else None,
            retry_after=_max_or_none(outcome["retry_after"] for outcome in outcomes),
            nonstationary_arrivals=open_loop and workload.arrival.startswith(arrivals.NONSTATIONARY_PREFIXES),
            error_messages=self._error_messages(),
        )

    def _error_messages(self) -> dict[str, str]:
        """One message for each error class, as it may be shown."""
        messages: dict[str, str] = {}
        for worker in self.workers:
            for error, message in worker.error_messages.items():
                messages.setdefault(error, readable_message(message, self.headers))
        return messages

    def _handle(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        match message:
            case {"ready": _}:
                worker.is_ready = True
                if all(other.is_ready for other in self.workers):
                    delay = _START_DELAY_SECONDS if len(self.workers) > 1 else 0.0
                    self._send_all(worker_protocol.start_command(monotonic() + delay))
            case {"phase": phase} if worker is self.workers[0]:
                self.phase = phase
                self.on_phase(phase)
            case {"outcome": outcome}:
                worker.outcome = outcome
                if outcome["ended_early"]:
                    self._send_all(worker_protocol.stop_command())

    def _check_stop_rule(self) -> None:
        """Stop the workers when the rule gives a reason; it is only called after further requests have ended."""
        if self.stop_rule is not None and self._read_records():
            self.stop_reason = self.stop_rule(self.window_records)
            if self.stop_reason is not None:
                self._send_all(worker_protocol.stop_command())

    def _read_records(self) -> bool:
        """Read the records written since the last call; return whether any is of the window."""
        new = [record for worker in self.workers for record in worker.read_new_records()]
        if not self.holds_length:
            new = [replace(record, error=None) if record.error == EARLY_STOP_ERROR else record for record in new]
        self.records += new
        new_in_window = [record for record in new if record.index >= 0]
        self.window_records += new_in_window
        if len(self.workers) > 1:
            self.window_records.sort(key=lambda record: record.finished)
        return bool(new_in_window)

    def _send_all(self, command: str) -> None:
        for worker in self.workers:
            worker.send(command)


def _max_or_none(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
