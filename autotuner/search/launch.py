"""What a searcher proposes: one server launch, and the load it is to serve."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from autotuner.core import Candidate, LoadPlanSummary, LoadPoint, LoadPointResult, LoadStep, Purpose, StopRule, Workload
from autotuner.experiment import Experiment


class LoadPlan(Protocol):
    """Chooses the load points of one launch, each in view of those before it."""

    @property
    def max_load_points(self) -> int:
        """How many load points it takes at most."""

    def ask(self) -> LoadStep | None:
        """The next load point, the same one until its result is told; None when no more are needed."""

    def tell(self, result: LoadPointResult) -> None:
        """Take note of what it came to, not yet judged."""

    @property
    def outcome(self) -> LoadPlanSummary:
        """What the load points told so far come to."""


StopRuleFactory = Callable[[LoadPoint], StopRule | None]
"""The stop rule of a load point, a new one for each time it is driven; None to let it run its course."""


class ListedLoads:
    """Every load point of a workload, in its order, each until its `rule` has enough.

    What says nothing for reasons that may be chance is driven once more where `again` says so.
    """

    def __init__(
        self,
        workload: Workload,
        stop_rule: StopRuleFactory = lambda point: None,
        should_retry: Callable[[LoadPointResult], bool] = lambda result: False,
    ) -> None:
        self.max_load_points = len(workload.load_points)
        self._workload, self._stop_rule, self._should_retry = workload, stop_rule, should_retry
        self._remaining_points = deque(workload.load_points)
        self._attempt = 1

    def ask(self) -> LoadStep | None:
        """The next one."""
        if not self._remaining_points:
            return None
        step = LoadStep(
            self._workload.for_load_point(self._remaining_points[0]), self._stop_rule(self._remaining_points[0])
        )
        return step if self._attempt == 1 else step.for_attempt(self._attempt)

    def tell(self, result: LoadPointResult) -> None:
        """Go on to the next one, or try this one again."""
        if self._attempt == 1 and self._should_retry(result):
            self._attempt = 2
            return
        self._attempt = 1
        self._remaining_points.popleft()

    @property
    def outcome(self) -> LoadPlanSummary:
        """Nothing but the load points themselves."""
        return LoadPlanSummary()


def load_plan_for(experiment: Experiment, workload: Workload | None = None) -> ListedLoads:
    """The load points of an experiment, or of a `workload` of it, until targets and objective are known."""
    from autotuner.scoring.sequential import precision_stop_rule  # numpy takes its time
    from autotuner.search.margins import is_retryable

    return ListedLoads(
        workload or experiment.workload(), lambda point: precision_stop_rule(experiment, point), is_retryable
    )


@dataclass(frozen=True)
class Launch:
    """A candidate to launch, why, and on which course; None for the load points of the experiment."""

    candidate: Candidate
    purpose: Purpose = "search"
    load_plan: LoadPlan | None = None
