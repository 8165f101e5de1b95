"""What a searcher proposes: one server launch, and the load it is to serve."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from autotuner.core import Candidate, LoadPointResult, LoadStep, Outcome, Purpose, Workload


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


class FixedCourse:
    """Every load point of a workload, in its order."""

    def __init__(self, workload: Workload) -> None:
        self.total = len(workload.load_points)
        self._left = deque(LoadStep(workload.at(point)) for point in workload.load_points)

    def ask(self) -> LoadStep | None:
        """The next one."""
        return self._left[0] if self._left else None

    def tell(self, result: LoadPointResult) -> None:
        """Go on to the next one."""
        self._left.popleft()

    @property
    def outcome(self) -> Outcome:
        """Nothing but the load points themselves."""
        return Outcome()


@dataclass(frozen=True)
class Launch:
    """A candidate to launch, why, and on which course; None for the load points of the experiment."""

    candidate: Candidate
    purpose: Purpose = "search"
    course: Course | None = None
