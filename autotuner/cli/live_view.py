"""Progress of a run: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from autotuner.cli import display
from autotuner.cli.live_panel import LivePanel
from autotuner.cli.load_point_rows import (
    failure_rows,
    load_point_cells,
    load_point_row,
    load_point_summary,
    load_points_table,
    trial_rows,
)
from autotuner.cli.time_left import TimeEstimator, format_duration
from autotuner.core import Failure, LoadPointResult, Progress, Trial

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from autotuner.report.candidate_names import CandidateNames
    from autotuner.report.run_view import RunView
    from autotuner.search.plan import Plan

Clock = Callable[[], float]
"""Returns seconds from an arbitrary origin."""

PANEL_OVERHEAD_LINES = 14
"""Terminal lines of the panel outside its table, with one launch under way."""

LINES_PER_LAUNCH = 3
"""Terminal lines of each further launch that runs side by side."""

FAILURE_INDENT = 14
"""Columns before the text of the last failure in the panel."""


class RunStatus:
    """State of a running tune or load test: finished trials and their ranking, measured load points, time estimate."""

    def __init__(self, plan: Plan, finished_trials: Sequence[Trial], now: float, *, is_load_test: bool = False) -> None:
        self.plan = plan
        self.is_load_test = is_load_test
        self.time_estimator = TimeEstimator(plan, finished_trials, now)
        self.view = self._view_of(finished_trials)
        self.names = self._candidate_names()
        self.rows = [row for trial in self.view.trials for row in trial_rows(trial, plan, self.names)]

    def update(self, progress: Progress, now: float) -> None:
        """Record a progress event."""
        self.time_estimator.update(progress, now)
        if progress.stage == "measured" and progress.result is not None:
            self.rows.append(self._load_point_row(progress))
        elif progress.stage == "finished" and progress.finished_trial is not None:
            self.rows += failure_rows(progress.finished_trial, self.names)
            self.view = self._view_of([*self.view.trials, progress.finished_trial])
            self.names = self._candidate_names()

    def _load_point_row(self, progress: Progress) -> dict[str, str]:
        result = self.judged_result(progress)
        if self.is_load_test:
            return load_point_cells(result, has_targets=bool(self.plan.experiment.slo.terms))
        return load_point_row(result, progress.trial_number, progress.candidate, self.plan, self.names)

    def judged_result(self, progress: Progress) -> LoadPointResult:
        """The measured load point with its verdict."""
        from autotuner.scoring.judge import judge_load_point

        assert progress.result is not None
        return judge_load_point(progress.result, progress.candidate.gpus, self.plan.experiment)

    def _candidate_names(self) -> CandidateNames:
        """Names of all possible candidates, with trial numbers of those launched."""
        from autotuner.report.candidate_names import CandidateNames

        baseline = next((launch.candidate for launch in self.plan.launches if launch.purpose == "baseline"), None)
        candidates = [
            *self.plan.space.candidates,
            *self.plan.candidates,
            *(trial.candidate for trial in self.view.trials),
        ]
        return CandidateNames.from_candidates(candidates, baseline, self.view.names.trial_numbers)

    def launch_label(self, progress: Progress) -> str:
        """Name of the launched candidate, marked if the launch confirms the winner."""
        name = self.names.full_name(progress.candidate, progress.trial_number)
        return f"{name}, again to confirm the winner" if progress.purpose == "confirmation" else name

    def _view_of(self, trials: Sequence[Trial]) -> RunView:
        """The run with these finished trials; the time left depends on its best candidate."""
        from autotuner.report.run_view import RunView

        view = RunView.of(trials, self.plan.experiment)
        best = view.ranking.winner
        if trials:
            baseline_numbers = {trial.number for trial in trials if trial.purpose == "baseline"}
            beats_baseline = best is not None and best.trial_number not in baseline_numbers
            self.time_estimator.set_winner(best.load_points if best else (), beats_baseline=beats_baseline)
        return view

    @property
    def best_text(self) -> str:
        """The best candidate so far and its value of the objective."""
        from autotuner.report.objective_text import objective_value_text

        ranking, best = self.view.ranking, self.view.ranking.winner
        if best is None:
            return "none that meets the targets" if self.view.trials else "none yet"
        value_text = objective_value_text(ranking.objective, best.value, ranking.unit, best.interval)
        return f"{self.names.full_name(best.candidate)}: {value_text}, {best.verdict} ({best.source})"

    @property
    def launch_count_text(self) -> str:
        """Number of the current launches and the total."""
        estimator = self.time_estimator
        total = f"{'at most ' if estimator.may_end_early else ''}{estimator.total_launches}"
        first, last = estimator.finished_launches + 1, estimator.finished_launches + estimator.running_launches
        numbers = f"{first} to {last}" if last > first else f"{min(first, estimator.total_launches)}"
        return f"{numbers} of {total}{', to confirm the winner' if estimator.is_confirming else ''}"

    @property
    def max_window_seconds(self) -> float:
        """Longest window of a load point of the current launch."""
        return (self.plan.confirmation_load if self.time_estimator.is_confirming else self.plan.launch_load).max_window

    def window_text(self, progress: Progress) -> str:
        """How long the window that begins will last."""
        shortest, longest = progress.expected_seconds, self.max_window_seconds
        if longest <= shortest:
            return format_duration(shortest)
        return f"{format_duration(shortest)} to {format_duration(longest)}"

    def time_left_text(self, now: float) -> str:
        """Estimated time left; empty while unknown."""
        seconds = self.time_estimator.remaining_seconds(now)
        if seconds is None:
            return ""
        return f"{'up to about' if self.time_estimator.may_end_early else 'about'} {format_duration(seconds)} left"


class PlainTuneView(AbstractContextManager["PlainTuneView"]):
    """One line per progress event, for pipes and CI logs."""

    def __init__(
        self,
        plan: Plan,
        finished_trials: Sequence[Trial],
        clock: Clock = time.monotonic,
        run_folder: Path | None = None,
        *,
        is_load_test: bool = False,
    ) -> None:
        self._clock = clock
        self._run_folder = run_folder
        self._status = RunStatus(plan, finished_trials, clock(), is_load_test=is_load_test)

    def __exit__(self, *exc: object) -> None:
        pass

    def __call__(self, progress: Progress) -> None:
        now = self._clock()
        self._status.update(progress, now)
        if self._status.is_load_test:
            self._show_load_point(progress)
            return
        text = self._line_text(progress, now)
        if text:
            total = max(progress.trial_number, self._status.time_estimator.total_launches)
            display.progress(f"[{progress.trial_number}/{total}] {text}")

    def _show_load_point(self, progress: Progress) -> None:
        """Two lines for each load point of a load test: when its window begins, and its results."""
        label = f"[{progress.position}/{max(progress.position, progress.total)}]"
        if progress.stage == "measuring":
            display.progress(f"{label} {progress.load_point}: {self._status.window_text(progress)}")
        elif progress.stage == "measured":
            display.progress(f"{label} {self._measured_text(progress)}")

    def _line_text(self, progress: Progress, now: float) -> str:
        if progress.stage == "starting":
            return f"starting {self._status.launch_label(progress)}"
        if progress.stage == "ready":
            return "ready"
        if progress.stage == "measuring":
            return f"{position_text(progress)}: {progress.load_point}, {self._status.window_text(progress)}"
        if progress.stage == "measured":
            return self._measured_text(progress)
        if progress.stage == "finished" and progress.finished_trial is not None:
            return self._finished_text(progress.finished_trial, now)
        return ""

    def _measured_text(self, progress: Progress) -> str:
        has_targets = bool(self._status.plan.experiment.slo.terms)
        summary = load_point_summary(self._status.judged_result(progress), has_targets=has_targets)
        return f"{progress.load_point}: {summary}"

    def _finished_text(self, trial: Trial, now: float) -> str:
        failure = trial.measurement.failure
        if failure is not None:
            return f"failed, {failed_trial_text(trial, failure, self._run_folder)}"
        time_left = self._status.time_left_text(now)
        virtual = " of virtual time" if self._status.plan.in_virtual_time else ""
        duration = f"finished in {format_duration(trial.ended - trial.started)}{virtual}"
        return f"{duration}{f', {time_left}' if time_left else ''}; best so far: {self._status.best_text}"


class LiveTuneView(LivePanel):
    """A live panel: current launch and stage, elapsed time and time left, best candidate, measured load points."""

    refreshes_per_second = 2

    def __init__(
        self,
        plan: Plan,
        finished_trials: Sequence[Trial],
        clock: Clock = time.monotonic,
        run_folder: Path | None = None,
        *,
        is_load_test: bool = False,
    ) -> None:
        self._clock = clock
        self._run_folder = run_folder
        self._started_at = clock()
        self._status = RunStatus(plan, finished_trials, self._started_at, is_load_test=is_load_test)
        self._stages: dict[int, tuple[Progress, float]] = {}
        self._last_failure = ""

    def __call__(self, progress: Progress) -> None:
        """Record a progress event; rich redraws the panel by its own timer."""
        now = self._clock()
        self._status.update(progress, now)
        trial = progress.finished_trial
        if trial is not None and trial.measurement.failure is not None:
            self._last_failure = failed_trial_text(trial, trial.measurement.failure, self._run_folder)
        under_way = {number: stage for number, stage in self._stages.items() if stage[0].stage != "finished"}
        self._stages = {**under_way, progress.trial_number: (progress, now)}

    def render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now, console = self._clock(), display.stderr_console()
        elapsed = now - self._started_at
        summary, is_load_test = Table.grid(padding=(0, 2)), self._status.is_load_test
        if not is_load_test:
            summary.add_row("launch", self._status.launch_count_text)
        for progress, since in self._stages.values():
            if not is_load_test:
                summary.add_row("candidate", Text(display.shown(self._status.launch_label(progress))))
            stage = stage_text(progress, now - since, self._status.max_window_seconds)
            summary.add_row("now", Text(display.shown(stage)))
        summary.add_row(
            "elapsed", ", ".join(filter(None, (format_duration(elapsed), self._status.time_left_text(now))))
        )
        if not is_load_test:
            summary.add_row("best so far", Text(display.shown(self._status.best_text)))
        if self._last_failure:
            summary.add_row("last failure", Text(display.shown(self._last_failure)))
        seconds_left = self._status.time_estimator.remaining_seconds(now)
        total = elapsed + seconds_left if seconds_left is not None else None
        summary.add_row("", ProgressBar(total=total and max(total, 1e-9), completed=elapsed, width=50))
        overhead_lines = PANEL_OVERHEAD_LINES + LINES_PER_LAUNCH * max(0, len(self._stages) - 1)
        if self._last_failure:
            overhead_lines += 1 + len(self._last_failure) // max(1, console.width - FAILURE_INDENT)
        return Group(summary, load_points_table(self._status.rows, console.width, console.height - overhead_lines))


def live_view_for(
    plan: Plan, finished_trials: Sequence[Trial], run_folder: Path | None = None, *, is_load_test: bool = False
) -> LiveTuneView | PlainTuneView:
    """A live panel in a terminal, plain lines elsewhere; failed trials are named with their logs in `run_folder`."""
    view = LiveTuneView if display.stderr_console().is_terminal else PlainTuneView
    return view(plan, finished_trials, run_folder=run_folder, is_load_test=is_load_test)


def failed_trial_text(trial: Trial, failure: Failure, run_folder: Path | None) -> str:
    """How a trial failed, what to do, and where the server's log is."""
    from autotuner.report.formatting import failure_text

    log = run_folder / "trials" / f"{trial.number:03d}" / "server.log" if run_folder else None
    return failure_text(failure) + (f" Log: {log}" if log is not None and log.exists() else "")


def position_text(progress: Progress) -> str:
    """`load point 2 of 3`; a load point that is measured again counts anew."""
    return f"load point {progress.position} of {max(progress.position, progress.total)}"


def stage_text(progress: Progress, elapsed: float, max_seconds: float = 0.0) -> str:
    """The current stage with its elapsed and planned time; a window lasts up to `max_seconds`."""
    where = f" {position_text(progress)}, {progress.load_point}" if progress.load_point else ""
    expected = progress.expected_seconds
    if not expected:
        time = format_duration(elapsed)
    elif progress.stage == "measuring" and max_seconds > expected:
        time = f"{format_duration(elapsed)} of {format_duration(expected)} to {format_duration(max_seconds)}"
    elif elapsed <= expected:
        time = f"{elapsed:.0f} of {format_duration(expected)}"
    else:
        time = f"{format_duration(elapsed)}, longer than the {format_duration(expected)} planned"
    return f"{progress.stage.replace('-', ' ')}{where}: {time}"
