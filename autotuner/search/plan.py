"""The cost of a run in launches, seconds and GPU-hours, estimated before anything starts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from autotuner.core import Candidate, Purpose, Workload
from autotuner.experiment import Experiment
from autotuner.scoring.objective import OBJECTIVES
from autotuner.search.capacity import CapacitySearch
from autotuner.search.launch import Launch
from autotuner.search.space import Space

POINT_OVERHEAD_SECONDS = 1.0
"""Time of a load point besides warm-up and window: making prompts, draining requests in flight; estimated by hand."""

LAUNCH_OVERHEAD_SECONDS = 2.0
"""Time of a launch besides its start and load: stopping the engine, saving the trial; estimated by hand."""

USUAL_CAPACITY_POINTS = 3
"""Usual load points of a capacity search per scenario: racing takes 15.5 in 6 launches (docs/reference/figures.md)."""


@dataclass(frozen=True)
class LaunchLoad:
    """Number and duration in seconds of the load points of one launch, as usual and at most.

    `max_window` is the longest window of a load point.
    """

    points: int
    max_points: int
    max_window: float
    point_seconds: float
    max_point_seconds: float

    @property
    def usual_seconds(self) -> float:
        """Seconds of all load points if every window lasts as configured."""
        return self.points * self.point_seconds

    @property
    def max_seconds(self) -> float:
        """Seconds of the largest number of load points, each with the longest window."""
        return self.max_points * self.max_point_seconds

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> LaunchLoad:
        """The load of a launch of the search."""
        workload = experiment.workload()
        seconds = workload.warmup + workload.duration + POINT_OVERHEAD_SECONDS
        if not experiment.benchmark.find_capacity:
            points = len(workload.load_points)
            max_seconds = workload.warmup + workload.window_limit + POINT_OVERHEAD_SECONDS
            return cls(points, points, workload.window_limit, seconds, max_seconds)
        points = USUAL_CAPACITY_POINTS * len(experiment.benchmark.traffic_scenarios)
        load_plan = CapacitySearch(experiment, gpus=1)
        warmup, window = load_plan.max_phase_seconds
        max_points, max_seconds = max(load_plan.max_load_points, points), warmup + window + POINT_OVERHEAD_SECONDS
        return cls(points, max_points, window, seconds, max_seconds)

    def for_confirmation(self, experiment: Experiment) -> LaunchLoad:
        """The load of a confirmation: the load points that the winner is ranked by."""
        points = len(experiment.benchmark.traffic_scenarios)
        if OBJECTIVES[experiment.optimization.objective].at_equal_load:
            points = len(experiment.workload().load_points)
        workload = experiment.workload()
        max_seconds = workload.warmup + workload.window_limit + POINT_OVERHEAD_SECONDS
        return LaunchLoad(points, points, workload.window_limit, self.point_seconds, max_seconds)


@dataclass(frozen=True)
class RunCost:
    """Wall time in seconds, and GPU-hours: GPUs held times hours."""

    seconds: float
    gpu_hours: float

    def capped(self, seconds: float | None, gpu_hours: float | None) -> RunCost:
        """The cost, but no more than these budgets; None for no budget."""
        return RunCost(_capped(self.seconds, seconds), _capped(self.gpu_hours, gpu_hours))


@dataclass(frozen=True)
class Plan:
    """The launches of a run, an upper bound for the search, and their cost.

    `launches` are the baseline's, if it is measured, and those of the search; `gpus` has the GPUs of each, and is empty
    where none are held. `start_seconds` is the assumed duration of an engine start. `in_virtual_time`: the run is
    simulated, so that its real duration is another one.
    """

    space: Space
    experiment: Experiment
    launches: tuple[Launch, ...]
    start_seconds: float
    gpus: tuple[int, ...]
    in_virtual_time: bool = False

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates of `launches`, the baseline first."""
        return tuple(launch.candidate for launch in self.launches)

    @cached_property
    def workload(self) -> Workload:
        return self.experiment.workload()

    @cached_property
    def launch_load(self) -> LaunchLoad:
        return LaunchLoad.from_experiment(self.experiment)

    @cached_property
    def confirmation_load(self) -> LaunchLoad:
        return self.launch_load.for_confirmation(self.experiment)

    @property
    def purposes(self) -> Counter[Purpose]:
        """Upper bound on the number of launches by purpose."""
        return Counter({**Counter(launch.purpose for launch in self.launches), "confirmation": self.confirmations})

    @property
    def confirmations(self) -> int:
        """Number of confirmations of the winner and the baseline; none on a server that autotune did not start."""
        can_launch = self.in_virtual_time or self.experiment.deployment.mode != "external"
        has_baseline = self.launches and self.launches[0].purpose == "baseline"
        if not can_launch or len(self.launches) <= bool(has_baseline):
            return 0
        return (2 if has_baseline else 1) * self.experiment.optimization.confirm

    @property
    def launch_count(self) -> int:
        """Upper bound on the number of all launches."""
        return len(self.launches) + self.confirmations

    @property
    def may_end_early(self) -> bool:
        """Whether the search may stop before its last launch."""
        optimization = self.experiment.optimization
        return optimization.strategy == "racing" or optimization.patience is not None

    @property
    def usual_cost(self) -> RunCost:
        """Cost of all launches if every window lasts as configured."""
        cost = self._total_cost(self.launch_load.usual_seconds, self.confirmation_load.usual_seconds)
        return cost.capped(*self._budget)

    @property
    def max_cost(self) -> RunCost:
        """Cost of all launches with the longest windows, within the budgets."""
        # the timeout of a launch is checked between two load points
        limit = self.experiment.optimization.timeout_per_iteration + self.launch_load.max_point_seconds
        start = self.start_seconds + LAUNCH_OVERHEAD_SECONDS
        loads = (min(load.max_seconds, max(limit - start, 0.0)) for load in (self.launch_load, self.confirmation_load))
        return self._total_cost(*loads).capped(*self._budget)

    @property
    def _budget(self) -> tuple[float | None, float | None]:
        return self.experiment.optimization.max_seconds, self.experiment.optimization.max_gpu_hours

    def _total_cost(self, search_seconds: float, confirmation_seconds: float) -> RunCost:
        """Cost of all launches, given the seconds of load of one launch of the search and of one confirmation."""
        overhead = self.start_seconds + LAUNCH_OVERHEAD_SECONDS
        search_seconds, confirmation_seconds = overhead + search_seconds, overhead + confirmation_seconds
        rounds = math.ceil(len(self.launches) / self.experiment.optimization.parallel_trials)
        seconds = rounds * search_seconds + self.confirmations * confirmation_seconds
        gpu_seconds = sum(self.gpus) * search_seconds
        if self.gpus:
            # half of the confirmations launch the baseline, half the winner, at worst the largest candidate
            pair = self.gpus[0] + max(self.gpus)
            gpu_seconds += self.confirmations / 2 * pair * confirmation_seconds
        return RunCost(seconds, gpu_seconds / 3600)


def _capped(value: float, limit: float | None) -> float:
    return value if limit is None else min(value, limit)
