"""Estimate of the time a run still takes, from the durations of its phases so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from autotuner.core import LoadPoint, Progress, Trial

if TYPE_CHECKING:
    from autotuner.search.plan import Plan

RECENT_STARTS = 3
"""Latest engine starts that are averaged: the first one may also download and compile. Chosen by hand."""

MIN_LAUNCHES_FOR_MEAN = 2
"""Launches of the search after which their mean duration replaces the planned one. Chosen by hand."""


@dataclass
class RunningLaunch:
    """A launch under way: when it and its current phase started, and what it has measured.

    It consists of a start, its load points and an end; a phase lasts from the end of the one before it.
    """

    started_at: float
    phase_started_at: float
    is_ready: bool = False
    measured_points: list[LoadPoint] = field(default_factory=list)

    def end_phase(self, now: float) -> float:
        """Seconds of the phase that ends now; starts the next one."""
        seconds, self.phase_started_at = now - self.phase_started_at, now
        return seconds


class TimeEstimator:
    """Estimates the remaining time of a run from its progress events.

    All times are seconds on the caller's clock. With a plan in virtual time there is no estimate until a
    launch has ended.
    """

    def __init__(self, plan: Plan, finished_trials: Sequence[Trial], now: float) -> None:
        self.plan = plan
        self._winner_load_points: tuple[LoadPoint, ...] = ()
        self._beats_baseline = True
        self._finished_searches = sum(trial.purpose != "confirmation" for trial in finished_trials)
        self._finished_confirmations = len(finished_trials) - self._finished_searches
        self._running: dict[int, RunningLaunch] = {}
        self._start_durations: list[float] = []
        self._point_durations: dict[LoadPoint, list[float]] = {}
        self._end_durations: list[float] = []
        self._search_durations: list[float] = []
        self._search_point_counts: list[int] = []
        self.is_confirming = bool(self._finished_confirmations)

    def update(self, progress: Progress, now: float) -> None:
        """Record a progress event."""
        launch = self._running.setdefault(progress.trial_number, RunningLaunch(now, now))
        if progress.stage == "starting":
            launch.is_ready, launch.measured_points = False, []  # a second attempt of the same launch too
            self.is_confirming = self.is_confirming or progress.purpose == "confirmation"
        elif progress.stage == "ready":
            self._start_durations.append(launch.end_phase(now))
            launch.is_ready = True
        elif progress.stage == "measured" and progress.load_point is not None:
            self._point_durations.setdefault(progress.load_point, []).append(launch.end_phase(now))
            launch.measured_points.append(progress.load_point)
        elif progress.stage == "finished" and progress.finished_trial is not None:
            self._record_end(self._running.pop(progress.trial_number), progress.finished_trial, now)

    def set_winner(self, load_points: Sequence[LoadPoint], *, beats_baseline: bool) -> None:
        """Set the load points of the best candidate so far, and whether it beats the baseline."""
        self._winner_load_points, self._beats_baseline = tuple(load_points), beats_baseline

    def _record_end(self, launch: RunningLaunch, trial: Trial, now: float) -> None:
        """Count a finished launch, and keep its duration and that of its end, for the estimate."""
        seconds = launch.end_phase(now)
        if not trial.failed:
            self._end_durations.append(seconds)
        if trial.purpose == "confirmation":
            self._finished_confirmations += 1
        else:
            self._finished_searches += 1
            if trial.purpose == "search":
                self._search_durations.append(now - launch.started_at)
                self._search_point_counts.append(len(launch.measured_points))

    @property
    def finished_launches(self) -> int:
        """Finished launches, including those before a resume."""
        return self._finished_searches + self._finished_confirmations

    @property
    def running_launches(self) -> int:
        """Launches under way."""
        return len(self._running)

    @property
    def total_launches(self) -> int:
        """Finished, current and expected launches."""
        return self.finished_launches + len(self._running) + self._remaining_searches + self._remaining_confirmations

    @property
    def may_end_early(self) -> bool:
        """Whether the search may end before all its launches are used."""
        return not self.is_confirming and self.plan.may_end_early and bool(self._remaining_searches)

    @property
    def _remaining_searches(self) -> int:
        """Launches of the search still to start."""
        if self.is_confirming:
            return 0
        return max(0, len(self.plan.launches) - self._finished_searches - len(self._running))

    @property
    def _remaining_confirmations(self) -> int:
        """Confirmations still to start; none if late in the search nothing beats the baseline.

        There may be more than planned, because a refuted winner is replaced by the next best.
        """
        if self.is_confirming:
            return max(0, self.plan.confirmations - self._finished_confirmations - len(self._running))
        is_late = 2 * self._finished_searches >= len(self.plan.launches)
        return 0 if is_late and not self._beats_baseline else self.plan.confirmations

    def remaining_seconds(self, now: float) -> float | None:
        """Estimated seconds until the run ends; None while unknown."""
        if self.plan.in_virtual_time and not self._end_durations:
            return None
        running = [self._launch_seconds_left(launch, now) for launch in self._running.values()]
        searches = self._remaining_searches * self._search_seconds()
        parallel_trials = self.plan.experiment.optimization.parallel_trials
        search_seconds = max((sum(running) + searches) / parallel_trials, max(running, default=0.0))
        return search_seconds + self._remaining_confirmations * self._confirmation_seconds()

    def _launch_seconds_left(self, launch: RunningLaunch, now: float) -> float:
        """Estimated seconds left of a running launch."""
        elapsed = now - launch.phase_started_at
        point_seconds = self._remaining_point_seconds(launch)
        if not launch.is_ready:
            return max(0.0, self._start_seconds() - elapsed) + sum(point_seconds) + self._end_seconds()
        if not point_seconds:
            return max(0.0, self._end_seconds() - elapsed)
        return max(0.0, point_seconds[0] - elapsed) + sum(point_seconds[1:]) + self._end_seconds()

    def _remaining_point_seconds(self, launch: RunningLaunch) -> list[float]:
        """Expected seconds of each remaining load point of a launch, the running one first."""
        points = self._planned_points()
        count = max(0, self._expected_point_count(launch, len(points)) - len(launch.measured_points))
        remaining = [point for point in points if point is None or point not in launch.measured_points]
        return [self._point_seconds(point) for point in remaining[:count]]

    def _planned_points(self) -> Sequence[LoadPoint | None]:
        """Planned load points of the current launch; None stands for a load chosen during the launch."""
        return self._confirmation_points() if self.is_confirming else self._search_points()

    def _search_points(self) -> Sequence[LoadPoint | None]:
        if self.plan.experiment.benchmark.find_capacity:
            return [None] * self.plan.launch_load.points
        return self.plan.workload.load_points

    def _confirmation_points(self) -> Sequence[LoadPoint | None]:
        return self._winner_load_points or [None] * self.plan.confirmation_load.points

    def _expected_point_count(self, launch: RunningLaunch, planned: int) -> int:
        """Load points of a running launch: the mean count of earlier launches that got at least as far."""
        if self.is_confirming:
            return planned
        counts = [count for count in self._search_point_counts if count > len(launch.measured_points)]
        return round(fmean(counts)) if len(counts) >= MIN_LAUNCHES_FOR_MEAN else planned

    def _search_seconds(self) -> float:
        """Expected seconds of one launch of the search."""
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
        """Expected seconds of a load point: its mean over launches, else the mean of all load points."""
        if point is not None and point in self._point_durations:
            return fmean(self._point_durations[point])
        all_durations = [seconds for durations in self._point_durations.values() for seconds in durations]
        return fmean(all_durations) if all_durations else self.plan.launch_load.point_seconds


def format_duration(seconds: float) -> str:
    """Format seconds as `1:02:03`, `4:05` or `12 s`."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    minutes, remainder = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{remainder:02d}" if hours else f"{minutes}:{remainder:02d}"
