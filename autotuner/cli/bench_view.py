"""The view of a load test while it goes on: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from autotuner.cli import display
from autotuner.cli.run_view import Clock, load_point_cells, load_point_summary, load_points_table, stage_text
from autotuner.cli.time_left import format_duration
from autotuner.core import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

PANEL_OVERHEAD_LINES = 7
"""Lines of a terminal that the panel needs beside its table."""


class PlainBenchView(AbstractContextManager["PlainBenchView"]):
    """One line when a window begins and one when it is measured; `targets` says that there are any."""

    def __init__(self, *, has_targets: bool) -> None:
        self._has_targets = has_targets

    def __exit__(self, *exc: object) -> None:
        """Nothing is left to clean."""

    def __call__(self, progress: Progress) -> None:
        """Print one line."""
        where = f"[{progress.position}/{progress.total}] {progress.load_point}"
        if progress.stage == "measuring":
            display.progress(f"{where}: {format_duration(progress.expected_seconds)}")
        elif progress.stage == "measured" and progress.result is not None:
            display.progress(f"{where}: {load_point_summary(progress.result, has_targets=self._has_targets)}")


class LiveBenchView(AbstractContextManager["LiveBenchView"]):
    """A panel with the load point, its phase, time spent and to come, and what was measured before."""

    def __init__(self, *, has_targets: bool, clock: Clock = time.monotonic) -> None:
        self._has_targets = has_targets
        self._clock = clock
        self._started_at = self._stage_started_at = clock()
        self._progress: Progress | None = None
        self._rows: list[dict[str, str]] = []
        self._seconds_per_point = 0.0
        self._live: Live | None = None

    def __enter__(self) -> LiveBenchView:
        from rich.live import Live

        self._live = Live(
            get_renderable=self._render, console=display.stderr_console(), refresh_per_second=4, transient=True
        )
        self._live.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*exc)

    def __call__(self, progress: Progress) -> None:
        """Take in one step; the panel redraws on its own clock."""
        now = self._clock()
        if progress.stage == "measured" and progress.result is not None:
            self._rows.append(load_point_cells(progress.result, has_targets=self._has_targets))
            self._seconds_per_point = (now - self._started_at) / len(self._rows)
        self._progress, self._stage_started_at = progress, now

    def expected_seconds(self, elapsed: float) -> float:
        """Seconds of the whole test: by the load points measured so far, else by the window under way."""
        if self._progress is None:
            return elapsed
        window = self._progress.expected_seconds if self._progress.stage == "measuring" else 0.0
        return max(elapsed, (self._seconds_per_point or window) * self._progress.total)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        now, console = self._clock(), display.stderr_console()
        elapsed = now - self._started_at
        expected = self.expected_seconds(elapsed)
        doing = (
            stage_text(self._progress, now - self._stage_started_at)
            if self._progress
            else "asking the server what it serves"
        )
        bar = ProgressBar(total=max(expected, 1e-9), completed=elapsed, width=min(60, console.width))
        about = f" of about {format_duration(expected)}" if expected > elapsed else ""
        table = load_points_table(self._rows, console.width, console.height - PANEL_OVERHEAD_LINES)
        return Group(table, Text(doing), Text(f"{format_duration(elapsed)}{about}"), bar)


def bench_view_for(*, has_targets: bool) -> LiveBenchView | PlainBenchView:
    """The view that suits where stderr goes; `targets` says that there are any."""
    return (
        LiveBenchView(has_targets=has_targets)
        if display.stderr_console().is_terminal
        else PlainBenchView(has_targets=has_targets)
    )
