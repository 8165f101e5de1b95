"""What a run will cost, told before anything starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from autotuner.core import Candidate, Purpose, Workload
from autotuner.experiment import Experiment
from autotuner.scoring.objective import OBJECTIVES
from autotuner.search.capacity import CapacityCourse
from autotuner.search.launch import Launch
from autotuner.search.space import Space

SETTLING = 1.0
"""Seconds of a load point beside warm-up and window: prompts are made before, what is in flight ends after."""

STOPPING = 2.0
"""Seconds of a launch beside its start and its load: the engine ends, the trial is kept."""

CAPACITY_POINTS = 3
"""Load points that the capacity on one scenario usually takes, beside the engine's start."""


@dataclass(frozen=True)
class Load:
    """What one launch is driven with: how many load points, seconds of one; usually, and at most.

    `window` is how many seconds the window of a load point lasts at most.
    """

    points: int
    most_points: int
    window: float
    seconds: float
    most_seconds: float

    @property
    def usual(self) -> float:
        """Seconds in which all windows last as configured."""
        return self.points * self.seconds

    @property
    def most(self) -> float:
        """Seconds in which every load point that may be asked for takes its longest."""
        return self.most_points * self.most_seconds

    @classmethod
    def of(cls, experiment: Experiment) -> Load:
        """What a candidate is driven with."""
        workload = experiment.workload()
        seconds = workload.warmup + workload.duration + SETTLING
        if not experiment.benchmark.find_capacity:
            points = len(workload.load_points)
            return cls(points, points, workload.limit, seconds, workload.warmup + workload.limit + SETTLING)
        scenarios = len(experiment.benchmark.traffic_scenarios)
        course = CapacityCourse(experiment, gpus=1)
        most = max(course.total, CAPACITY_POINTS * scenarios)
        warmup, window = course.longest
        return cls(CAPACITY_POINTS * scenarios, most, window, seconds, warmup + window + SETTLING)

    def confirming(self, experiment: Experiment) -> Load:
        """What a confirmation is driven with: the load points on which the winner stands."""
        points = len(experiment.benchmark.traffic_scenarios)
        if OBJECTIVES[experiment.optimization.objective].at_equal_load:
            points = len(experiment.workload().load_points)
        workload = experiment.workload()
        most = workload.warmup + workload.limit + SETTLING
        return Load(points, points, workload.limit, self.seconds, most)


@dataclass(frozen=True)
class RunCost:
    """Time in seconds, and GPUs held times the hours they are held."""

    seconds: float
    gpu_hours: float

    def within(self, seconds: float | None, gpu_hours: float | None) -> RunCost:
        """No more than these budgets, None for none."""
        return RunCost(_least(self.seconds, seconds), _least(self.gpu_hours, gpu_hours))


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
    virtual: bool = False

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates of the search's launches, the baseline first."""
        return tuple(launch.candidate for launch in self.launches)

    @cached_property
    def workload(self) -> Workload:
        """The load points of the experiment, and how each is driven."""
        return self.experiment.workload()

    @cached_property
    def load(self) -> Load:
        """What a launch of the search is driven with."""
        return Load.of(self.experiment)

    @cached_property
    def confirming(self) -> Load:
        """What a confirmation is driven with."""
        return self.load.confirming(self.experiment)

    @property
    def purposes(self) -> Counter[Purpose]:
        """How many launches there are for each purpose, at most."""
        return Counter({**Counter(launch.purpose for launch in self.launches), "confirmation": self.confirmations})

    @property
    def confirmations(self) -> int:
        """Launches that confirm the winner, and the baseline where there is one; none of a server that runs already."""
        launched = self.virtual or self.experiment.deployment.mode != "external"
        compared = self.launches and self.launches[0].purpose == "baseline"
        if not launched or len(self.launches) <= bool(compared):
            return 0
        return (2 if compared else 1) * self.experiment.optimization.confirm

    @property
    def total(self) -> int:
        """All launches."""
        return len(self.launches) + self.confirmations

    @property
    def may_end_early(self) -> bool:
        """Whether the search makes fewer launches where more would be in vain."""
        chosen = self.experiment.optimization
        return chosen.strategy == "racing" or chosen.patience is not None

    @property
    def usual(self) -> RunCost:
        """All launches, with every window as long as it is configured."""
        return self._estimate(self.load.usual, self.confirming.usual).within(*self._budget)

    @property
    def most(self) -> RunCost:
        """All launches, with every window as long as it may get, within the budgets."""
        chosen = self.experiment.optimization
        # a launch is given up between two load points
        limit = chosen.timeout_per_iteration + self.load.most_seconds
        start = self.start_seconds + STOPPING
        loads = (min(load.most, max(limit - start, 0.0)) for load in (self.load, self.confirming))
        return self._estimate(*loads).within(*self._budget)

    @property
    def _budget(self) -> tuple[float | None, float | None]:
        return self.experiment.optimization.max_seconds, self.experiment.optimization.max_gpu_hours

    def _estimate(self, searching: float, confirming: float) -> RunCost:
        beside = self.start_seconds + STOPPING
        seconds = len(self.launches) * (beside + searching) + self.confirmations * (beside + confirming)
        gpu_seconds = sum(self.gpus) * (beside + searching)
        if self.gpus:
            # half of them launch the baseline, half a winner that is not known yet
            pair = self.gpus[0] + max(self.gpus)
            gpu_seconds += self.confirmations / 2 * pair * (beside + confirming)
        return RunCost(seconds, gpu_seconds / 3600)


def _least(value: float, limit: float | None) -> float:
    return value if limit is None else min(value, limit)
