"""The view of a run while it goes on: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from autotuner.cli import display
from autotuner.cli.table_layout import Shown
from autotuner.cli.time_left import Pace, clock
from autotuner.core import Candidate, LoadPointResult, Progress, Trial
from autotuner.errors import counted

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from autotuner.report.candidate_names import Names
    from autotuner.scoring.rank import Ranking
    from autotuner.search.plan import Plan

Clock = Callable[[], float]
"""Seconds, from any origin."""

BESIDE_THE_TABLE = 14
"""Lines of a terminal that the panel needs beside its table."""

LEAST_ROWS = 4


class View(Protocol):
    """Watches a run."""

    def __call__(self, progress: Progress) -> None:
        """Take in one step."""


class Followed:
    """What is known of a run under way: its trials, their ranking, the load points measured, the pace."""

    def __init__(self, plan: Plan, done: Sequence[Trial], now: float) -> None:
        self.plan = plan
        self.trials = list(done)
        self.pace = Pace(plan, done, now)
        self.names = self._named()
        self.rows = [row for trial in done for row in rows(trial, plan, self.names)]
        self.ranking = self._ranked()

    def take(self, progress: Progress, now: float) -> None:
        """Take in one step."""
        self.pace.take(progress, now)
        if progress.stage == "measured" and progress.result is not None:
            self.rows.append(row(self.judged(progress), progress.trial, progress.candidate, self.plan, self.names))
        elif progress.stage == "finished" and progress.finished is not None:
            self.trials.append(progress.finished)
            self.rows += failure_rows(progress.finished, self.names)
            self.names = self._named()
            self.ranking = self._ranked()

    def judged(self, progress: Progress) -> LoadPointResult:
        """The load point that was measured, with its verdict."""
        from autotuner.scoring.judge import judge_load_point

        assert progress.result is not None
        return judge_load_point(progress.result, progress.candidate.gpus, self.plan.experiment)

    def _named(self) -> Names:
        """The names of all candidates there may be, with the numbers of those that were tried."""
        from autotuner.report.candidate_names import Names

        baseline = next((launch.candidate for launch in self.plan.launches if launch.purpose == "baseline"), None)
        every = [*self.plan.space.candidates, *self.plan.candidates, *(trial.candidate for trial in self.trials)]
        return Names.among(every, baseline, Names.of(self.trials).numbers)

    def launched(self, progress: Progress) -> str:
        """What is launched, and why where it is not to search."""
        name = self.names.named(progress.candidate, progress.trial)
        return f"{name}, again to confirm the winner" if progress.purpose == "confirmation" else name

    def _ranked(self) -> Ranking:
        from autotuner.scoring.rank import rank

        ranking = rank(self.trials, self.plan.experiment)
        best = ranking.winner
        if self.trials:
            numbers = {trial.number for trial in self.trials if trial.purpose == "baseline"}
            leads = best is not None and best.trial not in numbers
            self.pace.lead(best.load_points if best else (), leads=leads)
        return ranking

    @property
    def best(self) -> str:
        """Which of the candidates tried leads, and by what figure."""
        from autotuner.report.objective_text import achieved

        best = self.ranking.winner
        if best is None:
            return "none that meets the targets" if self.trials else "none yet"
        figure = achieved(self.ranking.objective, best.value, self.ranking.unit, best.interval)
        return f"{self.names.named(best.candidate)}: {figure}, {best.verdict} ({best.source})"

    @property
    def count(self) -> str:
        """Which launch of how many this is."""
        total = f"{'at most ' if self.pace.may_end_early else ''}{self.pace.launches}"
        number = min(self.pace.finished + 1, self.pace.launches)
        return f"{number} of {total}{', to confirm the winner' if self.pace.confirming else ''}"

    @property
    def longest(self) -> float:
        """Seconds that the window of a load point of the launch under way lasts at most."""
        return (self.plan.confirming if self.pace.confirming else self.plan.load).window

    def left(self, now: float) -> str:
        """How long it will still take; empty while nothing is known."""
        left = self.pace.left(now)
        if left is None:
            return ""
        return f"{'up to about' if self.pace.may_end_early else 'about'} {clock(left)} left"


class PlainView(AbstractContextManager["PlainView"]):
    """One line for each thing that happens, for pipes and CI logs."""

    def __init__(self, plan: Plan, done: Sequence[Trial], clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._run = Followed(plan, done, clock())

    def __exit__(self, *exc: object) -> None:
        """Nothing is left to clean."""

    def __call__(self, progress: Progress) -> None:
        """Print one line."""
        now = self._clock()
        self._run.take(progress, now)
        text = self._line(progress, now)
        if text:
            display.happened(f"[{progress.trial}/{max(progress.trial, self._run.pace.launches)}] {text}")

    def _line(self, progress: Progress, now: float) -> str:
        if progress.stage == "starting":
            return f"starting {self._run.launched(progress)}"
        if progress.stage == "ready":
            return "ready"
        if progress.stage == "measuring":
            where = f"load point {progress.position} of {progress.total}"
            least, most = progress.expected_seconds, self._run.longest
            window = f"{clock(least)} to {clock(most)}" if most > least else clock(least)
            return f"{where}: {progress.load_point}, {window}"
        if progress.stage == "measured" and progress.result is not None:
            targets = bool(self._run.plan.experiment.slo.terms)
            return f"{progress.load_point}: {figures(self._run.judged(progress), targets=targets)}"
        if progress.stage == "finished" and progress.finished is not None:
            return self._finished(progress.finished, now)
        return ""

    def _finished(self, trial: Trial, now: float) -> str:
        failure = trial.measurement.failure
        if failure is not None:
            return f"failed, {failure.kind.value}: {failure.said}"
        left = self._run.left(now)
        virtual = " of virtual time" if self._run.plan.virtual else ""
        took = f"finished in {clock(trial.ended - trial.started)}{virtual}"
        return f"{took}{f', {left}' if left else ''}; best so far: {self._run.best}"


class LiveView(AbstractContextManager["LiveView"]):
    """A panel with the launch, the stage, time spent and left, the best, and the load points measured so far."""

    def __init__(self, plan: Plan, done: Sequence[Trial], clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._began = self._since = clock()
        self._run = Followed(plan, done, self._began)
        self._now: Progress | None = None
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
        now = self._clock()
        self._run.take(progress, now)
        self._now, self._since = progress, now

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now, console = self._clock(), display.err()
        elapsed = now - self._began
        head = Table.grid(padding=(0, 2))
        head.add_row("launch", self._run.count)
        if self._now is not None:
            head.add_row("candidate", Text(self._run.launched(self._now)))
            head.add_row("now", Text(stage(self._now, now - self._since, self._run.longest)))
        head.add_row("elapsed", ", ".join(filter(None, (clock(elapsed), self._run.left(now)))))
        head.add_row("best so far", Text(self._run.best))
        left = self._run.pace.left(now)
        total = elapsed + left if left is not None else None
        head.add_row("", ProgressBar(total=total and max(total, 1e-9), completed=elapsed, width=50))
        return Group(head, measured(self._run.rows, console.width, console.height - BESIDE_THE_TABLE))


def view(plan: Plan, done: Sequence[Trial]) -> LiveView | PlainView:
    """The view that suits where stderr goes."""
    return (LiveView if display.err().is_terminal else PlainView)(plan, done)


def stage(progress: Progress, since: float, longest: float = 0.0) -> str:
    """What is being done now, and for how long of how long; a window lasts up to `longest` seconds."""
    at = f" load point {progress.position} of {progress.total}, {progress.load_point}" if progress.load_point else ""
    planned = progress.expected_seconds
    if not planned:
        time = clock(since)
    elif progress.stage == "measuring" and longest > planned:
        time = f"{clock(since)}, {clock(planned)} at least and {clock(longest)} at most"
    elif since <= planned:
        time = f"{since:.0f} of {clock(planned)}"
    else:
        time = f"{clock(since)}, longer than the {clock(planned)} planned"
    return f"{progress.stage.replace('-', ' ')}{at}: {time}"


def figures(result: LoadPointResult, *, targets: bool) -> str:
    """A judged load point in one line: latencies, output tokens/s, and with `targets` how many requests met them."""
    from autotuner.report.formatting import number

    metrics = result.metrics
    latencies = (("TTFT", metrics.ttft), ("TPOT", metrics.tpot))
    parts = [f"{label} {number(latency.mean * 1e3)} ms" for label, latency in latencies if latency is not None]
    parts.append(f"{number(metrics.output_throughput)} output tokens/s")
    if targets and metrics.attainment is not None:
        parts.append(f"SLO met {metrics.attainment.value:.0%}")
    errors = sum(metrics.errors.values())
    if errors:
        parts.append(counted(errors, "error"))
    return f"{', '.join(parts)}, {result.verdict}, n={metrics.requests} ({result.source})"


OUTPUT, MET = "output tokens/s", "SLO met %"
COLUMNS = (
    Shown("trial", right=True),
    Shown("candidate", priority=4, below=True),
    Shown("scenario", priority=2),
    Shown("load", right=True),
    Shown("n", right=True, priority=3),
    Shown("TTFT ms", right=True),
    Shown("TPOT ms", right=True),
    Shown(OUTPUT, right=True),
    Shown(MET, right=True, priority=1),
    Shown("verdict"),
)


def measured(every: Sequence[Mapping[str, str]], width: int, height: int) -> RenderableType:
    """The load points measured so far as a table, the last ones where there is no room for all."""
    from rich.console import Group
    from rich.text import Text

    if not every:
        return Text("")
    shown = _once(every[-max(height, LEAST_ROWS) :])
    columns = [column for column in COLUMNS if any(row.get(column.title) for row in every)]
    if len({row["scenario"] for row in every if row["scenario"]}) < 2:
        columns = [column for column in columns if column.title != "scenario"]
    table = display.make_table(shown, columns, width=width)
    earlier = len(every) - len(shown)
    return Group(table, Text(f"and {earlier} before")) if earlier else table


def _once(every: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The rows with trial and candidate on the first of each trial alone."""
    later = {"trial": "", "candidate": ""}
    return [
        {**row, **later} if before and before.get("trial") and before["trial"] == row["trial"] else row
        for before, row in zip((None, *every), every, strict=False)
    ]


def rows(trial: Trial, plan: Plan, names: Names) -> list[dict[str, str]]:
    """A finished trial's load points as rows of the live table, and its failure."""
    from autotuner.scoring.judge import judge

    results = judge(trial, plan.experiment).measurement.load_points
    own = [row(result, trial.number, trial.candidate, plan, names) for result in results]
    return [*own, *failure_rows(trial, names)]


def failure_rows(trial: Trial, names: Names) -> list[dict[str, str]]:
    """The row of a trial that failed; none for others."""
    failure = trial.measurement.failure
    if failure is None:
        return []
    name = names.short(trial.candidate)
    return [{"trial": str(trial.number), "candidate": name, "scenario": "", "verdict": failure.kind}]


def row(result: LoadPointResult, trial: int, candidate: Candidate, plan: Plan, names: Names) -> dict[str, str]:
    """A judged load point as a row of the live table."""
    return {
        "trial": str(trial),
        "candidate": names.short(candidate),
        **cells(result, targets=bool(plan.experiment.slo.terms)),
    }


def cells(result: LoadPointResult, *, targets: bool) -> dict[str, str]:
    """What a load point gave, by column; with `targets` also which share of requests met them."""
    from autotuner.report.formatting import load, number, share

    metrics = result.metrics
    return {
        "scenario": result.load_point.scenario,
        "load": load(result.load_point),
        "n": f"{metrics.requests:,}",
        "TTFT ms": number(metrics.ttft.mean * 1e3) if metrics.ttft else "",
        "TPOT ms": number(metrics.tpot.mean * 1e3) if metrics.tpot else "",
        OUTPUT: number(metrics.output_throughput),
        MET: share(metrics.attainment).replace("%", "") if targets else "",
        "verdict": result.verdict.value,
    }
