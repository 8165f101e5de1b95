"""The Pareto picture: what each load point gives all users together against what it gives each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from autotuner.core import Distribution, Metrics, Trial
from autotuner.experiment import EACH, Experiment, Slo, SloTerm
from autotuner.report.candidate_names import DEFAULTS, Names
from autotuner.report.label_placement import Label, place
from autotuner.report.near_misses import near
from autotuner.report.plot_style import COLOURS, INK, MUTED, TARGET, face, head, legend, plain, ring, style
from autotuner.report.pooling import candidates
from autotuner.scoring.pareto import AXES, Axis, Point, points
from autotuner.scoring.rank import Ranking

LINES_UP_TO = 12
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)))


@dataclass(frozen=True)
class _Panel:
    """One pair of axes: what is drawn along x against output tokens/s per GPU, and the target on x."""

    x: Axis
    label: str
    limit: float | None
    target: str


def pareto(trials: Sequence[Trial], experiment: Experiment, ranking: Ranking, path: Path) -> None:
    """Write a PNG: output tokens/s per GPU against interactivity and against time to first token.

    Each candidate and load point is one mark, by the figures of all its launches.
    Equal input gives equal bytes.
    """
    names = Names.ranked(ranking)
    pooled = [candidate.trial for candidate in candidates(trials, experiment)]
    figure = Figure(figsize=(12.6, 6.4), dpi=140, facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    figure.subplots_adjust(left=0.062, right=0.985, top=0.83, bottom=0.165, wspace=0.14)
    shown: list[Point] = []
    colours = _colours(pooled, experiment, ranking)
    for axes, panel in ((left, _interactivity(experiment)), (right, _ttft(experiment))):
        found = points(pooled, experiment, (panel.x, AXES["throughput"]))
        shown += found
        _draw(axes, panel, found, names, experiment.slo, ranking, colours)
    left.set_ylabel("Output tokens/s per GPU", color=INK)
    head(figure, experiment, ranking)
    legend(figure, shown, ranking, experiment.slo)
    figure.savefig(path, format="png", metadata={"Software": None})


def _interactivity(experiment: Experiment) -> _Panel:
    term = _term(experiment, "tpot")
    statistic = term.scored_statistic if term else "mean"

    def value(metrics: Metrics, gpus: int, price: float | None) -> float | None:
        tpot = _statistic(metrics.tpot, statistic)
        return 1 / tpot if tpot else None

    return _Panel(
        Axis("interactivity", "Interactivity", "tokens/s/user", "max", value),
        f"Interactivity (tokens/s per user, 1 / {statistic} TPOT)",
        1 / term.threshold if term else None,
        _target("TPOT", term, experiment) if term else "",
    )


def _ttft(experiment: Experiment) -> _Panel:
    term = _term(experiment, "ttft")
    statistic = term.scored_statistic if term else "mean"

    def value(metrics: Metrics, gpus: int, price: float | None) -> float | None:
        ttft = _statistic(metrics.ttft, statistic)
        return None if ttft is None else ttft * 1e3

    return _Panel(
        Axis("ttft", "Time to first token", "ms", "min", value),
        f"Time to first token ({statistic}, ms)",
        term.threshold * 1e3 if term else None,
        _target("TTFT", term, experiment) if term else "",
    )


def _target(name: str, term: SloTerm, experiment: Experiment) -> str:
    """What a target asks for: of a statistic, or of a share of the requests."""
    limit = f"≤ {term.threshold * 1e3:g} ms"
    if term.statistic == EACH:
        return f"target: {name} {limit} for {100 * experiment.slo.attainment:g}% of requests"
    return f"target: {name} {term.statistic} {limit}"


def _term(experiment: Experiment, metric: str) -> SloTerm | None:
    """The target drawn for a metric: the one on its mean, else its strictest."""
    terms = [term for term in experiment.slo.terms if term.metric == metric]
    return min(terms, key=lambda term: (term.scored_statistic != "mean", term.threshold), default=None)


def _statistic(distribution: Distribution | None, name: str) -> float | None:
    return None if distribution is None else float(getattr(distribution, name))


def _colours(trials: Sequence[Trial], experiment: Experiment, ranking: Ranking) -> dict[int, str]:
    """One colour per trial that is on a frontier, in order of rank; the winner has the first."""
    members: set[int] = set()
    for panel in (_interactivity(experiment), _ttft(experiment)):
        found = points(trials, experiment, (panel.x, AXES["throughput"]))
        members |= {point.trial.number for point in found if point.on_frontier or _wins(point, ranking)}
    order = [standing.trial for standing in ranking.standings if standing.trial in members]
    return {trial: COLOURS[index % len(COLOURS)] for index, trial in enumerate(order)}


def _draw(
    axes: Axes,
    panel: _Panel,
    found: Sequence[Point],
    names: Names,
    slo: Slo,
    ranking: Ranking,
    colours: dict[int, str],
) -> None:
    axes.set_xlabel(panel.label, color=INK)
    xs, ys = [point.at[0] for point in found], [point.at[1] for point in found]
    within = xs and panel.limit and max(xs) / 4 <= panel.limit <= max(xs) * 4
    style(axes, [*xs, panel.limit] if within and panel.limit else xs, ys)
    if panel.limit is not None:
        _region(axes, panel)
    if not found:
        axes.text(0.5, 0.5, "No load point gave these figures.", transform=axes.transAxes, ha="center", color=MUTED)
        return
    if len(ranking.standings) <= LINES_UP_TO:
        _curves(axes, found, colours)
    lines = _frontiers(found)
    for line, dashes in zip(lines, cycle(_DASHES), strict=False):
        xs, ys = [point.at[0] for point in line], [point.at[1] for point in line]
        axes.plot(xs, ys, color=INK, linewidth=1.6, linestyle=dashes, alpha=0.85, zorder=3)
    frontier = [point for line in lines for point in line]
    for point in sorted(found, key=lambda point: point.on_frontier):
        _marker(axes, point, colours, winner=_wins(point, ranking))
    named = frontier + [point for point in found if _wins(point, ranking) and not point.on_frontier]
    spots = []
    for point in found:
        (x, y), radius = point.at[:2], 9.0 if _wins(point, ranking) else 4.0
        if near(point.result, slo):
            ring(axes, x, y, 1.4 * radius)
            radius += 3.0
        spots.append((x, y, radius))
    place(axes, _labels(named, names, ranking, colours), spots, [[p.at[:2] for p in line] for line in lines])


def _frontiers(found: Sequence[Point]) -> list[list[Point]]:
    """The frontier of each scenario and source, from left to right."""
    lines: dict[tuple[str, str], list[Point]] = {}
    for point in sorted(found, key=lambda point: point.at):
        if point.on_frontier:
            lines.setdefault((point.result.load_point.scenario, point.result.source), []).append(point)
    return [lines[key] for key in sorted(lines)]


def _wins(point: Point, ranking: Ranking) -> bool:
    winner = ranking.winner
    return winner is not None and point.trial.number == winner.trial and point.result.load_point in winner.load_points


def _region(axes: Axes, panel: _Panel) -> None:
    """Shade where the target on x is met."""
    low, high = axes.get_xlim()
    limit = panel.limit or 0.0
    more = panel.x.sense == "max"
    start, end = (max(low, limit), high) if more else (low, min(high, limit))
    if start < end:
        axes.axvspan(start, end, color=TARGET, alpha=0.07, linewidth=0, zorder=0)
    if low < limit < high:
        axes.axvline(limit, color=TARGET, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    text = panel.target if start < end else f"{panel.target} (beyond this axis)"
    axes.text(
        0.99 if more else 0.01,
        1.012,
        text,
        transform=axes.transAxes,
        ha="right" if more else "left",
        va="bottom",
        fontsize=8,
        color=TARGET,
    )


def _curves(axes: Axes, found: Sequence[Point], colours: dict[int, str]) -> None:
    """A thin line through the load points of one candidate and scenario, lightest load first."""
    for key in dict.fromkeys((point.trial.number, point.result.load_point.scenario) for point in found):
        own = [p for p in found if (p.trial.number, p.result.load_point.scenario) == key]
        own.sort(key=lambda p: (p.result.load_point.concurrency or 0, p.result.load_point.rate or 0.0))
        xs, ys = [p.at[0] for p in own], [p.at[1] for p in own]
        axes.plot(xs, ys, color=colours.get(key[0], MUTED), linewidth=0.9, alpha=0.35, zorder=2)


def _marker(axes: Axes, point: Point, colours: dict[int, str], *, winner: bool) -> None:
    colour = colours.get(point.trial.number, MUTED)
    x, y = point.at[:2]
    if not point.trusted:
        axes.plot([x], [y], "x", color=MUTED, markersize=5, alpha=0.7, zorder=3)
        return
    if winner:
        axes.plot([x], [y], "*", markersize=17, color=colour, markeredgecolor=INK, markeredgewidth=0.9, zorder=5)
        return
    axes.plot(
        [x],
        [y],
        "o",
        markersize=6.5 if point.on_frontier else 5,
        **face(point.result.verdict, colour),
        alpha=1.0 if point.on_frontier else 0.4,
        zorder=4 if point.on_frontier else 3,
    )


def _labels(named: Sequence[Point], names: Names, ranking: Ranking, colours: dict[int, str]) -> list[Label]:
    """The winner first, then one label with parameters per candidate, then the loads of the rest."""
    mixed = len({point.result.load_point.scenario for point in named}) > 1
    found: list[tuple[int, int, Label]] = []
    told: set[int] = set()
    order = sorted(range(len(named)), key=lambda i: (not _wins(named[i], ranking), i))
    for position in order:
        point = named[position]
        wins = _wins(point, ranking)
        where = f"{point.result.load_point.scenario} {_load(point)}" if mixed else _load(point)
        short = names.short(point.trial.candidate)
        called = short if short.startswith(DEFAULTS) else f"trial {point.trial.number}: {short}"
        full = f"{_wrapped(plain(called))}\n{where}"
        first = point.trial.number not in told
        told.add(point.trial.number)
        texts = (full, where) if first else (where,)
        found.append((0 if wins and first else 1 if first else 2, position, _label(point, texts, colours, bold=wins)))
    return [item for _, _, item in sorted(found, key=lambda entry: entry[:2])]


def _load(point: Point) -> str:
    asked = point.result.load_point
    return f"c={asked.concurrency}" if asked.concurrency is not None else f"{asked.rate:g} requests/s"


def _label(point: Point, texts: tuple[str, ...], colours: dict[int, str], *, bold: bool) -> Label:
    return Label((point.at[0], point.at[1]), texts, colours.get(point.trial.number, INK), bold)


def _wrapped(text: str, width: int = 34) -> str:
    """Words on lines of about `width` characters."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
