"""Plots latency distributions and a timeline of the load points of a load test."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from autotuner.report.bench.canvas import draw_placeholder, load_colours, load_label, make_figure, save_figure
from autotuner.report.bench.result import BenchResult
from autotuner.report.bench.trace import LoadPointTimeline, Samples
from autotuner.report.plot_style import DARK_GREY, INK, style_axes

ERROR_COLOUR = "#c8102e"
WIDE_SPAN_RATIO = 300.0


def draw_distributions(bench: BenchResult, timelines: Sequence[LoadPointTimeline], path: Path) -> None:
    """Write a PNG: empirical CDFs of TTFT and E2E per load point; failed requests count as infinite."""
    colours = load_colours(len(timelines))
    texts = [
        f"{name} (n={point.metrics.requests})"
        for name, point in zip(_load_labels(bench), bench.load_points, strict=True)
    ]
    figure, grid = make_figure(bench, "Latency distributions", 1, 2, texts, sharey=True)
    for axes, name, label in zip(grid[0], ("ttft", "e2e"), ("Time to first token (ms)", "End to end (s)"), strict=True):
        scale = 1e3 if name == "ttft" else 1.0
        samples_by_point = [getattr(timeline, name) * scale for timeline in timelines]
        nonempty = [samples for samples in samples_by_point if len(samples)]
        style_axes(axes, [float(value) for samples in nonempty for value in (samples[0], samples[-1])], [1.0])
        axes.set_xlabel(label, color=INK)
        axes.set_ylim(0.0, 1.02)
        if nonempty:
            _fit_x_axis(axes, nonempty)
        else:
            draw_placeholder(axes, "No request was answered.")
        for timeline, samples, colour in zip(timelines, samples_by_point, colours, strict=True):
            if len(samples):
                shares = np.arange(1, len(samples) + 1) / (len(samples) + timeline.errors)
                axes.step([samples[0], *samples], [0.0, *shares], where="post", color=colour, linewidth=1.5)
    grid[0][0].set_ylabel("Share of requests", color=INK)
    handles = [Line2D([], [], color=colour, linewidth=2.5) for colour in colours]
    save_figure(figure, path, list(zip(handles, texts, strict=True)))


def _load_labels(bench: BenchResult) -> list[str]:
    """The load of each load point, preceded by its scenario if there are several."""
    points = [point.load_point for point in bench.load_points]
    has_several_scenarios = len({point.scenario for point in points}) > 1
    return [f"{point.scenario} {load_label(point)}" if has_several_scenarios else load_label(point) for point in points]


def _fit_x_axis(axes: Axes, sorted_samples: Sequence[Samples]) -> None:
    """Start x near the fastest request if all are far from zero; thin out ticks on wide log axes."""
    low, high = min(samples[0] for samples in sorted_samples), max(samples[-1] for samples in sorted_samples)
    if axes.get_xscale() == "log" and high > WIDE_SPAN_RATIO * low:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    elif axes.get_xscale() == "linear" and low > 0.3 * high:
        margin = max(0.06 * (high - low), 0.02 * high)
        axes.set_xlim(low - margin, high + margin)


def draw_timeline(bench: BenchResult, timelines: Sequence[LoadPointTimeline], path: Path) -> None:
    """Write a PNG: output tokens/s and requests in flight over time, all windows on one time axis."""
    figure, grid = make_figure(bench, "Timeline", 2, 1, sharex=True)
    figure.subplots_adjust(hspace=0.12)
    upper, lower = grid[0][0], grid[1][0]
    origin = min((timeline.window[0] for timeline in timelines), default=0.0)
    end = max((timeline.window[1] for timeline in timelines), default=0.0) - origin or 1.0
    style_axes(upper, [0.0, end], [float(timeline.tokens_per_second.max()) for timeline in timelines])
    style_axes(lower, [0.0, end], [float(timeline.in_flight.max()) for timeline in timelines])
    lower.set_xlim(-0.01 * end, 1.01 * end)
    upper.set_ylabel("Output tokens/s", color=INK)
    lower.set_ylabel("Requests in flight", color=INK)
    lower.set_xlabel("Time since the first window began (s)", color=INK)
    for timeline, colour in zip(timelines, load_colours(len(timelines)), strict=True):
        start, stop = timeline.window[0] - origin, timeline.window[1] - origin
        for axes in (upper, lower):
            axes.axvspan(start, stop, color=colour, alpha=0.08, linewidth=0)
        edges, times = timeline.bin_edges - origin, timeline.sample_times - origin
        upper.stairs(timeline.tokens_per_second, edges, baseline=None, color=colour, linewidth=1.5)
        lower.plot(times, timeline.in_flight, color=colour, linewidth=1.2, drawstyle="steps-post")
        if len(timeline.failure_times):
            heights = np.full(len(timeline.failure_times), 0.03)
            times, axes_fraction = timeline.failure_times - origin, upper.get_xaxis_transform()
            upper.plot(times, heights, "|", color=ERROR_COLOUR, markersize=9, transform=axes_fraction)
    _label_windows(upper, bench, [(timeline.window[0] - origin, timeline.window[1] - origin) for timeline in timelines])
    figure.align_ylabels()
    failure_marker = Line2D([], [], color=ERROR_COLOUR, linestyle="none", marker="|", markersize=9)
    has_failures = any(len(timeline.failure_times) for timeline in timelines)
    save_figure(figure, path, [(failure_marker, "failed request")] if has_failures else [])


def _label_windows(axes: Axes, bench: BenchResult, windows: Sequence[tuple[float, float]]) -> None:
    """Label each window with its load, and above it consecutive windows with their scenario."""
    points = [point.load_point for point in bench.load_points]
    width = axes.get_xlim()[1] - axes.get_xlim()[0]

    def write(text: str, start: float, end: float, offset: float) -> None:
        if end - start > 0.008 * width * len(text):
            axes.annotate(
                text,
                ((start + end) / 2, 1.0),
                (0, offset),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
                color=DARK_GREY,
                parse_math=False,
            )

    for point, window in zip(points, windows, strict=True):
        write(load_label(point), *window, 3)
    if len({point.scenario for point in points}) > 1:
        for scenario, group in groupby(zip(points, windows, strict=True), key=lambda pair: pair[0].scenario):
            spans = [window for _, window in group]
            write(scenario, spans[0][0], spans[-1][1], 15)
