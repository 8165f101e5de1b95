"""What a run will cost, told before anything starts."""

from __future__ import annotations

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
"""Seconds of a load point beside warm-up and window: prompts are made before, what is in flight ends after."""

LAUNCH_OVERHEAD_SECONDS = 2.0
"""Seconds of a launch beside its start and its load: the engine ends, the trial is kept."""

USUAL_CAPACITY_POINTS = 3
"""Load points that the capacity on one scenario usually takes, beside the engine's start."""


@dataclass(frozen=True)
class LaunchLoad:
    """What one launch is driven with: how many load points, seconds of one; usually, and at most.

    `window` is how many seconds the window of a load point lasts at most.
    """

    points: int
    max_points: int
    max_window: float
    point_seconds: float
    max_point_seconds: float

    @property
    def usual_seconds(self) -> float:
        """Seconds in which all windows last as configured."""
        return self.points * self.point_seconds

    @property
    def max_seconds(self) -> float:
        """Seconds in which every load point that may be asked for takes its longest."""
        return self.max_points * self.max_point_seconds

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> LaunchLoad:
        """What a candidate is driven with."""
        workload = experiment.workload()
        seconds = workload.warmup + workload.duration + POINT_OVERHEAD_SECONDS
        if not experiment.benchmark.find_capacity:
            points = len(workload.load_points)
            return cls(
                points,
                points,
                workload.window_limit,
                seconds,
                workload.warmup + workload.window_limit + POINT_OVERHEAD_SECONDS,
            )
        scenarios = len(experiment.benchmark.traffic_scenarios)
        course = CapacitySearch(experiment, gpus=1)
        most = max(course.max_load_points, USUAL_CAPACITY_POINTS * scenarios)
        warmup, window = course.max_phase_seconds
        return cls(USUAL_CAPACITY_POINTS * scenarios, most, window, seconds, warmup + window + POINT_OVERHEAD_SECONDS)

    def for_confirmation(self, experiment: Experiment) -> LaunchLoad:
        """What a confirmation is driven with: the load points on which the winner stands."""
        points = len(experiment.benchmark.traffic_scenarios)
        if OBJECTIVES[experiment.optimization.objective].at_equal_load:
            points = len(experiment.workload().load_points)
        workload = experiment.workload()
        most = workload.warmup + workload.window_limit + POINT_OVERHEAD_SECONDS
        return LaunchLoad(points, points, workload.window_limit, self.point_seconds, most)


@dataclass(frozen=True)
class RunCost:
    """Time in seconds, and GPUs held times the hours they are held."""

    seconds: float
    gpu_hours: float

    def capped(self, seconds: float | None, gpu_hours: float | None) -> RunCost:
        """No more than these budgets, None for none."""
        return RunCost(_capped(self.seconds, seconds), _capped(self.gpu_hours, gpu_hours))


@dataclass(frozen=True)
class Plan:
    """The launches a run will make, those of the search at most, and what they cost.

    `launches` are those of the search, the baseline's first where it is measured; `gpus` the GPUs
    of each, empty where none are taken. At the end winner and baseline are launched `confirmations`
    times in all. `start_seconds` is what one engine start is taken to last. `virtual` says that no
    server runs, so that real seconds are other ones.
    """

    space: Space
    experiment: Experiment
    launches: tuple[Launch, ...]
    start_seconds: float
    gpus: tuple[int, ...]
    is_virtual: bool = False

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates of the search's launches, the baseline first."""
        return tuple(launch.candidate for launch in self.launches)

    @cached_property
    def workload(self) -> Workload:
        """The load points of the experiment, and how each is driven."""
        return self.experiment.workload()

    @cached_property
    def launch_load(self) -> LaunchLoad:
        """What a launch of the search is driven with."""
        return LaunchLoad.from_experiment(self.experiment)

    @cached_property
    def confirmation_load(self) -> LaunchLoad:
        """What a confirmation is driven with."""
        return self.launch_load.for_confirmation(self.experiment)

    @property
    def purposes(self) -> Counter[Purpose]:
        """How many launches there are for each purpose, at most."""
        return Counter({**Counter(launch.purpose for launch in self.launches), "confirmation": self.confirmations})

    @property
    def confirmations(self) -> int:
        """Launches that confirm the winner, and the baseline where there is one; none of a server that runs already."""
        launched = self.is_virtual or self.experiment.deployment.mode != "external"
        compared = self.launches and self.launches[0].purpose == "baseline"
        if not launched or len(self.launches) <= bool(compared):
            return 0
        return (2 if compared else 1) * self.experiment.optimization.confirm

    @property
    def launch_count(self) -> int:
        """All launches."""
        return len(self.launches) + self.confirmations

    @property
    def may_end_early(self) -> bool:
        """Whether the search makes fewer launches where more would be in vain."""
        chosen = self.experiment.optimization
        return chosen.strategy == "racing" or chosen.patience is not None

    @property
    def usual_cost(self) -> RunCost:
        """All launches, with every window as long as it is configured."""
        return self._total_cost(self.launch_load.usual_seconds, self.confirmation_load.usual_seconds).capped(
            *self._budget
        )

    @property
    def max_cost(self) -> RunCost:
        """All launches, with every window as long as it may get, within the budgets."""
        chosen = self.experiment.optimization
        # a launch is given up between two load points
        limit = chosen.timeout_per_iteration + self.launch_load.max_point_seconds
        start = self.start_seconds + LAUNCH_OVERHEAD_SECONDS
        loads = (min(load.max_seconds, max(limit - start, 0.0)) for load in (self.launch_load, self.confirmation_load))
        return self._total_cost(*loads).capped(*self._budget)

    @property
    def _budget(self) -> tuple[float | None, float | None]:
        return self.experiment.optimization.max_seconds, self.experiment.optimization.max_gpu_hours

    def _total_cost(self, searching: float, confirming: float) -> RunCost:
        beside = self.start_seconds + LAUNCH_OVERHEAD_SECONDS
        seconds = len(self.launches) * (beside + searching) + self.confirmations * (beside + confirming)
        gpu_seconds = sum(self.gpus) * (beside + searching)
        if self.gpus:
            # half of them launch the baseline, half a winner that is not known yet
            pair = self.gpus[0] + max(self.gpus)
            gpu_seconds += self.confirmations / 2 * pair * (beside + confirming)
        return RunCost(seconds, gpu_seconds / 3600)


def _capped(value: float, limit: float | None) -> float:
    return value if limit is None else min(value, limit)
