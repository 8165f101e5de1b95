"""`measure`: one load point in a process of its own, from job to observation."""

from __future__ import annotations

import os
import selectors
import tempfile
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from autotuner.core import LoadPoint, Observation, RequestRecord, StopRule, Workload
from autotuner.load import spool
from autotuner.load.counters import differences, read_counters
from autotuner.load.job import Endpoint, Job, request_head
from autotuner.load.process import STOP, WorkerProcess, started
from autotuner.workload import scenarios

_ASKING_SECONDS = 0.25
_LAST_SECONDS = 30.0


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
    max_in_flight: int | None = None,
    enough: StopRule | None = None,
) -> Observation:
    """Drive `load_point` on a running server and bring back its raw records.

    `salt` sets this run's prompts apart from every other run's. `on_phase` gets "warming-up" and
    "measuring". `max_in_flight` bounds an open loop. `enough` is asked a few times a second while
    requests of the window end; with its first reason the window ends, what is in flight is cut
    off, and the observation is `decided`. What the server does wrong is counted in the records,
    never raised; ConfigError: the scenario or the address is not one; MachineError: the worker
    process died; Interrupted: Ctrl-C, with what was seen until then.

    The records are those sent in the window, and those of the warm-up that were still running when
    it began: their tokens count towards throughput, their latencies do not. Those of the warm-up
    have an index below 0; what failed in the warm-up is kept too.
    """
    scenarios.parse(load_point.scenario)
    request_head(endpoint, workload.endpoint)
    base = endpoint.address.base
    before = read_counters(base, headers=endpoint.headers)
    with tempfile.TemporaryDirectory(prefix=f"autotune-load-{os.getpid()}-") as folder:
        job = Job.of(endpoint, load_point, workload, salt=salt, folder=folder, max_in_flight=max_in_flight)
        run = _Supervision(job, on_phase, enough)
        with started(job) as worker:
            try:
                run.attend(worker)
            except KeyboardInterrupt as interrupt:
                run.break_off(worker)
                seen = run.observation({}) if run.outcome and run.records else None
                raise Interrupted(seen) from interrupt
    return run.observation(differences(before, read_counters(base, headers=endpoint.headers)))


class _Supervision:
    """One load point as the parent sees it: what the worker said, and the records as they are written."""

    def __init__(self, job: Job, on_phase: Callable[[str], None], enough: StopRule | None) -> None:
        self.job = job
        self.on_phase = on_phase
        self.enough = enough
        self.follower = spool.Follower(job.records)
        self.records: list[RequestRecord] = []
        self.window: list[RequestRecord] = []
        self.measuring = False
        self.reason: str | None = None
        self.outcome: dict[str, Any] | None = None

    def attend(self, worker: WorkerProcess, limit: float | None = None) -> None:
        """Listen until the worker has said how it went, and ask the rule meanwhile."""
        deadline = None if limit is None else monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(worker, selectors.EVENT_READ)
            while self.outcome is None and (deadline is None or monotonic() < deadline):
                asking = self.enough is not None and self.measuring and self.reason is None
                if not selector.select(_ASKING_SECONDS if asking or deadline else None):
                    self._ask(worker)
                    continue
                for message in worker.hear():
                    self._take(message)
        if self.outcome is not None:
            self._read()

    def break_off(self, worker: WorkerProcess) -> None:
        """Stop the worker and take what there is; before the window there is nothing."""
        if self.measuring:
            self.enough = None
            worker.tell(STOP)
            self.attend(worker, _LAST_SECONDS)

    def observation(self, counters: Mapping[str, float]) -> Observation:
        """Sum up a load point that has ended."""
        outcome = self.outcome
        assert outcome is not None
        start, end = outcome["window"]
        return Observation(
            load_point=self.job.load_point,
            records=tuple(sorted(self.records, key=lambda record: record.sent)),
            window=(start, end),
            loop_lag_p99=outcome["loop_lag_p99"],
            counters=counters,
            cut_off=outcome["cut_off"],
            ended_early=outcome["ended_early"],
            decided=self.reason if outcome["halted"] else None,
        )

    def _take(self, message: dict[str, Any]) -> None:
        if "outcome" in message:
            self.outcome = message["outcome"]
        else:
            self.measuring = message["phase"] == "measuring"
            self.on_phase(message["phase"])

    def _ask(self, worker: WorkerProcess) -> None:
        """Tell the worker to stop when the rule has a reason; it is asked when a request has ended since."""
        if self.enough is None or not self._read():
            return
        self.reason = self.enough(self.window)
        if self.reason is not None:
            worker.tell(STOP)

    def _read(self) -> bool:
        """Take in the records written since, and say whether the window has more."""
        fresh = self.follower.fresh()
        self.records += fresh
        ended = [record for record in fresh if record.index >= 0]
        self.window += ended
        return bool(ended)
