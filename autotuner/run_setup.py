"""What a run needs: the engine, launcher, search space and forecaster of an experiment."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from operator import attrgetter
from pathlib import Path

from autotuner import machine, model_files
from autotuner.core import Candidate, Observer, Source, ignore_progress
from autotuner.engines import Engine, LaunchContext, as_simulated, engine
from autotuner.engines.parameters import canonical_parameters, is_known_parameter
from autotuner.errors import AutotuneError, ConfigError, MachineError
from autotuner.evaluate.create import create_evaluator
from autotuner.evaluate.simulated import simulated_gpu
from autotuner.execute import remote
from autotuner.execute.parallel import ParallelExecutor
from autotuner.execute.serial import SerialExecutor
from autotuner.experiment import CLUSTER_MODES, Experiment
from autotuner.forecaster import Forecaster
from autotuner.launchers import Launcher, gpu_locks, gpus, launcher
from autotuner.predict.hardware import find_gpu
from autotuner.predict.shape import model_shape
from autotuner.rules import Rules
from autotuner.search.capacity import check_capacity
from autotuner.search.defaults import default_candidate
from autotuner.search.plan import Plan
from autotuner.search.problem import Problem
from autotuner.search.protocol import Searcher
from autotuner.search.refusals import check_candidates
from autotuner.search.space import Space
from autotuner.search.strategies import searcher_for
from autotuner.workload import arrivals

MIN_FREE_DISK_BYTES = 200 * 2**20
"""Space for the logs and raw records of a long run."""


@dataclass(frozen=True)
class RunSetup:
    """The engine, launcher, search space and forecaster of one experiment."""

    experiment: Experiment
    engine: Engine
    launcher: Launcher
    space: Space
    forecaster: Forecaster

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> RunSetup:
        """The setup of an experiment; ConfigError if none of its candidates can run."""
        runtime_engine = engine(experiment.base_runtime)
        rules = Rules.from_experiment(experiment)
        rules.check(experiment.parameters, is_known_parameter, canonical_parameters())
        mode_launcher = launcher(experiment.deployment.mode, experiment.deployment)
        if experiment.deployment.is_remote:
            remote.check_deployment(
                experiment.deployment, is_simulated=experiment.optimization.evaluator == "simulated"
            )
        _check_mounts(experiment)
        is_simulated = experiment.optimization.evaluator == "simulated"
        machine.check_engine_flags(experiment, runtime_engine, is_launched=not is_simulated)
        runtime_engine.check_model(experiment.model)
        arrivals.check(experiment.workload())
        context = LaunchContext.from_experiment(experiment)
        forecaster = Forecaster.from_experiment(experiment, runtime_engine, mode_launcher)
        check_capacity(experiment)
        if is_simulated:
            _check_simulated(experiment, mode_launcher)

        def rejection_reason(candidate: Candidate) -> str | None:
            not_simulable = as_simulated.rejection_reason(candidate) if is_simulated else None
            reason = runtime_engine.rejection_reason(candidate, context)
            return reason or forecaster.memory_shortage(candidate) or not_simulable

        space = Space(experiment.base_runtime, experiment.parameters, rejection_reason, rules)
        check_candidates(space)
        setup = cls(experiment, runtime_engine, mode_launcher, space, forecaster)
        setup._check_parallel_trials()
        return setup

    def create_searcher(self) -> Searcher:
        """Create a searcher with the experiment's strategy."""
        can_launch = self.is_simulated or self.launcher.starts_servers
        baseline = default_candidate(self.space) if can_launch and self.experiment.optimization.baseline else None
        return searcher_for(
            Problem(
                self.space,
                self.experiment,
                predict=self.forecaster.predict,
                fits=self.forecaster.expects_fit,
                start_seconds=self.engine.expected_start_seconds,
                baseline=baseline,
                can_relaunch=can_launch,
            )
        )

    @property
    def is_simulated(self) -> bool:
        """Whether candidates are evaluated by simulation in virtual time."""
        return self.experiment.optimization.evaluator == "simulated"

    @property
    def source(self) -> Source:
        """Whether the run's results are measured or simulated; a simulated engine's server counts as simulated."""
        return "simulated" if self.is_simulated else self.engine.source

    @property
    def run_location(self) -> str:
        """Where candidates run, for display."""
        return "in virtual time" if self.is_simulated else self.experiment.deployment.mode

    @contextmanager
    def executor(self, observe: Observer) -> Iterator[SerialExecutor | ParallelExecutor | remote.RemoteExecutor]:
        """Reserve GPUs and run trials on them until the block ends; MachineError if too few are free.

        One trial at a time may use as many GPUs as the largest candidate needs, parallel ones up to that many each.
        Executors on other hosts reserve there, for each trial.
        """
        if self.experiment.deployment.is_remote:
            with remote.create_executor(self.experiment.deployment, self._remote_work(observe)) as elsewhere:
                yield elsewhere
            return
        limit = self.experiment.optimization.parallel_trials
        gpu_count = 0 if self._is_on_cluster else max(self.plan.gpus, default=0)
        indexes = self.experiment.hardware.gpus if gpu_count else ()
        reservation = gpu_locks.reserve_gpus(gpu_count, indexes, at_most=gpu_count * limit)
        with self.launcher.run_block(), reservation as devices:
            if limit == 1:
                with SerialExecutor(create_evaluator(self.experiment, observe), devices) as serial:
                    yield serial
                return
            with ParallelExecutor(
                partial(create_evaluator, self.experiment),
                limit,
                observe,
                source=self.source,
                devices=devices or self._simulated_gpus,
                gpu_count=attrgetter("gpus") if self.is_simulated else self.engine.local_gpu_count,
                closest_first=gpus.query_inventory().closest_first if devices else sorted,
                in_virtual_time=self.is_simulated,
            ) as parallel:
                yield parallel

    def _remote_work(self, observe: Observer) -> remote.RemoteWork:
        """What an executor on other hosts is given."""
        runtime, optimization = self.experiment.runtime, self.experiment.optimization
        return remote.RemoteWork(
            partial(create_evaluator, self.experiment),
            optimization.parallel_trials,
            observe,
            source=self.source,
            gpu_count=self._remote_gpu_count,
            time_limit=runtime.start_timeout + optimization.timeout_per_iteration,
            in_virtual_time=self.is_simulated,
        )

    def _remote_gpu_count(self, candidate: Candidate) -> int:
        """GPUs that a host must have for a candidate: in virtual time those that are simulated, to queue alike."""
        return candidate.gpus if self.is_simulated else self.engine.local_gpu_count(candidate)

    @property
    def _simulated_gpus(self) -> tuple[int, ...]:
        """Numbers of the GPUs that candidates in virtual time share; empty where it is not said how many there are."""
        return tuple(range(self.experiment.hardware.usable_gpu_count or 0)) if self.is_simulated else ()

    @cached_property
    def plan(self) -> Plan:
        """The planned launches with their estimated time."""
        launches = self.create_searcher().preview()
        return Plan(
            space=self.space,
            experiment=self.experiment,
            launches=launches,
            start_seconds=self.engine.expected_start_seconds,
            gpus=tuple(self.engine.local_gpu_count(launch.candidate) for launch in launches) if self._uses_gpus else (),
            in_virtual_time=self.is_simulated,
        )

    @property
    def _is_on_cluster(self) -> bool:
        """Whether servers run on a cluster, which has GPUs of its own."""
        return not self.is_simulated and self.experiment.deployment.mode in CLUSTER_MODES

    @property
    def _largest_candidate(self) -> Candidate | None:
        """The planned candidate with the most GPUs."""
        candidates = (launch.candidate for launch in self.plan.launches)
        return max(candidates, key=attrgetter("gpus"), default=None)

    @property
    def _uses_gpus(self) -> bool:
        """Whether the run starts servers that compute on GPUs."""
        context = LaunchContext.from_experiment(self.experiment)
        return not self.is_simulated and self.launcher.starts_servers and self.engine.computes_on_gpus(context)

    def _check_parallel_trials(self) -> None:
        """ConfigError for parallel trials that would measure each other: on one server, or on the same CPU."""
        if self.experiment.optimization.parallel_trials == 1 or self.source == "simulated":
            return
        if self.experiment.deployment.is_remote:
            return  # each has what was allocated to it
        if self._is_on_cluster and not self.experiment.deployment.share_nodes:
            return  # each has a node of its own
        if not self.launcher.starts_servers:
            why = "They would all load the one server that is already running."
        elif not self._uses_gpus:
            why = "Engines that compute on the CPU would slow one another down, and be measured so."
        else:
            return
        raise ConfigError(
            "Trials cannot run in parallel here.", why=why, remedy="Leave out --parallel-trials, or set it to 1."
        )

    def _check_parallel_gpus(self) -> None:
        """MachineError if parallel trials of a real engine cannot get GPUs of their own."""
        parallel = self.experiment.optimization.parallel_trials > 1 and self.source == "measured"
        parallel = parallel and not self._is_on_cluster and not self.experiment.deployment.is_remote
        if parallel and not gpus.query_inventory().gpus:
            raise MachineError(
                "Trials cannot run in parallel here.",
                why="No NVIDIA driver lists GPUs, so the trials cannot each get GPUs of their own.",
                remedy="Leave out --parallel-trials, or set it to 1.",
            )

    def preflight(self, output: Path) -> None:
        """Check before the first launch that this machine can do the run; MachineError if not."""
        self._check_parallel_gpus()
        if self.experiment.deployment.is_remote:
            launches = self.plan.launches
            gpu_count = max((self._remote_gpu_count(launch.candidate) for launch in launches), default=0)
            remote.preflight(self.experiment.deployment, self._remote_work(ignore_progress), output, gpu_count)
        elif not self.is_simulated:
            machine.preflight(self.experiment, self.engine, self.launcher, self._largest_candidate)
        _check_disk(output)

    def shortcomings(self, output: Path) -> list[AutotuneError]:
        """What this machine lacks for the run, as far as that is seen without Docker, pulls and requests."""
        is_remote = self.experiment.deployment.is_remote
        is_process = not self.is_simulated and not is_remote and self.experiment.deployment.mode == "process"
        checks: list[Callable[[], None]] = [partial(_check_disk, output), self._check_parallel_gpus]
        if is_process:
            checks.append(partial(machine.preflight, self.experiment, self.engine, self.launcher))
        if self._uses_gpus and not self._is_on_cluster and not is_remote:
            checks.append(partial(gpu_locks.check_gpus, max(self.plan.gpus, default=0), self.experiment.hardware.gpus))
        problems: list[AutotuneError] = []
        for check in checks:
            try:
                check()
            except (MachineError, ConfigError) as error:
                problems.append(error)
        return problems


def _check_disk(output: Path) -> None:
    """MachineError if the disk of the runs folder is nearly full."""
    folder = next(parent for parent in (output.absolute(), *output.absolute().parents) if parent.exists())
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < MIN_FREE_DISK_BYTES:
        raise MachineError(
            f"The disk of '{folder}' has {free_bytes / 2**20:.0f} MB left.",
            why=f"A run keeps logs and raw records; {MIN_FREE_DISK_BYTES / 2**20:.0f} MB should be free.",
            remedy="Free some space, or choose another folder with --output.",
        )


def _check_mounts(experiment: Experiment) -> None:
    """ConfigError for a folder of runtime.mounts that is not there, where a container would get it."""
    for mount in model_files.configured_mounts(experiment.runtime) if experiment.deployment.mode == "docker" else ():
        if not Path(mount.host).exists():
            raise ConfigError(f"There is no '{mount.host}' to mount.", remedy="Correct runtime.mounts.")


def _check_simulated(experiment: Experiment, mode_launcher: Launcher) -> None:
    """ConfigError for what cannot be simulated: a running endpoint, an unknown model, or an unknown GPU."""
    if not mode_launcher.starts_servers or experiment.base_runtime == "openai":
        raise ConfigError(
            "A server that is already running cannot be simulated.",
            why="Its engine, flags and GPUs are unknown.",
            remedy="Name a runtime, such as --runtime vllm, or measure it with optimization.evaluator=measured.",
        )
    model_shape(model_files.path_or_name(experiment.model))
    find_gpu(simulated_gpu(experiment))
