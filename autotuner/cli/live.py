"""The view of a run while it goes on: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from autotuner.cli import display
from autotuner.core import LoadPointResult, Progress, Trial

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

    from autotuner.search.plan import Plan

Best = Callable[[list[Trial]], str]
"""Says which of the finished trials leads, or nothing."""


class View(Protocol):
    """Watches a run."""

    def __call__(self, progress: Progress) -> None:
        """Take in one step."""


class PlainView(AbstractContextManager["PlainView"]):
    """One line for each thing that happens, for pipes and CI logs."""

    def __init__(self, plan: Plan, done: list[Trial], best: Best) -> None:
        self._of = len(plan.candidates)
        self._finished = list(done)
        self._best = best

    def __exit__(self, *exc: object) -> None:
        """Nothing is left to clean."""

    def __call__(self, progress: Progress) -> None:
        """Print one line."""
        text = self._line(progress)
        if text:
            display.note(f"[{progress.trial}/{self._of}] {text}")

    def _line(self, progress: Progress) -> str:
        if progress.stage == "starting":
            return f"starting {progress.candidate}"
        if progress.stage == "ready":
            return "ready"
        if progress.stage == "measuring":
            where = f"load point {progress.position} of {progress.total}"
            return f"{where}: {progress.load_point}, {progress.expected_seconds:.0f} s"
        if progress.stage == "measured" and progress.result is not None:
            return f"{progress.load_point}: {figures(progress.result)}"
        if progress.stage == "finished" and progress.finished is not None:
            self._finished.append(progress.finished)
            failure = progress.finished.measurement.failure
            if failure is not None:
                return f"failed, {failure.kind.value}: {failure.said}"
            return f"finished in {progress.finished.ended - progress.finished.started:.0f} s; best so far: " + (
                self._best(self._finished) or "none feasible"
            )
        return ""


class LiveView(AbstractContextManager["LiveView"]):
    """A panel that shows the trial, the stage, time spent and left, the best and all finished trials."""

    def __init__(self, plan: Plan, done: list[Trial], best: Best) -> None:
        self._plan = plan
        self._finished = list(done)
        self._here = len(done)
        self._best = best
        self._began = time.monotonic()
        self._now: Progress | None = None
        self._since = self._began
        self._live: Live | None = None

    def __enter__(self) -> LiveView:
        from rich.live import Live

        self._live = Live(get_renderable=self._render, console=display.err(), refresh_per_second=2, transient=True)
        self._live.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*exc)

    def __call__(self, progress: Progress) -> None:
        """Take in one step; the panel redraws on its own clock."""
        if progress.stage == "finished" and progress.finished is not None:
            self._finished.append(progress.finished)
        self._now, self._since = progress, time.monotonic()

    def _remaining(self) -> float:
        left = len(self._plan.candidates) - len(self._finished)
        ran = [trial.ended - trial.started for trial in self._finished[self._here :] if not trial.failed]
        per_launch = sum(ran) / len(ran) if ran else self._plan.launch_seconds
        spent = time.monotonic() - self._began - sum(ran)
        return max(0.0, left * per_launch - (spent if left else 0.0))

    def _render(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        elapsed = time.monotonic() - self._began
        of = len(self._plan.candidates)
        head = Table.grid(padding=(0, 2))
        trial = min(len(self._finished) + 1, of)
        head.add_row("trial", f"{trial} of {of}")
        if self._now is not None:
            head.add_row("candidate", str(self._now.candidate))
            head.add_row("now", stage(self._now, time.monotonic() - self._since))
        most = "at most" if self._plan.at_most else "about"
        head.add_row("elapsed", f"{clock(elapsed)}, {most} {clock(self._remaining())} left")
        head.add_row("best so far", self._best(self._finished) or "-")
        bar = ProgressBar(total=max(elapsed + self._remaining(), 1e-9), completed=elapsed, width=60)
        rows = [row(trial) for trial in self._finished]
        below = display.make_table(rows, list(rows[0]), right=list(rows[0])[2:-1]) if rows else Text("")
        return Group(head, bar, below)


def view(plan: Plan, done: list[Trial], best: Best) -> LiveView | PlainView:
    """The view that suits where stderr goes."""
    return (LiveView if display.err().is_terminal else PlainView)(plan, done, best)


def stage(progress: Progress, since: float) -> str:
    """What is being done now, and for how long of how long."""
    at = f" load point {progress.position} of {progress.total}, {progress.load_point}" if progress.load_point else ""
    planned = f" of {progress.expected_seconds:.0f}" if progress.expected_seconds else ""
    return f"{progress.stage.replace('-', ' ')}{at}, {since:.0f}{planned} s"


def figures(result: LoadPointResult) -> str:
    """A load point in one line."""
    parts = []
    for label, metric in (("TTFT", result.metrics.ttft), ("TPOT", result.metrics.tpot), ("E2E", result.metrics.e2e)):
        if metric is not None:
            parts.append(f"{label} {metric.mean * 1e3:.1f} ms")
    parts.append(f"{result.metrics.throughput:,.0f} tokens/s")
    errors = sum(result.metrics.errors.values())
    if errors:
        parts.append(f"{errors} errors")
    return f"{', '.join(parts)}, n={result.metrics.requests} ({result.source})"


def row(trial: Trial) -> dict[str, str]:
    """A finished trial as a row of the live table."""
    failure = trial.measurement.failure
    last = trial.measurement.load_points[-1] if trial.measurement.load_points else None
    cells = {
        "trial": str(trial.number),
        "candidate": str(trial.candidate),
        "load points": str(len(trial.measurement.load_points)),
        "TTFT ms": "",
        "TPOT ms": "",
        "tokens/s": "",
        "outcome": failure.kind.value if failure else (last.verdict.value if last else ""),
    }
    if last is not None:
        metrics = last.metrics
        cells["TTFT ms"] = f"{metrics.ttft.mean * 1e3:.1f}" if metrics.ttft else ""
        cells["TPOT ms"] = f"{metrics.tpot.mean * 1e3:.2f}" if metrics.tpot else ""
        cells["tokens/s"] = f"{metrics.throughput:,.0f}"
    return cells


def clock(seconds: float) -> str:
    """`1:02:03`, `4:05` or `12 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
