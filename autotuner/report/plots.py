"""The Pareto plot of a run: throughput per GPU against per-user speed and against TTFT, at each load point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from autotuner.core import Distribution, Metrics, Verdict
from autotuner.experiment import EACH_REQUEST, Experiment, SloTerm
from autotuner.report.label_placement import Label, place_labels
from autotuner.report.near_misses import near_terms
from autotuner.report.plot_style import (
    GREY,
    INK,
    SERIES_COLOURS,
    TARGET_COLOUR,
    draw_candidate_key,
    draw_heading,
    draw_legend,
    draw_near_ring,
    marker_face,
    style_axes,
)
from autotuner.report.run_view import RunView
from autotuner.scoring.pareto import AXES, ParetoAxis, ParetoPoint, pareto_points
from autotuner.scoring.rank import Ranking

MAX_CANDIDATES_WITH_CURVES = 12
MAX_COLOURED_CANDIDATES = 6
MAX_DRAWN_POINTS, MAX_DRAWN_FRONTIER_POINTS = 1_000, 200
_LINE_STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)))


@dataclass(frozen=True)
class _Panel:
    """One subplot: the metric on x (y is output tokens/s per GPU) and the SLO target on x, in units of x."""

    x: ParetoAxis
    label: str
    limit: float | None
    target_text: str


def draw_pareto(view: RunView, path: Path) -> None:
    """Write a PNG: output tokens/s per GPU against interactivity and against time to first token.

    Each load point of a candidate is one marker, with metrics pooled over its launches.
    Equal input gives equal bytes.
    """
    experiment = view.experiment
    panels = []
    for panel in (_interactivity_panel(experiment), _ttft_panel(experiment)):
        points = pareto_points(view.pooled_trials, experiment, (panel.x, AXES["throughput"]))
        panels.append((panel, drawn_points(points, view.ranking)))
    shown = [point for _, panel_points in panels for point in panel_points]
    colours = _trial_colours(shown, view.ranking)
    figure = Figure(figsize=(12.6, 7.0), dpi=140, facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    figure.subplots_adjust(left=0.062, right=0.985, top=0.845, bottom=0.25, wspace=0.14)
    for axes, (panel, panel_points) in zip((left, right), panels, strict=True):
        _draw_panel(axes, panel, panel_points, view, colours)
    left.set_ylabel("Output tokens/s per GPU", color=INK)
    draw_heading(figure, view)
    draw_legend(figure, shown, view, _scenario_styles(shown))
    draw_candidate_key(figure, view, colours)
    figure.savefig(path, format="png", metadata={"Software": None})


def drawn_points(points: Sequence[ParetoPoint], ranking: Ranking) -> list[ParetoPoint]:
    """At most MAX_DRAWN_POINTS points, in their order: those of the best candidates and along the frontier."""
    if len(points) <= MAX_DRAWN_POINTS:
        return list(points)
    ranks = {standing.trial_number: standing.rank for standing in ranking.standings}
    frontier = [index for index, point in enumerate(points) if point.on_frontier]
    step = max(1, len(frontier) // MAX_DRAWN_FRONTIER_POINTS)
    by_rank = sorted(range(len(points)), key=lambda index: ranks[points[index].trial.number])
    kept = list(dict.fromkeys((*by_rank[:1], *frontier[::step][:MAX_DRAWN_FRONTIER_POINTS], *by_rank)))
    return [points[index] for index in sorted(kept[:MAX_DRAWN_POINTS])]


def _interactivity_panel(experiment: Experiment) -> _Panel:
    """The panel with 1 / TPOT on the x axis, by the statistic that has a target, else the mean."""
    term = _plotted_term(experiment, "tpot")
    statistic = term.scored_statistic if term else "mean"

    def value(metrics: Metrics, gpus: int, price: float | None) -> float | None:
        tpot = _statistic_value(metrics.tpot, statistic)
        return 1 / tpot if tpot else None

    return _Panel(
        ParetoAxis("interactivity", "Interactivity", "tokens/s/user", "max", value),
        f"Interactivity (tokens/s per user, 1 / {statistic} TPOT)",
        1 / term.threshold if term else None,
        _target_text("TPOT", term, experiment) if term else "",
    )


def _ttft_panel(experiment: Experiment) -> _Panel:
    """The panel with TTFT in ms on the x axis, by the statistic that has a target, else the mean."""
    term = _plotted_term(experiment, "ttft")
    statistic = term.scored_statistic if term else "mean"

    def value(metrics: Metrics, gpus: int, price: float | None) -> float | None:
        ttft = _statistic_value(metrics.ttft, statistic)
        return None if ttft is None else ttft * 1e3

    return _Panel(
        ParetoAxis("ttft", "Time to first token", "ms", "min", value),
        f"Time to first token ({statistic}, ms)",
        term.threshold * 1e3 if term else None,
        _target_text("TTFT", term, experiment) if term else "",
    )


def _target_text(name: str, term: SloTerm, experiment: Experiment) -> str:
    """A target as text: on a statistic, or on a share of the requests."""
    limit = f"≤ {term.threshold * 1e3:g} ms"
    if term.statistic == EACH_REQUEST:
        return f"target: {name} {limit} for {100 * experiment.slo.attainment:g}% of requests"
    return f"target: {name} {term.statistic} {limit}"


def _plotted_term(experiment: Experiment, metric: str) -> SloTerm | None:
    """The target to plot for a metric: the one on its mean, else the strictest."""
    terms = [term for term in experiment.slo.terms if term.metric == metric]
    return min(terms, key=lambda term: (term.scored_statistic != "mean", term.threshold), default=None)


def _statistic_value(distribution: Distribution | None, name: str) -> float | None:
    return None if distribution is None else float(getattr(distribution, name))


def _trial_colours(shown: Sequence[ParetoPoint], ranking: Ranking) -> dict[int, str]:
    """Trial number -> colour, for a few: the winner, the defaults, those on a frontier, and the best others."""
    shown_trials = {point.trial.number for point in shown}
    frontier_trials = {point.trial.number for point in shown if point.on_frontier}
    ranked = [standing.trial_number for standing in ranking.standings]
    first = [ranking.winner.trial_number if ranking.winner else None, ranking.baseline_trial_number]
    order = [*first, *(trial for trial in ranked if trial in frontier_trials), *ranked]
    coloured = dict.fromkeys(trial for trial in order if trial is not None and trial in shown_trials)
    return dict(zip(coloured, SERIES_COLOURS[:MAX_COLOURED_CANDIDATES], strict=False))


def _draw_panel(
    axes: Axes, panel: _Panel, panel_points: Sequence[ParetoPoint], view: RunView, colours: dict[int, str]
) -> None:
    """Draw the load points, their frontier and labels; a point's first two coordinates are x and y."""
    ranking = view.ranking
    axes.set_xlabel(panel.label, color=INK)
    xs, ys = [point.coordinates[0] for point in panel_points], [point.coordinates[1] for point in panel_points]
    limit_is_near = xs and panel.limit and max(xs) / 4 <= panel.limit <= max(xs) * 4
    style_axes(axes, [*xs, panel.limit] if limit_is_near and panel.limit else xs, ys)
    if panel.limit is not None:
        _shade_target(axes, panel)
    if not panel_points:
        axes.text(0.5, 0.5, "No load point has these metrics.", transform=axes.transAxes, ha="center", color=GREY)
        return
    if len(ranking.standings) <= MAX_CANDIDATES_WITH_CURVES:
        _draw_load_curves(axes, panel_points, colours)
    lines = _frontiers(panel_points)
    styles = _scenario_styles(panel_points)
    for line in lines:
        line_style = styles[line[0].result.load_point.scenario]
        xs, ys = [point.coordinates[0] for point in line], [point.coordinates[1] for point in line]
        axes.plot(xs, ys, color=INK, linewidth=1.6, linestyle=line_style, alpha=0.85, zorder=3)
    frontier = [point for line in lines for point in line]
    _draw_markers(axes, panel_points, ranking, colours)
    labelled = frontier + [point for point in panel_points if _is_winner(point, ranking) and not point.on_frontier]
    markers = []
    for point in panel_points:
        (x, y), radius = point.coordinates[:2], 9.0 if _is_winner(point, ranking) else 4.0
        if near_terms(point.result, view.experiment.slo):
            draw_near_ring(axes, x, y, 1.4 * radius)
            radius += 3.0
        markers.append((x, y, radius))
    place_labels(
        axes,
        _point_labels(labelled, view, colours),
        markers,
        [[p.coordinates[:2] for p in line] for line in lines],
    )


def _frontiers(panel_points: Sequence[ParetoPoint]) -> list[list[ParetoPoint]]:
    """The frontier of each scenario and source, from left to right."""
    lines: dict[tuple[str, str], list[ParetoPoint]] = {}
    for point in sorted(panel_points, key=lambda point: point.coordinates):
        if point.on_frontier:
            lines.setdefault((point.result.load_point.scenario, point.result.source), []).append(point)
    return [lines[key] for key in sorted(lines)]


def _scenario_styles(points: Sequence[ParetoPoint]) -> dict[str, Any]:
    """Scenario -> the line style of its frontier."""
    scenarios = sorted({point.result.load_point.scenario for point in points})
    return dict(zip(scenarios, cycle(_LINE_STYLES), strict=False))


def _is_winner(point: ParetoPoint, ranking: Ranking) -> bool:
    winner = ranking.winner
    return (
        winner is not None
        and point.trial.number == winner.trial_number
        and point.result.load_point in winner.load_points
    )


def _shade_target(axes: Axes, panel: _Panel) -> None:
    """Shade where the target on x is met."""
    low, high = axes.get_xlim()
    limit = panel.limit or 0.0
    higher_is_better = panel.x.direction == "max"
    start, end = (max(low, limit), high) if higher_is_better else (low, min(high, limit))
    if start < end:
        axes.axvspan(start, end, color=TARGET_COLOUR, alpha=0.07, linewidth=0, zorder=0)
    if low < limit < high:
        axes.axvline(limit, color=TARGET_COLOUR, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    text = panel.target_text if start < end else f"{panel.target_text} (outside this axis)"
    axes.text(
        0.99 if higher_is_better else 0.01,
        1.012,
        text,
        transform=axes.transAxes,
        ha="right" if higher_is_better else "left",
        va="bottom",
        fontsize=8,
        color=TARGET_COLOUR,
    )


def _draw_load_curves(axes: Axes, panel_points: Sequence[ParetoPoint], colours: dict[int, str]) -> None:
    """Connect the load points of each candidate and scenario with a thin line, lightest load first."""
    for key in dict.fromkeys((point.trial.number, point.result.load_point.scenario) for point in panel_points):
        curve = [p for p in panel_points if (p.trial.number, p.result.load_point.scenario) == key]
        curve.sort(key=lambda p: (p.result.load_point.concurrency or 0, p.result.load_point.rate or 0.0))
        xs, ys = [p.coordinates[0] for p in curve], [p.coordinates[1] for p in curve]
        axes.plot(xs, ys, color=colours.get(key[0], GREY), linewidth=0.9, alpha=0.35, zorder=2)


def _draw_markers(axes: Axes, panel_points: Sequence[ParetoPoint], ranking: Ranking, colours: dict[int, str]) -> None:
    """Draw every point, those of the frontier above the others; all of one style at once, because each costs time."""
    styles: dict[tuple[str, Verdict, bool, bool, bool], list[ParetoPoint]] = {}
    for point in sorted(panel_points, key=lambda point: point.on_frontier):
        colour = colours.get(point.trial.number, GREY) if point.is_trusted else GREY
        is_winner = point.is_trusted and _is_winner(point, ranking)
        key = (colour, point.result.verdict, point.is_trusted, point.on_frontier, is_winner)
        styles.setdefault(key, []).append(point)
    for (colour, verdict, is_trusted, on_frontier, is_winner), points in styles.items():
        xs, ys = [point.coordinates[0] for point in points], [point.coordinates[1] for point in points]
        style: dict[str, Any]
        if not is_trusted:
            style = {"marker": "x", "color": GREY, "markersize": 5, "alpha": 0.7, "zorder": 3}
        elif is_winner:
            style = {"marker": "*", "color": colour, "markersize": 17, "markeredgecolor": INK, "zorder": 5}
            style["markeredgewidth"] = 0.9
        else:
            style = {"marker": "o", "markersize": 6.5 if on_frontier else 5, **marker_face(verdict, colour)}
            style |= {"alpha": 1.0 if on_frontier else 0.4, "zorder": 4 if on_frontier else 3}
        axes.plot(xs, ys, linestyle="none", **style)


def _point_labels(labelled_points: Sequence[ParetoPoint], view: RunView, colours: dict[int, str]) -> list[Label]:
    """The loads of these points, once for each place; the winner's first, with its trial."""
    labels: dict[tuple[str, ...], Label] = {}
    for point in sorted(labelled_points, key=lambda point: not _is_winner(point, view.ranking)):
        is_winner, load = _is_winner(point, view.ranking), _load_text(point)
        texts = (f"trial {point.trial.number}\n{load}", load) if is_winner else (load,)
        place = tuple(f"{value:.2g}" for value in point.coordinates[:2])
        labels.setdefault((*place, load), _point_label(point, texts, colours, bold=is_winner))
    return list(labels.values())


def _load_text(point: ParetoPoint) -> str:
    load_point = point.result.load_point
    return f"c={load_point.concurrency}" if load_point.concurrency is not None else f"{load_point.rate:g} requests/s"


def _point_label(point: ParetoPoint, texts: tuple[str, ...], colours: dict[int, str], *, bold: bool) -> Label:
    return Label((point.coordinates[0], point.coordinates[1]), texts, colours.get(point.trial.number, INK), bold)
