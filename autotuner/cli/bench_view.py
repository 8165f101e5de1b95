"""Progress of a running load test: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from autotuner.cli import display
from autotuner.cli.live_panel import LivePanel
from autotuner.cli.live_view import Clock, load_point_cells, load_point_summary, load_points_table, stage_text
from autotuner.cli.time_left import format_duration
from autotuner.core import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType

PANEL_OVERHEAD_LINES = 7
"""Terminal lines of the panel outside its table."""


class PlainBenchView(AbstractContextManager["PlainBenchView"]):
    """Two lines per load point: when its window begins, and its results."""

    def __init__(self, *, has_targets: bool) -> None:
        self._has_targets = has_targets

    def __exit__(self, *exc: object) -> None:
        pass

    def __call__(self, progress: Progress) -> None:
        label = f"[{progress.position}/{max(progress.position, progress.total)}] {progress.load_point}"
        if progress.stage == "measuring":
            display.progress(f"{label}: {format_duration(progress.expected_seconds)}")
        elif progress.stage == "measured" and progress.result is not None:
            display.progress(f"{label}: {load_point_summary(progress.result, has_targets=self._has_targets)}")


class LiveBenchView(LivePanel):
    """A live panel: current load point and stage, elapsed and expected time, results so far."""

    def __init__(self, *, has_targets: bool, clock: Clock = time.monotonic) -> None:
        self._has_targets = has_targets
        self._clock = clock
        self._started_at = self._stage_started_at = clock()
        self._progress: Progress | None = None
        self._rows: list[dict[str, str]] = []
        self._seconds_per_point = 0.0

    def __call__(self, progress: Progress) -> None:
        """Record a progress event; rich redraws the panel by its own timer."""
        now = self._clock()
        if progress.stage == "measured" and progress.result is not None:
            self._rows.append(load_point_cells(progress.result, has_targets=self._has_targets))
            self._seconds_per_point = (now - self._started_at) / len(self._rows)
        self._progress, self._stage_started_at = progress, now

    def expected_seconds(self, elapsed: float) -> float:
        """Seconds of the whole test: mean of the finished load points, else the current window, times their number."""
        if self._progress is None:
            return elapsed
        window_seconds = self._progress.expected_seconds if self._progress.stage == "measuring" else 0.0
        return max(elapsed, (self._seconds_per_point or window_seconds) * self._progress.total)

    def render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        now, console = self._clock(), display.stderr_console()
        elapsed = now - self._started_at
        expected = self.expected_seconds(elapsed)
        stage = stage_text(self._progress, now - self._stage_started_at) if self._progress else "querying the server"
        bar = ProgressBar(total=max(expected, 1e-9), completed=elapsed, width=min(60, console.width))
        expected_text = f" of about {format_duration(expected)}" if expected > elapsed else ""
        table = load_points_table(self._rows, console.width, console.height - PANEL_OVERHEAD_LINES)
        return Group(table, Text(stage), Text(f"{format_duration(elapsed)}{expected_text}"), bar)


def bench_view_for(*, has_targets: bool) -> LiveBenchView | PlainBenchView:
    """A live panel in a terminal, plain lines elsewhere."""
    return (
        LiveBenchView(has_targets=has_targets)
        if display.stderr_console().is_terminal
        else PlainBenchView(has_targets=has_targets)
    )
