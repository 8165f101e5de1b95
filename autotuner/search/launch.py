"""What a searcher proposes: one server launch, and the load it is to serve."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from autotuner.core import Candidate, LoadPoint, LoadPointResult, LoadStep, Outcome, Purpose, StopRule, Workload
from autotuner.experiment import Experiment


class Course(Protocol):
    """Chooses the load points of one launch, each in view of those before it."""

    @property
    def total(self) -> int:
        """How many load points it takes at most."""

    def ask(self) -> LoadStep | None:
        """The next load point, the same one until its result is told; None when no more are needed."""

    def tell(self, result: LoadPointResult) -> None:
        """Take note of what it came to, not yet judged."""

    @property
    def outcome(self) -> Outcome:
        """What the load points told so far come to."""


Rule = Callable[[LoadPoint], StopRule | None]
"""The stop rule of a load point, a new one for each time it is driven; None to let it run its course."""


class FixedCourse:
    """Every load point of a workload, in its order, each until its `rule` has enough.

    What says nothing for reasons that may be chance is driven once more where `again` says so.
    """

    def __init__(
        self,
        workload: Workload,
        rule: Rule = lambda point: None,
        again: Callable[[LoadPointResult], bool] = lambda result: False,
    ) -> None:
        self.total = len(workload.load_points)
        self._workload, self._rule, self._again = workload, rule, again
        self._left = deque(workload.load_points)
        self._tries = 1

    def ask(self) -> LoadStep | None:
        """The next one."""
        if not self._left:
            return None
        step = LoadStep(self._workload.at(self._left[0]), self._rule(self._left[0]))
        return step if self._tries == 1 else step.reseeded(self._tries)

    def tell(self, result: LoadPointResult) -> None:
        """Go on to the next one, or try this one again."""
        if self._tries == 1 and self._again(result):
            self._tries = 2
            return
        self._tries = 1
        self._left.popleft()

    @property
    def outcome(self) -> Outcome:
        """Nothing but the load points themselves."""
        return Outcome()


def course_of(experiment: Experiment, workload: Workload | None = None) -> FixedCourse:
    """The load points of an experiment, or of a `workload` of it, until targets and objective are known."""
    from autotuner.scoring.sequential import precise  # numpy takes its time
    from autotuner.search.margins import may_be_chance

    return FixedCourse(workload or experiment.workload(), lambda point: precise(experiment, point), may_be_chance)


@dataclass(frozen=True)
class Launch:
    """A candidate to launch, why, and on which course; None for the load points of the experiment."""

    candidate: Candidate
    purpose: Purpose = "search"
    course: Course | None = None
