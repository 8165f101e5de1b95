"""How long a run will still take, learnt from what its phases took so far."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from autotuner.core import LoadPoint, Progress, Trial

if TYPE_CHECKING:
    from autotuner.search.plan import Plan

RECENT = 3
"""Engine starts that the next one is expected to be like: the first may also download and compile."""

FEW = 2
"""Launches of the search after which their own mean is believed, and not what was planned."""


class Pace:
    """Takes in the steps of a run, and says what is left of it.

    All times are seconds on one clock, which the caller reads. A launch is its start, its load
    points, each from the end of what was before it, and an end; so nothing lies between phases.
    Where the plan is in virtual time, nothing is known until a launch has ended.
    """

    def __init__(self, plan: Plan, done: Sequence[Trial], now: float) -> None:
        self.plan = plan
        self._confirmed_at: tuple[LoadPoint, ...] = ()
        self._leads = True
        self._searched = sum(trial.purpose != "confirmation" for trial in done)
        self._confirmed = len(done) - self._searched
        self._mark = self._began = now
        self._starts: list[float] = []
        self._points: dict[LoadPoint, list[float]] = {}
        self._ends: list[float] = []
        self._launches: list[float] = []
        self._counts: list[int] = []
        self._running = False
        self._ready = False
        self._driven: list[LoadPoint] = []
        self.confirming = bool(self._confirmed)

    def take(self, progress: Progress, now: float) -> None:
        """Take in one step."""
        if progress.stage == "starting":
            self._running, self._ready, self._driven = True, False, []
            self.confirming = self.confirming or progress.purpose == "confirmation"
        elif progress.stage == "ready":
            self._starts.append(self._passed(now))
            self._ready = True
        elif progress.stage == "measured" and progress.load_point is not None:
            self._points.setdefault(progress.load_point, []).append(self._passed(now))
            self._driven.append(progress.load_point)
        elif progress.stage == "finished" and progress.finished is not None:
            self._finish(progress.finished, now)

    def lead(self, load_points: Sequence[LoadPoint], *, leads: bool) -> None:
        """Take note of the load points on which the best so far stands, and whether it leads the baseline."""
        self._confirmed_at, self._leads = tuple(load_points), leads

    def _finish(self, trial: Trial, now: float) -> None:
        passed = self._passed(now)
        if not trial.failed:
            self._ends.append(passed)
        if trial.purpose == "confirmation":
            self._confirmed += 1
        else:
            self._searched += 1
            if trial.purpose == "search":
                self._launches.append(now - self._began)
                self._counts.append(len(self._driven))
        self._running, self._began = False, now

    def _passed(self, now: float) -> float:
        """Seconds of the phase that ends now; the next one begins."""
        passed, self._mark = now - self._mark, now
        return passed

    @property
    def finished(self) -> int:
        """Launches that have ended, those before a resumption among them."""
        return self._searched + self._confirmed

    @property
    def launches(self) -> int:
        """All launches of the run, as far as is known."""
        return self.finished + self._running + self._searching_left + self._confirmations_left

    @property
    def may_end_early(self) -> bool:
        """Whether fewer launches may follow than are counted."""
        return not self.confirming and self.plan.may_end_early and bool(self._searching_left)

    @property
    def _searching_left(self) -> int:
        """Launches of the search that are still to start."""
        if self.confirming:
            return 0
        return max(0, len(self.plan.launches) - self._searched - self._running)

    @property
    def _confirmations_left(self) -> int:
        """Confirmations still to start; none where nothing leads the baseline, late in the search.

        A winner that is refuted yields to the next best, so that there may be more than were planned.
        """
        if self.confirming:
            return max(0, self.plan.confirmations - self._confirmed - self._running)
        late = 2 * self._searched >= len(self.plan.launches)
        return 0 if late and not self._leads else self.plan.confirmations

    def left(self, now: float) -> float | None:
        """Seconds until the run ends; None while nothing is known."""
        if self.plan.virtual and not self._ends:
            return None
        after = self._searching_left * self._search_seconds() + self._confirmations_left * self._confirmation_seconds()
        return (self._current(now) if self._running else 0.0) + after

    def _current(self, now: float) -> float:
        """Seconds of the launch under way."""
        passed = now - self._mark
        coming = self._coming()
        if not self._ready:
            return max(0.0, self._start() - passed) + sum(coming) + self._end()
        if not coming:
            return max(0.0, self._end() - passed)
        return max(0.0, coming[0] - passed) + sum(coming[1:]) + self._end()

    def _coming(self) -> list[float]:
        """Seconds of each load point that the launch under way still has to drive, the one being driven first."""
        planned = self._planned()
        count = max(0, self._expected_count(len(planned)) - len(self._driven))
        return [self._point(point) for point in planned if point is None or point not in self._driven][:count]

    def _planned(self) -> Sequence[LoadPoint | None]:
        """The load points of a launch like the one under way, None for one that is not known beforehand."""
        return self._confirmation_points() if self.confirming else self._search_points()

    def _search_points(self) -> Sequence[LoadPoint | None]:
        if self.plan.experiment.benchmark.find_capacity:
            return [None] * self.plan.load.points
        return self.plan.workload.load_points

    def _confirmation_points(self) -> Sequence[LoadPoint | None]:
        return self._confirmed_at or [None] * self.plan.confirming.points

    def _expected_count(self, planned: int) -> int:
        """Load points of the launch under way: as many as those of the search that came as far took on average."""
        if self.confirming:
            return planned
        as_far = [count for count in self._counts if count > len(self._driven)]
        return round(fmean(as_far)) if len(as_far) >= FEW else planned

    def _search_seconds(self) -> float:
        """One launch of the search."""
        if len(self._launches) >= FEW:
            return fmean(self._launches)
        return self._start() + sum(map(self._point, self._search_points())) + self._end()

    def _confirmation_seconds(self) -> float:
        return self._start() + sum(map(self._point, self._confirmation_points())) + self._end()

    def _start(self) -> float:
        return fmean(self._starts[-RECENT:]) if self._starts else self.plan.start_seconds

    def _end(self) -> float:
        return fmean(self._ends) if self._ends else 0.0

    def _point(self, point: LoadPoint | None) -> float:
        """One load point: like itself on other launches, else like any other one."""
        if point is not None and point in self._points:
            return fmean(self._points[point])
        others = [seconds for each in self._points.values() for seconds in each]
        return fmean(others) if others else self.plan.load.seconds


def clock(seconds: float) -> str:
    """`1:02:03`, `4:05` or `12 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
