"""How latencies are distributed at each load point, and what happened when."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from autotuner.report.bench.canvas import canvas, empty, finish, named, shades
from autotuner.report.bench.result import BenchResult
from autotuner.report.bench.trace import Samples, Trace
from autotuner.report.plot_style import INK, QUIET, style

ERRORS = "#c8102e"
WIDE = 300.0


def distributions(bench: BenchResult, traces: Sequence[Trace], path: Path) -> None:
    """Write a PNG: the share of requests whose TTFT and E2E were at most x; one that failed never is."""
    colours = shades(len(traces))
    texts = [
        f"{name} (n={point.result.metrics.requests})"
        for name, point in zip(_names(bench), bench.load_points, strict=True)
    ]
    figure, grid = canvas(bench, "Latency distributions", 1, 2, texts, sharey=True)
    for axes, name, label in zip(grid[0], ("ttft", "e2e"), ("Time to first token (ms)", "End to end (s)"), strict=True):
        scale = 1e3 if name == "ttft" else 1.0
        found = [getattr(trace, name) * scale for trace in traces]
        drawn = [samples for samples in found if len(samples)]
        style(axes, [float(value) for samples in drawn for value in (samples[0], samples[-1])], [1.0])
        axes.set_xlabel(label, color=INK)
        axes.set_ylim(0.0, 1.02)
        if drawn:
            _zoom(axes, drawn)
        else:
            empty(axes, "No request was answered.")
        for trace, samples, colour in zip(traces, found, colours, strict=True):
            if len(samples):
                shares = np.arange(1, len(samples) + 1) / (len(samples) + trace.errors)
                axes.step([samples[0], *samples], [0.0, *shares], where="post", color=colour, linewidth=1.5)
    grid[0][0].set_ylabel("Share of requests", color=INK)
    handles = [Line2D([], [], color=colour, linewidth=2.5) for colour in colours]
    finish(figure, path, list(zip(handles, texts, strict=True)))


def _names(bench: BenchResult) -> list[str]:
    """Each load point by its load, and by its scenario where there are several."""
    asked = [point.result.load_point for point in bench.load_points]
    several = len({point.scenario for point in asked}) > 1
    return [f"{point.scenario} {named(point)}" if several else named(point) for point in asked]


def _zoom(axes: Axes, drawn: Sequence[Samples]) -> None:
    """Begin beside the fastest request where all are far from zero, and have room for the numbers."""
    low, high = min(samples[0] for samples in drawn), max(samples[-1] for samples in drawn)
    if axes.get_xscale() == "log" and high > WIDE * low:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    elif axes.get_xscale() == "linear" and low > 0.3 * high:
        margin = max(0.06 * (high - low), 0.02 * high)
        axes.set_xlim(low - margin, high + margin)


def timeline(bench: BenchResult, traces: Sequence[Trace], path: Path) -> None:
    """Write a PNG: output tokens received per second and requests in flight in each window, on one clock."""
    figure, grid = canvas(bench, "Timeline", 2, 1, sharex=True)
    figure.subplots_adjust(hspace=0.12)
    upper, lower = grid[0][0], grid[1][0]
    origin = min((trace.window[0] for trace in traces), default=0.0)
    end = max((trace.window[1] for trace in traces), default=0.0) - origin or 1.0
    style(upper, [0.0, end], [float(trace.tokens_per_second.max()) for trace in traces])
    style(lower, [0.0, end], [float(trace.in_flight.max()) for trace in traces])
    lower.set_xlim(-0.01 * end, 1.01 * end)
    upper.set_ylabel("Output tokens/s", color=INK)
    lower.set_ylabel("Requests in flight", color=INK)
    lower.set_xlabel("Time since the first window began (s)", color=INK)
    for trace, colour in zip(traces, shades(len(traces)), strict=True):
        start, stop = trace.window[0] - origin, trace.window[1] - origin
        for axes in (upper, lower):
            axes.axvspan(start, stop, color=colour, alpha=0.08, linewidth=0)
        upper.stairs(trace.tokens_per_second, trace.edges - origin, baseline=None, color=colour, linewidth=1.5)
        lower.plot(trace.times - origin, trace.in_flight, color=colour, linewidth=1.2, drawstyle="steps-post")
        if len(trace.failed_at):
            at_foot = np.full(len(trace.failed_at), 0.03)
            feet = upper.get_xaxis_transform()
            upper.plot(trace.failed_at - origin, at_foot, "|", color=ERRORS, markersize=9, transform=feet)
    _name_windows(upper, bench, [(trace.window[0] - origin, trace.window[1] - origin) for trace in traces])
    figure.align_ylabels()
    failed = Line2D([], [], color=ERRORS, linestyle="none", marker="|", markersize=9)
    finish(figure, path, [(failed, "failed request")] if any(len(trace.failed_at) for trace in traces) else [])


def _name_windows(axes: Axes, bench: BenchResult, windows: Sequence[tuple[float, float]]) -> None:
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
                color=QUIET,
                parse_math=False,
            )

    for point, window in zip(asked, windows, strict=True):
        write(named(point), *window, 3)
    if len({point.scenario for point in asked}) > 1:
        for scenario, group in groupby(zip(asked, windows, strict=True), key=lambda pair: pair[0].scenario):
            spans = [window for _, window in group]
            write(scenario, spans[0][0], spans[-1][1], 15)
