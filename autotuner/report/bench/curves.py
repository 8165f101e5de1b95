"""Plots of a load test: TTFT and TPOT against load, and throughput against interactivity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from autotuner.core import Distribution, LoadPointResult
from autotuner.report.bench.canvas import (
    UNTRUSTED_VERDICTS,
    draw_placeholder,
    group_by_series,
    load_label,
    load_value,
    make_figure,
    save_figure,
    scenario_colours,
    set_load_ticks,
)
from autotuner.report.bench.result import BenchResult
from autotuner.report.label_placement import Label, place_labels
from autotuner.report.near_misses import near_terms
from autotuner.report.plot_style import DARK_GREY, GREY, INK, draw_near_ring, marker_face, style_axes, verdict_legend

_LOAD_AXIS_TITLES = {False: "Concurrency (requests in flight)", True: "Rate (requests/s)"}
_METRICS = (("ttft", "Time to first token (ms)"), ("tpot", "Time per output token (ms)"))


def draw_latency_curves(bench: BenchResult, path: Path) -> None:
    """Write a PNG: mean and p99 of TTFT and TPOT against load, with 95% confidence intervals of the p99."""
    loop_kinds = sorted({point.load_point.rate is not None for point in bench.load_points}) or [False]
    legend = _legend_entries(bench, with_statistics=True)
    figure, grid = make_figure(bench, "Latency against load", len(loop_kinds), 2, [text for _, text in legend])
    for row, open_loop in zip(grid, loop_kinds, strict=True):
        for axes, (name, label) in zip(row, _METRICS, strict=True):
            axes.set_xlabel(_LOAD_AXIS_TITLES[open_loop], color=INK)
            axes.set_ylabel(label, color=INK)
            _draw_latency(axes, bench, name, open_loop=open_loop)
    save_figure(figure, path, legend)


def _draw_latency(axes: Axes, bench: BenchResult, name: str, *, open_loop: bool) -> None:
    """Draw mean and p99 of one latency (`name`, a field of Metrics) in ms against the load, a line per scenario."""
    points = [point for point in bench.load_points if (point.load_point.rate is not None) == open_loop]
    drawn = [point for point in points if getattr(point.metrics, name) is not None]
    levels = [load_value(point.load_point) for point in drawn]
    uppers = [_p99_upper(getattr(point.metrics, name)) * 1e3 for point in drawn]
    all_means = [getattr(point.metrics, name).mean * 1e3 for point in drawn]
    style_axes(axes, levels, [*uppers, *all_means])
    if not drawn:
        draw_placeholder(axes)
        return
    set_load_ticks(axes, levels)
    colours = scenario_colours(bench.load_points)
    for (scenario, _), line in group_by_series(drawn).items():
        xs = [load_value(point.load_point) for point in line]
        distributions = [getattr(point.metrics, name) for point in line]
        means = [distribution.mean * 1e3 for distribution in distributions]
        axes.plot(xs, means, color=colours[scenario], linewidth=1.6, zorder=3)
        p99s = [distribution.p99 * 1e3 for distribution in distributions]
        axes.plot(xs, p99s, color=colours[scenario], linewidth=1.1, linestyle=(0, (4, 2)), zorder=2)
        for x, point, distribution in zip(xs, line, distributions, strict=True):
            _draw_interval(axes, x, distribution, colours[scenario])
            _draw_mark(axes, x, distribution.mean * 1e3, point, bench, colours[scenario])


def _draw_mark(axes: Axes, x: float, y: float, point: LoadPointResult, bench: BenchResult, colour: str) -> None:
    """Draw a load point's marker by verdict, with a ring if it is near a target."""
    if point.verdict in UNTRUSTED_VERDICTS:
        axes.plot([x], [y], "x", color=GREY, markersize=5.5, zorder=4)
        return
    axes.plot([x], [y], "o", markersize=6, zorder=4, **marker_face(point.verdict, colour))
    if near_terms(point, bench.slo):
        draw_near_ring(axes, x, y, 6.0)


def _draw_interval(axes: Axes, x: float, distribution: Distribution, colour: str) -> None:
    """Draw the interval of the p99, with an arrow if it has no upper limit."""
    low, high = distribution.intervals.get("p99", (distribution.p99, distribution.p99))
    upper = distribution.p99 if high is None else high
    axes.plot([x, x], [low * 1e3, upper * 1e3], color=colour, linewidth=1.0, alpha=0.6, zorder=2)
    axes.plot([x], [upper * 1e3], "^" if high is None else "_", color=colour, markersize=5, alpha=0.8, zorder=2)


def _p99_upper(distribution: Distribution) -> float:
    high = distribution.intervals.get("p99", (0.0, distribution.p99))[1]
    return max(distribution.p99, high or 0.0)


def draw_tradeoff(bench: BenchResult, path: Path) -> None:
    """Write a PNG: output throughput against per-user speed."""
    legend = _legend_entries(bench, with_statistics=False)
    figure, grid = make_figure(bench, "Output throughput against interactivity", legend=[text for _, text in legend])
    axes = grid[0][0]
    axes.set_xlabel("Interactivity (tokens/s per user, 1 / mean TPOT)", color=INK)
    axes.set_ylabel("Output tokens/s", color=INK)
    drawn = [point for point in bench.load_points if point.metrics.interactivity]
    positions = {id(point): _position(point) for point in drawn}
    style_axes(axes, [x for x, _ in positions.values()], [y for _, y in positions.values()])
    if not drawn:
        draw_placeholder(axes)
    colours = scenario_colours(bench.load_points)
    lines = []
    for (scenario, _), line in group_by_series(drawn).items():
        curve = [positions[id(point)] for point in line]
        lines.append(curve)
        axes.plot([x for x, _ in curve], [y for _, y in curve], color=colours[scenario], linewidth=1.4, zorder=2)
        for point, (x, y) in zip(line, curve, strict=True):
            _draw_mark(axes, x, y, point, bench, colours[scenario])
    labels = [
        Label(positions[id(point)], (load_label(point.load_point),), colours[point.load_point.scenario])
        for point in drawn
    ]
    radii = [7.0 if near_terms(point, bench.slo) else 4.0 for point in drawn]
    markers = [(*position, radius) for position, radius in zip(positions.values(), radii, strict=True)]
    place_labels(axes, labels, markers, lines)
    save_figure(figure, path, legend)


def _position(point: LoadPointResult) -> tuple[float, float]:
    return point.metrics.interactivity or 0.0, point.metrics.output_throughput


def _legend_entries(bench: BenchResult, *, with_statistics: bool) -> Sequence[tuple[Any, str]]:
    colours = scenario_colours(bench.load_points)
    entries: list[tuple[Any, str]] = []
    if len(colours) > 1:
        entries += [(Line2D([], [], color=colour, linewidth=2.5), name) for name, colour in colours.items()]
    if with_statistics:
        entries.append((Line2D([], [], color=DARK_GREY, linewidth=1.6), "mean"))
        entries.append(
            (Line2D([], [], color=DARK_GREY, linewidth=1.1, linestyle=(0, (4, 2))), "p99 with 95% confidence interval")
        )
        entries.append(
            (Line2D([], [], color=DARK_GREY, linestyle="none", marker="^", markersize=5), "no upper confidence limit")
        )
    results = bench.load_points
    entries += verdict_legend(
        {result.verdict for result in results},
        has_targets=bool(bench.slo.terms),
        has_near=any(near_terms(result, bench.slo) for result in results),
    )
    if any(result.verdict in UNTRUSTED_VERDICTS for result in results):
        untrusted = Line2D([], [], color=GREY, linestyle="none", marker="x", markersize=5.5)
        entries.append((untrusted, "invalid, client-limited or saturated"))
    return entries
