"""How long a run will still take, learnt from what its phases took so far."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from autotuner.core import LoadPoint, Progress, Trial

if TYPE_CHECKING:
    from autotuner.search.plan import Plan

RECENT_STARTS = 3
"""Engine starts that the next one is expected to be like: the first may also download and compile."""

MIN_LAUNCHES_FOR_MEAN = 2
"""Launches of the search after which their own mean is believed, and not what was planned."""


class TimeEstimator:
    """Takes in the steps of a run, and says what is left of it.

    All times are seconds on one clock, which the caller reads. A launch is its start, its load
    points, each from the end of what was before it, and an end; so nothing lies between phases.
    Where the plan is in virtual time, nothing is known until a launch has ended.
    """

    def __init__(self, plan: Plan, finished_trials: Sequence[Trial], now: float) -> None:
        self.plan = plan
        self._winner_load_points: tuple[LoadPoint, ...] = ()
        self._beats_baseline = True
        self._finished_searches = sum(trial.purpose != "confirmation" for trial in finished_trials)
        self._finished_confirmations = len(finished_trials) - self._finished_searches
        self._phase_started_at = self._launch_started_at = now
        self._start_durations: list[float] = []
        self._point_durations: dict[LoadPoint, list[float]] = {}
        self._end_durations: list[float] = []
        self._search_durations: list[float] = []
        self._search_point_counts: list[int] = []
        self._is_running = False
        self._is_ready = False
        self._measured_points: list[LoadPoint] = []
        self.is_confirming = bool(self._finished_confirmations)

    def update(self, progress: Progress, now: float) -> None:
        """Take in one step."""
        if progress.stage == "starting":
            self._is_running, self._is_ready, self._measured_points = True, False, []
            self.is_confirming = self.is_confirming or progress.purpose == "confirmation"
        elif progress.stage == "ready":
            self._start_durations.append(self._end_phase(now))
            self._is_ready = True
        elif progress.stage == "measured" and progress.load_point is not None:
            self._point_durations.setdefault(progress.load_point, []).append(self._end_phase(now))
            self._measured_points.append(progress.load_point)
        elif progress.stage == "finished" and progress.finished_trial is not None:
            self._record_end(progress.finished_trial, now)

    def set_winner(self, load_points: Sequence[LoadPoint], *, beats_baseline: bool) -> None:
        """Take note of the load points on which the best so far stands, and whether it leads the baseline."""
        self._winner_load_points, self._beats_baseline = tuple(load_points), beats_baseline

    def _record_end(self, trial: Trial, now: float) -> None:
        passed = self._end_phase(now)
        if not trial.failed:
            self._end_durations.append(passed)
        if trial.purpose == "confirmation":
            self._finished_confirmations += 1
        else:
            self._finished_searches += 1
            if trial.purpose == "search":
                self._search_durations.append(now - self._launch_started_at)
                self._search_point_counts.append(len(self._measured_points))
        self._is_running, self._launch_started_at = False, now

    def _end_phase(self, now: float) -> float:
        """Seconds of the phase that ends now; the next one begins."""
        passed, self._phase_started_at = now - self._phase_started_at, now
        return passed

    @property
    def finished_launches(self) -> int:
        """Launches that have ended, those before a resumption among them."""
        return self._finished_searches + self._finished_confirmations

    @property
    def total_launches(self) -> int:
        """All launches of the run, as far as is known."""
        return self.finished_launches + self._is_running + self._remaining_searches + self._remaining_confirmations

    @property
    def may_end_early(self) -> bool:
        """Whether fewer launches may follow than are counted."""
        return not self.is_confirming and self.plan.may_end_early and bool(self._remaining_searches)

    @property
    def _remaining_searches(self) -> int:
        """Launches of the search that are still to start."""
        if self.is_confirming:
            return 0
        return max(0, len(self.plan.launches) - self._finished_searches - self._is_running)

    @property
    def _remaining_confirmations(self) -> int:
        """Confirmations still to start; none where nothing leads the baseline, late in the search.

        A winner that is refuted yields to the next best, so that there may be more than were planned.
        """
        if self.is_confirming:
            return max(0, self.plan.confirmations - self._finished_confirmations - self._is_running)
        late = 2 * self._finished_searches >= len(self.plan.launches)
        return 0 if late and not self._beats_baseline else self.plan.confirmations

    def remaining_seconds(self, now: float) -> float | None:
        """Seconds until the run ends; None while nothing is known."""
        if self.plan.is_virtual and not self._end_durations:
            return None
        after = (
            self._remaining_searches * self._search_seconds()
            + self._remaining_confirmations * self._confirmation_seconds()
        )
        return (self._launch_seconds_left(now) if self._is_running else 0.0) + after

    def _launch_seconds_left(self, now: float) -> float:
        """Seconds of the launch under way."""
        passed = now - self._phase_started_at
        coming = self._remaining_point_seconds()
        if not self._is_ready:
            return max(0.0, self._start_seconds() - passed) + sum(coming) + self._end_seconds()
        if not coming:
            return max(0.0, self._end_seconds() - passed)
        return max(0.0, coming[0] - passed) + sum(coming[1:]) + self._end_seconds()

    def _remaining_point_seconds(self) -> list[float]:
        """Seconds of each load point that the launch under way still has to drive, the one being driven first."""
        planned = self._planned_points()
        count = max(0, self._expected_point_count(len(planned)) - len(self._measured_points))
        return [self._point_seconds(point) for point in planned if point is None or point not in self._measured_points][
            :count
        ]

    def _planned_points(self) -> Sequence[LoadPoint | None]:
        """The load points of a launch like the one under way, None for one that is not known beforehand."""
        return self._confirmation_points() if self.is_confirming else self._search_points()

    def _search_points(self) -> Sequence[LoadPoint | None]:
        if self.plan.experiment.benchmark.find_capacity:
            return [None] * self.plan.launch_load.points
        return self.plan.workload.load_points

    def _confirmation_points(self) -> Sequence[LoadPoint | None]:
        return self._winner_load_points or [None] * self.plan.confirmation_load.points

    def _expected_point_count(self, planned: int) -> int:
        """Load points of the launch under way: as many as those of the search that came as far took on average."""
        if self.is_confirming:
            return planned
        as_far = [count for count in self._search_point_counts if count > len(self._measured_points)]
        return round(fmean(as_far)) if len(as_far) >= MIN_LAUNCHES_FOR_MEAN else planned

    def _search_seconds(self) -> float:
        """One launch of the search."""
        if len(self._search_durations) >= MIN_LAUNCHES_FOR_MEAN:
            return fmean(self._search_durations)
        return self._start_seconds() + sum(map(self._point_seconds, self._search_points())) + self._end_seconds()

    def _confirmation_seconds(self) -> float:
        return self._start_seconds() + sum(map(self._point_seconds, self._confirmation_points())) + self._end_seconds()

    def _start_seconds(self) -> float:
        return fmean(self._start_durations[-RECENT_STARTS:]) if self._start_durations else self.plan.start_seconds

    def _end_seconds(self) -> float:
        return fmean(self._end_durations) if self._end_durations else 0.0

    def _point_seconds(self, point: LoadPoint | None) -> float:
        """One load point: like itself on other launches, else like any other one."""
        if point is not None and point in self._point_durations:
            return fmean(self._point_durations[point])
        others = [seconds for each in self._point_durations.values() for seconds in each]
        return fmean(others) if others else self.plan.launch_load.point_seconds


def format_duration(seconds: float) -> str:
    """`1:02:03`, `4:05` or `12 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
