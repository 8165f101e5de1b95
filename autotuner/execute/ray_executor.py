"""Runs trials on an existing Ray cluster: each as one task, in a placement group of one node's GPUs."""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import signal
import socket
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import autotuner
from autotuner.core import Failure, FailureKind, Measurement, Progress, Trial
from autotuner.errors import MachineError, pluralize
from autotuner.evaluate.clock import steady_unix_time
from autotuner.execute.parallel import STOP_SECONDS
from autotuner.execute.ray_host import ProcessEnded, RayTrialJob, RemoteTrial, TrialStarted, run_on_host, unpack
from autotuner.execute.remote import RemoteWork
from autotuner.execute.virtual_clocks import VirtualClocks
from autotuner.experiment import RaySettings
from autotuner.redaction import redact
from autotuner.search.launch import Launch

log = logging.getLogger(__name__)

CPUS_PER_TRIAL = 1
"""Of Ray's CPUs, which are only counted: a node must offer one to run a trial."""

CONNECT_SECONDS = 10.0
VERSION_SECONDS = 60.0
"""How long a node may take to say which autotune it has: it starts a Python for it."""

LOOK_SECONDS = 1.0
NODES_SECONDS = 5.0
"""Between two looks at the nodes while trials wait for GPUs."""

MAX_STARTS = 2
"""How often a trial is started whose worker or node is lost."""

CANDIDATE_REMEDY = "It says nothing about the candidate."


@dataclass
class RayTrial:
    """A trial whose task waits for GPUs or runs."""

    number: int
    launch: Launch
    folder: Path
    place: int
    gpu_count: int
    group: Any
    messages: Any
    starts: int = 1
    submitted: float = field(default_factory=time.monotonic)
    host: str = ""
    started: float = 0.0
    queue_seconds: float = 0.0
    neighbours: set[int] = field(default_factory=set)
    result: RemoteTrial | None = None
    status: int | None = None


class RayExecutor(AbstractContextManager["RayExecutor"]):
    """Runs at most `work.limit` trials at once on the cluster; leaving its block ends those that still run there.

    A trial whose worker or node is lost is started once more. The cluster is neither started nor stopped.
    """

    def __init__(self, work: RemoteWork, settings: RaySettings) -> None:
        self.work = work
        self.settings = settings
        self._clocks = VirtualClocks(work.limit) if work.in_virtual_time else None
        self._running: list[RayTrial] = []
        self._finished: deque[Trial] = deque()
        self._connection = ExitStack()
        self._next_look = 0.0

    def __enter__(self) -> RayExecutor:
        self._connection.enter_context(RayDriver(self.settings))
        return self

    def __exit__(self, *exc: object) -> None:
        with self._connection:
            self._end_all()

    @property
    def has_room(self) -> bool:
        """Whether another launch can be submitted."""
        return len(self._running) + len(self._finished) < self.work.limit

    def submit(self, number: int, launch: Launch, folder: Path) -> None:
        """Start a launch as trial `number`, or let it wait until a node has its GPUs free; its files go to `folder`."""
        count = self.work.gpu_count(launch.candidate)
        if (message := unfit_message(count)) is not None:
            now = steady_unix_time()
            measurement = Measurement(self.work.source, (), Failure(FailureKind.UNSCHEDULABLE, message, UNFIT_REMEDY))
            self._finished.append(Trial(number, launch.candidate, measurement, now, now, launch.purpose))
            return
        place = min(set(range(self.work.limit)) - {trial.place for trial in self._running})
        group, messages = self._start(number, launch, folder, count)
        self._running.append(RayTrial(number, launch, folder, place, count, group, messages))

    def wait_for_trial(self) -> Trial | None:
        """Report the progress of all trials until one ends; None when none runs. AutotuneError if it ended the run."""
        import ray

        while self._finished or self._running:
            if self._finished:
                return self._finished.popleft()
            ready, _ = ray.wait([trial.messages for trial in self._running], timeout=LOOK_SECONDS)
            for trial in [trial for trial in self._running if trial.messages in ready]:
                if (finished := self._receive(trial)) is not None:
                    return finished
            if time.monotonic() >= self._next_look:
                self._look_at_nodes()
                self._next_look = time.monotonic() + NODES_SECONDS
        return None

    def _start(self, number: int, launch: Launch, folder: Path, gpu_count: int) -> tuple[Any, Any]:
        """Ask for a group of one node's GPUs, and submit the task that waits for it: the group and its messages."""
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        locked_gpus = 0 if self.work.in_virtual_time else gpu_count
        level = logging.getLogger("autotuner").level
        job = RayTrialJob(self.work.create_evaluator, number, launch, Path(folder.name), (), level, locked_gpus)
        bundle = {"CPU": CPUS_PER_TRIAL, **({"GPU": gpu_count} if gpu_count else {})}
        group = placement_group([bundle], strategy="STRICT_PACK")
        task = ray.remote(run_on_host).options(
            name=f"autotune trial {number}",
            num_cpus=CPUS_PER_TRIAL,
            num_gpus=gpu_count,
            max_retries=0,  # a repetition is this executor's decision
            num_returns="streaming",
            scheduling_strategy=PlacementGroupSchedulingStrategy(group),
        )
        return group, task.remote(pickle.dumps(job))

    def _receive(self, running: RayTrial) -> Trial | None:
        """Handle one message of a trial; the trial if it has ended."""
        import ray

        try:
            message = pickle.loads(ray.get(next(running.messages)))
        except StopIteration:
            return self._ended(running, "The task ended without a result.")
        except ray.exceptions.RayTaskError as error:
            self._release(running)
            raise MachineError(
                f"Trial {running.number} could not run on the Ray cluster.",
                why=redact(f"{type(error.cause).__name__}: {error.cause}"),
                remedy="Continue with --resume.",
            ) from error
        except ray.exceptions.RayError as error:
            return self._ended(running, redact(_first_line(error)))
        if isinstance(message, TrialStarted):
            self._note_start(running, message)
        elif isinstance(message, Progress):
            self.work.observe(message)
        elif isinstance(message, logging.LogRecord):
            logging.getLogger(message.name).handle(message)
        elif isinstance(message, RemoteTrial):
            running.result = message
        elif isinstance(message, ProcessEnded):
            running.status = message.status
        else:
            raise message
        return None

    def _note_start(self, running: RayTrial, message: TrialStarted) -> None:
        running.host = message.host
        running.started = steady_unix_time()
        running.queue_seconds = time.monotonic() - running.submitted
        log.debug("trial %d runs on %s with the GPUs %s", running.number, message.host, message.visible_gpus or "none")
        for other in self._running:
            if other is not running and other.host == message.host:
                other.neighbours.add(running.number)
                running.neighbours.add(other.number)

    def _look_at_nodes(self) -> None:
        """Give up the trials that wait for GPUs which no node has any more."""
        for trial in list(self._running):
            if not trial.host and (message := unfit_message(trial.gpu_count)) is not None:
                failure = Failure(FailureKind.UNSCHEDULABLE, message, UNFIT_REMEDY)
                self._finished.append(self._finish(trial, self._failed(trial, failure)))

    def _ended(self, running: RayTrial, reason: str) -> Trial | None:
        """The trial of a task that has ended, for `reason` if without a result; None if it starts again."""
        if running.result is not None:
            return self._finish(running, running.result.trial)
        if running.status is not None:
            return self._finish(running, self._died(running, running.status))
        return self._lost(running, reason)

    def _lost(self, running: RayTrial, reason: str) -> Trial | None:
        """Start a trial again whose worker or node is lost; the failed trial if that happened before."""
        if running.starts < MAX_STARTS and unfit_message(running.gpu_count) is None:
            log.warning("trial %d starts again, because its worker was lost: %s", running.number, reason)
            _remove_group(running.group)
            running.group, running.messages = self._start(
                running.number, running.launch, running.folder, running.gpu_count
            )
            running.starts += 1
            running.host, running.submitted = "", time.monotonic()
            return None
        failure = Failure(
            FailureKind.NODE_LOST,
            f"The trial's worker on the Ray cluster was lost {pluralize(running.starts, 'time')}: {reason}",
            "`ray status` and the logs of the cluster say why; host memory is a common reason. " + CANDIDATE_REMEDY,
        )
        return self._finish(running, self._failed(running, failure))

    def _died(self, running: RayTrial, status: int) -> Trial:
        """The trial of a process that ended without a result."""
        failure = Failure(
            FailureKind.INTERNAL,
            f"The trial's process on {running.host} ended with status {status}.",
            "If it was killed, free memory on that node; else this is a bug in autotune.",
        )
        return self._failed(running, failure)

    def _failed(self, running: RayTrial, failure: Failure) -> Trial:
        measurement = Measurement(self.work.source, (), failure)
        now = steady_unix_time()
        launch = running.launch
        return Trial(running.number, launch.candidate, measurement, running.started or now, now, launch.purpose)

    def _finish(self, running: RayTrial, trial: Trial) -> Trial:
        """The trial as this process records it: its time on this clock, its wait, its files in place."""
        self._release(running)
        measurement = trial.measurement
        if running.result is not None:
            unpack(running.result.files, running.folder)
            if (failure := measurement.failure) is not None:
                remedy = failure.remedy.replace(running.result.folder, str(running.folder))
                measurement = replace(measurement, failure=replace(failure, remedy=remedy))
        if running.host:
            queue_seconds = round(running.queue_seconds, 3)
            measurement = replace(measurement, timings={**measurement.timings, "queue": queue_seconds})
        trial = replace(trial, measurement=measurement, parallel_trials=tuple(sorted(running.neighbours)))
        if self._clocks is not None:
            return self._clocks.timed(trial, running.place)
        ended = steady_unix_time()
        return replace(trial, started=ended - (trial.ended - trial.started), ended=ended)

    def _release(self, running: RayTrial) -> None:
        self._running.remove(running)
        _remove_group(running.group)

    def _end_all(self) -> None:
        """Cancel the trials that still run, which stop their servers, and wait for their end."""
        import ray

        if not self._running:
            return
        for trial in self._running:
            with suppress(ray.exceptions.RayError):
                ray.cancel(trial.messages)
        deadline = time.monotonic() + STOP_SECONDS
        for trial in self._running:
            with suppress(ray.exceptions.RayError, StopIteration):
                while (seconds_left := deadline - time.monotonic()) > 0:
                    if ray.wait([trial.messages], timeout=seconds_left)[0]:
                        ray.get(next(trial.messages))
            _remove_group(trial.group)  # ends the worker, whose process then stops its server by itself
        self._running.clear()


UNFIT_REMEDY = (
    "Ray counts the GPUs that `ray start` found or was given, which `ray status` shows; "
    "lower tp-size, or add a larger node."
)


class RayDriver(AbstractContextManager["RayDriver"]):
    """This process as a driver of the cluster; one that its caller has connected already stays so."""

    def __init__(self, settings: RaySettings) -> None:
        self.address = settings.address
        self._is_ours = False

    def __enter__(self) -> RayDriver:
        if importlib.util.find_spec("ray") is None:
            raise MachineError(
                "Running on a Ray cluster needs the package ray.",
                why="It is not installed.",
                remedy="pip install 'autotune[ray]', in the version of the cluster.",
            )
        import ray

        if not ray.is_initialized():
            address = os.environ.get("RAY_ADDRESS", "auto") if self.address == "auto" else self.address
            _check_address(address)
            self._connect(address)
            self._is_ours = True
        return self

    def __exit__(self, *exc: object) -> None:
        import ray

        if self._is_ours:
            ray.shutdown()

    def _connect(self, address: str) -> None:
        import ray

        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of tasks that are cancelled
        own_address = {"_node_ip_address": "127.0.0.1"} if address.startswith(("127.", "localhost:")) else {}
        is_main = threading.current_thread() is threading.main_thread()
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(address, log_to_driver=False, configure_logging=False, **own_address)
        except (ConnectionError, RuntimeError, ValueError, AssertionError, OSError) as error:
            raise unreachable(address, redact(_first_line(error))) from error
        finally:
            if is_main and on_sigterm is not None:
                signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own in place


def _check_address(address: str) -> None:
    """MachineError for an address where no existing cluster answers."""
    if address == "local" or address.startswith("ray://"):
        raise MachineError(
            f"The Ray address '{address}' cannot be used.",
            why="autotune joins a cluster that is there already as a driver; it starts none, and is no Ray client.",
            remedy="Start autotune on a node of the cluster, with --ray-address HOST:PORT of its head (port 6379).",
        )
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:  # Ray itself would ask for long
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise unreachable(address, str(error)) from error


def unreachable(address: str, why: str) -> MachineError:
    """The error of a cluster that cannot be joined."""
    where = "on this machine" if address == "auto" else f"at '{address}'"
    return MachineError(
        f"No Ray cluster answers {where}.",
        why=why,
        remedy="Start autotune on a node of a running cluster, where `ray status` answers, and name its head with "
        "--ray-address HOST:PORT or RAY_ADDRESS; autotune starts no cluster.",
    )


def preflight(settings: RaySettings, gpu_count: int) -> None:
    """MachineError if no node has `gpu_count` GPUs, or if a node has another version of autotune."""
    with RayDriver(settings):
        if (message := unfit_message(gpu_count)) is not None:
            raise MachineError(message, remedy=UNFIT_REMEDY)
        versions = node_versions(gpu_count)
    for host, version in versions.items():
        if version != autotuner.__version__:
            raise MachineError(
                f"The Ray node {host} has {f'autotune {version}' if version else 'no autotune'}, and this is "
                f"{autotuner.__version__}.",
                remedy="Install the same version in the Python that Ray's workers use on every node.",
            )


def unfit_message(gpu_count: int) -> str | None:
    """Why no node could ever run a trial with so many GPUs; None if one could. Ray itself would wait for ever."""
    if _nodes_with(gpu_count):
        return None
    most = int(max((node["Resources"].get("GPU", 0) for node in _nodes_with(0)), default=0))
    return f"A trial needs {pluralize(gpu_count, 'GPU')} of one node, and the largest node of the cluster has {most}."


def _nodes_with(gpu_count: int) -> list[dict[str, Any]]:
    """The nodes that are alive and can run a trial with so many GPUs."""
    import ray

    return [
        node
        for node in ray.nodes()
        if node["Alive"]
        and node["Resources"].get("GPU", 0) >= gpu_count
        and node["Resources"].get("CPU", 0) >= CPUS_PER_TRIAL
    ]


def node_versions(gpu_count: int) -> dict[str, str]:
    """The version of autotune on each node that can run a trial, by the node's name; empty where there is none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    tasks = {}
    for node in _nodes_with(gpu_count):
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(_version_question()).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
        tasks[node["NodeManagerHostname"]] = task.remote()
    try:
        return dict(zip(tasks, ray.get(list(tasks.values()), timeout=VERSION_SECONDS), strict=True))
    except ray.exceptions.RayError as error:
        raise MachineError(
            "A node of the Ray cluster does not say which autotune it has.",
            why=redact(_first_line(error)),
            remedy="`ray status` shows the state of the nodes.",
        ) from error


def _version_question() -> Callable[[], str]:
    """A function that Ray sends by value, because a node may have no autotune to import it from."""

    def version() -> str:
        try:
            import autotuner
        except ImportError:
            return ""
        return str(autotuner.__version__)

    return version


def _remove_group(group: Any) -> None:
    import ray
    from ray.util.placement_group import remove_placement_group

    with suppress(ray.exceptions.RayError):
        remove_placement_group(group)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
