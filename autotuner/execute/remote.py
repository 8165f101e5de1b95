"""Trials on other hosts, as jobs of Slurm or on a Ray cluster: what every such executor is given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autotuner.core import Candidate, Observer, Source, Trial
from autotuner.errors import ConfigError
from autotuner.evaluate.protocol import Evaluator
from autotuner.experiment import Deployment
from autotuner.search.launch import Launch


@dataclass(frozen=True)
class RemoteWork:
    """What an executor on other hosts needs to run the trials of one run.

    `create_evaluator` makes the evaluator on the trial's host from an observer, and is pickled. At most `limit`
    trials are in flight. A trial needs `gpu_count(candidate)` GPUs of one host, and takes at most `time_limit`
    seconds once it has started. In virtual time the trials are timed by `VirtualClocks`.
    """

    create_evaluator: Callable[[Observer], Evaluator]
    limit: int
    observe: Observer
    source: Source
    gpu_count: Callable[[Candidate], int]
    time_limit: float
    in_virtual_time: bool = False


class RemoteExecutor(Protocol):
    """An executor as the tune loop sees it: see `autotuner.tune.Executor`."""

    def submit(self, number: int, launch: Launch, folder: Path) -> None:
        """Start or queue a launch as trial `number`; its files go into `folder`."""

    def wait_for_trial(self) -> Trial | None:
        """Wait for a trial to finish; None when none is running."""

    @property
    def has_room(self) -> bool:
        """Whether another launch can be submitted."""


def check_deployment(deployment: Deployment, *, is_simulated: bool) -> None:
    """ConfigError for a deployment mode whose server cannot be started by a trial on another host."""
    if is_simulated or deployment.mode == "process":
        return
    raise ConfigError(
        f"Trials on {deployment.executor} cannot start servers by deployment mode '{deployment.mode}'.",
        why="A trial starts its server as a process of the host that it was given.",
        remedy="Choose --deployment process, or leave out --executor.",
    )


def preflight(deployment: Deployment, work: RemoteWork, output: Path, gpu_count: int) -> None:
    """MachineError if the chosen executor cannot run trials that need up to `gpu_count` GPUs; starts nothing.

    `output` is the folder of runs.
    """
    if deployment.executor == "slurm":
        from autotuner.execute.slurm import executor

        executor.preflight(work, deployment.slurm, output, gpu_count)
        return
    from autotuner.execute import ray_executor

    ray_executor.preflight(deployment.ray, gpu_count)


def create_executor(deployment: Deployment, work: RemoteWork) -> AbstractContextManager[RemoteExecutor]:
    """The chosen executor; the end of its block stops the trials that still run, and leaves none behind."""
    if deployment.executor == "slurm":
        from autotuner.execute.slurm.executor import SlurmExecutor

        return SlurmExecutor(work, deployment.slurm)
    from autotuner.execute.ray_executor import RayExecutor

    return RayExecutor(work, deployment.ray)
