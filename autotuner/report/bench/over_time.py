"""How latencies are distributed at each load point, and what happened when."""

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
    """Write a PNG: the share of requests whose TTFT and E2E were at most x; one that failed never is."""
    colours = load_colours(len(timelines))
    texts = [
        f"{name} (n={point.result.metrics.requests})"
        for name, point in zip(_load_labels(bench), bench.load_points, strict=True)
    ]
    figure, grid = make_figure(bench, "Latency distributions", 1, 2, texts, sharey=True)
    for axes, name, label in zip(grid[0], ("ttft", "e2e"), ("Time to first token (ms)", "End to end (s)"), strict=True):
        scale = 1e3 if name == "ttft" else 1.0
        found = [getattr(trace, name) * scale for trace in timelines]
        drawn = [samples for samples in found if len(samples)]
        style_axes(axes, [float(value) for samples in drawn for value in (samples[0], samples[-1])], [1.0])
        axes.set_xlabel(label, color=INK)
        axes.set_ylim(0.0, 1.02)
        if drawn:
            _fit_x_axis(axes, drawn)
        else:
            draw_placeholder(axes, "No request was answered.")
        for trace, samples, colour in zip(timelines, found, colours, strict=True):
            if len(samples):
                shares = np.arange(1, len(samples) + 1) / (len(samples) + trace.errors)
                axes.step([samples[0], *samples], [0.0, *shares], where="post", color=colour, linewidth=1.5)
    grid[0][0].set_ylabel("Share of requests", color=INK)
    handles = [Line2D([], [], color=colour, linewidth=2.5) for colour in colours]
    save_figure(figure, path, list(zip(handles, texts, strict=True)))


def _load_labels(bench: BenchResult) -> list[str]:
    """Each load point by its load, and by its scenario where there are several."""
    asked = [point.result.load_point for point in bench.load_points]
    several = len({point.scenario for point in asked}) > 1
    return [f"{point.scenario} {load_label(point)}" if several else load_label(point) for point in asked]


def _fit_x_axis(axes: Axes, sorted_samples: Sequence[Samples]) -> None:
    """Begin beside the fastest request where all are far from zero, and have room for the numbers."""
    low, high = min(samples[0] for samples in sorted_samples), max(samples[-1] for samples in sorted_samples)
    if axes.get_xscale() == "log" and high > WIDE_SPAN_RATIO * low:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    elif axes.get_xscale() == "linear" and low > 0.3 * high:
        margin = max(0.06 * (high - low), 0.02 * high)
        axes.set_xlim(low - margin, high + margin)


def draw_timeline(bench: BenchResult, timelines: Sequence[LoadPointTimeline], path: Path) -> None:
    """Write a PNG: output tokens received per second and requests in flight in each window, on one clock."""
    figure, grid = make_figure(bench, "Timeline", 2, 1, sharex=True)
    figure.subplots_adjust(hspace=0.12)
    upper, lower = grid[0][0], grid[1][0]
    origin = min((trace.window[0] for trace in timelines), default=0.0)
    end = max((trace.window[1] for trace in timelines), default=0.0) - origin or 1.0
    style_axes(upper, [0.0, end], [float(trace.tokens_per_second.max()) for trace in timelines])
    style_axes(lower, [0.0, end], [float(trace.in_flight.max()) for trace in timelines])
    lower.set_xlim(-0.01 * end, 1.01 * end)
    upper.set_ylabel("Output tokens/s", color=INK)
    lower.set_ylabel("Requests in flight", color=INK)
    lower.set_xlabel("Time since the first window began (s)", color=INK)
    for trace, colour in zip(timelines, load_colours(len(timelines)), strict=True):
        start, stop = trace.window[0] - origin, trace.window[1] - origin
        for axes in (upper, lower):
            axes.axvspan(start, stop, color=colour, alpha=0.08, linewidth=0)
        upper.stairs(trace.tokens_per_second, trace.bin_edges - origin, baseline=None, color=colour, linewidth=1.5)
        lower.plot(trace.sample_times - origin, trace.in_flight, color=colour, linewidth=1.2, drawstyle="steps-post")
        if len(trace.failure_times):
            at_foot = np.full(len(trace.failure_times), 0.03)
            feet = upper.get_xaxis_transform()
            upper.plot(trace.failure_times - origin, at_foot, "|", color=ERROR_COLOUR, markersize=9, transform=feet)
    _label_windows(upper, bench, [(trace.window[0] - origin, trace.window[1] - origin) for trace in timelines])
    figure.align_ylabels()
    failed = Line2D([], [], color=ERROR_COLOUR, linestyle="none", marker="|", markersize=9)
    save_figure(
        figure, path, [(failed, "failed request")] if any(len(trace.failure_times) for trace in timelines) else []
    )


def _label_windows(axes: Axes, bench: BenchResult, windows: Sequence[tuple[float, float]]) -> None:
    """Write each window's load above it, and above those the scenario, once for its windows in a row."""
    asked = [point.result.load_point for point in bench.load_points]
    width = axes.get_xlim()[1] - axes.get_xlim()[0]

    def write(text: str, start: float, end: float, lift: float) -> None:
        if end - start > 0.008 * width * len(text):
            axes.annotate(
                text,
                ((start + end) / 2, 1.0),
                (0, lift),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
                color=DARK_GREY,
                parse_math=False,
            )

    for point, window in zip(asked, windows, strict=True):
        write(load_label(point), *window, 3)
    if len({point.scenario for point in asked}) > 1:
        for scenario, group in groupby(zip(asked, windows, strict=True), key=lambda pair: pair[0].scenario):
            spans = [window for _, window in group]
            write(scenario, spans[0][0], spans[-1][1], 15)
