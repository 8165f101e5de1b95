"""A launch, as a searcher proposes it: a candidate and a load plan."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from autotuner.core import (
    Candidate,
    LoadPlanSummary,
    LoadPoint,
    LoadPointResult,
    LoadStep,
    Observation,
    Purpose,
    StopRule,
    Workload,
)
from autotuner.experiment import Experiment


class LoadPlan(Protocol):
    """Chooses the load points of one launch one by one; each choice may depend on the results so far."""

    @property
    def max_load_points(self) -> int:
        """Upper bound on the number of load points, for progress and time estimates."""

    def ask(self) -> LoadStep | None:
        """The next load point, the same one until `tell` receives its result; None at the end."""

    def tell(self, result: LoadPointResult) -> None:
        """Receive the result of the load point last asked for, not yet judged."""

    @property
    def outcome(self) -> LoadPlanSummary:
        """Capacities found so far, and why the plan was abandoned, if it was."""


@runtime_checkable
class ObservingLoadPlan(LoadPlan, Protocol):
    """A load plan that also reads what the started server reports of itself, and the raw records of each load point."""

    def server_ready(self, server: Mapping[str, Any], start_seconds: float) -> None:
        """Receive the server's own figures, as in `Measurement.server`, before the first load point."""

    def observe(self, observation: Observation) -> None:
        """Receive the raw records of the load point last asked for, before `tell`."""


StopRuleFactory = Callable[[LoadPoint], StopRule | None]
"""Makes a fresh stop rule for each attempt at a load point; None runs the window to its configured end."""


class ListedLoads:
    """Every load point of a workload in order, each ended by its `stop_rule`, repeated once if `should_retry`."""

    def __init__(
        self,
        workload: Workload,
        stop_rule: StopRuleFactory | None = None,
        should_retry: Callable[[LoadPointResult], bool] | None = None,
    ) -> None:
        self.max_load_points = len(workload.load_points)
        self._workload, self._stop_rule, self._should_retry = workload, stop_rule, should_retry
        self._remaining_points = deque(workload.load_points)
        self._attempt = 1

    def ask(self) -> LoadStep | None:
        """The next load point, with another seed on its second attempt."""
        if not self._remaining_points:
            return None
        point = self._remaining_points[0]
        step = LoadStep(self._workload.for_load_point(point), self._stop_rule(point) if self._stop_rule else None)
        return step if self._attempt == 1 else step.for_attempt(self._attempt)

    def tell(self, result: LoadPointResult) -> None:
        """Move on to the next load point, unless this one deserves a second attempt."""
        if self._attempt == 1 and self._should_retry and self._should_retry(result):
            self._attempt = 2
            return
        self._attempt = 1
        self._remaining_points.popleft()

    @property
    def outcome(self) -> LoadPlanSummary:
        return LoadPlanSummary()


def load_plan_for(experiment: Experiment, workload: Workload | None = None) -> ListedLoads:
    """The experiment's load points, or those of `workload`, each until verdict and objective are precise enough."""
    from autotuner.scoring.sequential import precision_stop_rule  # numpy takes its time
    from autotuner.search.margins import is_retryable

    return ListedLoads(workload or experiment.workload(), partial(precision_stop_rule, experiment), is_retryable)


@dataclass(frozen=True)
class Launch:
    """A candidate to launch, why, and its load plan; None for the experiment's own load points."""

    candidate: Candidate
    purpose: Purpose = "search"
    load_plan: LoadPlan | None = None
