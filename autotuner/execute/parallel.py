"""Runs several trials side by side on this host, each in a process of its own on GPUs that no other one uses."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

from autotuner import owner
from autotuner.core import Candidate, Failure, FailureKind, Measurement, Observer, Progress, Source, Trial
from autotuner.evaluate.clock import steady_unix_time
from autotuner.evaluate.protocol import Evaluator
from autotuner.execute.trial_process import TrialJob
from autotuner.execute.virtual_clocks import VirtualClocks
from autotuner.search.launch import Launch

STOP_SECONDS = 60.0
"""How long a trial's process may take to stop its server after SIGTERM, before it is killed."""


@dataclass
class RunningTrial:
    """A trial in progress: its process, the GPUs it holds, and the trials that ran beside it so far."""

    number: int
    launch: Launch
    process: subprocess.Popen[bytes]
    connection: Connection
    devices: tuple[int, ...]
    slot: int
    started: float = field(default_factory=steady_unix_time)
    neighbours: set[int] = field(default_factory=set)


class ParallelExecutor(AbstractContextManager["ParallelExecutor"]):
    """Runs at most `limit` trials at once; leaving its block stops those that still run.

    `create_evaluator` makes the evaluator in the trial's process from an observer, and is pickled. A trial gets
    `gpu_count(candidate)` of the GPUs `devices`, those first that `closest_first` puts first, and waits until
    they are free. In virtual time each of the `limit` places and each GPU has a clock of its own, and a trial starts
    when those before it in its place and on its GPUs have ended.
    """

    def __init__(
        self,
        create_evaluator: Callable[[Observer], Evaluator],
        limit: int,
        observe: Observer,
        *,
        source: Source,
        devices: Sequence[int] = (),
        gpu_count: Callable[[Candidate], int] = lambda candidate: 0,
        closest_first: Callable[[Sequence[int]], Sequence[int]] = lambda indexes: indexes,
        in_virtual_time: bool = False,
    ) -> None:
        self.create_evaluator = create_evaluator
        self.limit = limit
        self.observe = observe
        self.source = source
        self.gpu_count = gpu_count
        self.closest_first = closest_first
        self._free_devices = list(devices)
        self._device_count = len(devices)
        self._clocks = VirtualClocks(limit, devices) if in_virtual_time else None
        self._queue: deque[tuple[int, Launch, Path]] = deque()
        self._running: list[RunningTrial] = []

    def __exit__(self, *exc: object) -> None:
        for trial in self._running:
            trial.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for trial in self._running:
            try:
                trial.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                trial.process.kill()
                trial.process.wait()
            trial.connection.close()
        self._running.clear()

    @property
    def has_room(self) -> bool:
        """Whether another launch can be submitted."""
        return len(self._running) + len(self._queue) < self.limit

    def submit(self, number: int, launch: Launch, folder: Path) -> None:
        """Start a launch as trial `number`, or queue it until enough GPUs are free."""
        self._queue.append((number, launch, folder))
        self._start_queued()

    def wait_for_trial(self) -> Trial | None:
        """Report the progress of all trials until one ends; None when none runs. AutotuneError if it ended the run."""
        while self._running:
            ready = wait([trial.connection for trial in self._running])
            for trial in [trial for trial in self._running if trial.connection in ready]:
                finished = self._receive(trial)
                if finished is not None:
                    self._release(trial)
                    self._start_queued()
                    return finished
        return None

    def _start_queued(self) -> None:
        while self._queue:
            number, launch, folder = self._queue[0]
            # one that needs more than there are gets them all, and fails by itself
            count = min(self.gpu_count(launch.candidate), self._device_count)
            if count > len(self._free_devices):
                return
            self._queue.popleft()
            devices = tuple(self.closest_first(self._free_devices))[:count]
            self._free_devices = [index for index in self._free_devices if index not in devices]
            self._start(number, launch, folder, devices)

    def _start(self, number: int, launch: Launch, folder: Path, devices: tuple[int, ...]) -> None:
        job = TrialJob(self.create_evaluator, number, launch, folder, devices, logging.getLogger("autotuner").level)
        slot = min(set(range(self.limit)) - {trial.slot for trial in self._running})
        process, connection = start_process(job)
        trial = RunningTrial(number, launch, process, connection, devices, slot)
        for other in self._running:
            other.neighbours.add(number)
            trial.neighbours.add(other.number)
        self._running.append(trial)

    def _receive(self, running: RunningTrial) -> Trial | None:
        """Handle one message of a trial's process; the trial if it ended."""
        try:
            message = running.connection.recv()
        except (EOFError, ConnectionError):
            return self._with_neighbours(running, self._lost_trial(running))
        if isinstance(message, Progress):
            self.observe(message)
        elif isinstance(message, logging.LogRecord):
            logging.getLogger(message.name).handle(message)
        elif isinstance(message, Trial):
            return self._with_neighbours(running, message)
        else:
            raise message
        return None

    def _with_neighbours(self, running: RunningTrial, trial: Trial) -> Trial:
        """The trial with the numbers of those beside it, on this process's clock or, in virtual time, its place's."""
        trial = replace(trial, parallel_trials=tuple(sorted(running.neighbours)))
        if self._clocks is not None:
            return self._clocks.timed(trial, running.slot, running.devices)
        return replace(trial, started=running.started, ended=running.started + trial.ended - trial.started)

    def _lost_trial(self, running: RunningTrial) -> Trial:
        """The trial of a process that ended without a result."""
        status = running.process.wait()
        failure = Failure(
            FailureKind.INTERNAL,
            f"The trial's process ended with status {status}.",
            "If it was killed, free memory on this machine or lower --parallel-trials; else this is a bug in autotune.",
        )
        measurement = Measurement(self.source, (), failure)
        launch = running.launch
        return Trial(running.number, launch.candidate, measurement, running.started, steady_unix_time(), launch.purpose)

    def _release(self, trial: RunningTrial) -> None:
        trial.process.wait()
        trial.connection.close()
        self._running.remove(trial)
        self._free_devices += trial.devices


def start_process(job: TrialJob) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start the process of a trial with its job."""
    process, connection = open_process()
    with contextlib.suppress(ConnectionError):  # it died at once, which its first message will tell
        connection.send(job)
    return process, connection


def open_process() -> tuple[subprocess.Popen[bytes], Connection]:
    """Start the process of a trial, in a session of its own: Ctrl-C reaches this process alone, which then stops it."""
    ours, theirs = socket.socketpair()
    package = str(Path(__file__).parents[2])
    search_path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), package)))
    with theirs, contextlib.ExitStack() as on_failure:
        connection = on_failure.enter_context(Connection(ours.detach()))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "autotuner.execute.trial_process", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            env={**os.environ, owner.OWNER_VARIABLE: str(owner.this_process()), "PYTHONPATH": search_path},
            start_new_session=True,
        )
        on_failure.pop_all()
    return process, connection
