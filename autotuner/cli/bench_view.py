"""The view of a load test while it goes on: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from autotuner.cli import display
from autotuner.cli.run_view import Clock, cells, figures, measured, stage
from autotuner.cli.time_left import clock
from autotuner.core import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

BESIDE_THE_TABLE = 7
"""Lines of a terminal that the panel needs beside its table."""


class PlainWatch(AbstractContextManager["PlainWatch"]):
    """One line when a window begins and one when it is measured; `targets` says that there are any."""

    def __init__(self, *, targets: bool) -> None:
        self._targets = targets

    def __exit__(self, *exc: object) -> None:
        """Nothing is left to clean."""

    def __call__(self, progress: Progress) -> None:
        """Print one line."""
        where = f"[{progress.position}/{progress.total}] {progress.load_point}"
        if progress.stage == "measuring":
            display.happened(f"{where}: {clock(progress.expected_seconds)}")
        elif progress.stage == "measured" and progress.result is not None:
            display.happened(f"{where}: {figures(progress.result, targets=self._targets)}")


class LiveWatch(AbstractContextManager["LiveWatch"]):
    """A panel with the load point, its phase, time spent and to come, and what was measured before."""

    def __init__(self, *, targets: bool, clock: Clock = time.monotonic) -> None:
        self._targets = targets
        self._clock = clock
        self._began = self._since = clock()
        self._now: Progress | None = None
        self._rows: list[dict[str, str]] = []
        self._per_point = 0.0
        self._live: Live | None = None

    def __enter__(self) -> LiveWatch:
        from rich.live import Live

        self._live = Live(get_renderable=self._render, console=display.err(), refresh_per_second=4, transient=True)
        self._live.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*exc)

    def __call__(self, progress: Progress) -> None:
        """Take in one step; the panel redraws on its own clock."""
        now = self._clock()
        if progress.stage == "measured" and progress.result is not None:
            self._rows.append(cells(progress.result, targets=self._targets))
            self._per_point = (now - self._began) / len(self._rows)
        self._now, self._since = progress, now

    def expected(self, elapsed: float) -> float:
        """Seconds of the whole test: by the load points measured so far, else by the window under way."""
        if self._now is None:
            return elapsed
        window = self._now.expected_seconds if self._now.stage == "measuring" else 0.0
        return max(elapsed, (self._per_point or window) * self._now.total)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        now, console = self._clock(), display.err()
        elapsed = now - self._began
        expected = self.expected(elapsed)
        doing = stage(self._now, now - self._since) if self._now else "asking the server what it serves"
        bar = ProgressBar(total=max(expected, 1e-9), completed=elapsed, width=min(60, console.width))
        about = f" of about {clock(expected)}" if expected > elapsed else ""
        table = measured(self._rows, console.width, console.height - BESIDE_THE_TABLE)
        return Group(table, Text(doing), Text(f"{clock(elapsed)}{about}"), bar)


def watching(*, targets: bool) -> LiveWatch | PlainWatch:
    """The view that suits where stderr goes; `targets` says that there are any."""
    return LiveWatch(targets=targets) if display.err().is_terminal else PlainWatch(targets=targets)
