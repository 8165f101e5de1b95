"""Shared by the plots of a load test: figure, heading, colours, labels and grouping of load points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from autotuner.core import LoadPoint, LoadPointResult, Verdict
from autotuner.report.bench.result import BenchResult
from autotuner.report.formatting import format_load
from autotuner.report.plot_style import BADGE_COLOUR, DARK_GREY, GREY, INK, SERIES_COLOURS, SOURCE_BADGES, printable

UNTRUSTED_VERDICTS = (Verdict.INVALID, Verdict.CLIENT_LIMITED, Verdict.SATURATED)
MAX_TICKS = 10
LEGEND_LINE_CHARACTERS = 165
"""Characters that fit one line of the legend."""


def make_figure(
    bench: BenchResult, title: str, rows: int = 1, columns: int = 1, legend: Sequence[str] = (), **options: Any
) -> tuple[Figure, Any]:
    """A figure with a heading and room for a legend of these texts, and its `rows` x `columns` grid of axes."""
    bottom = 0.85 + 0.2 * math.ceil(len(legend) / _legend_columns(legend))
    height = 1.0 + bottom + 3.3 * rows
    figure = Figure(figsize=(11.6, height), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    figure.subplots_adjust(
        left=0.07, right=0.985, top=1 - 1.0 / height, bottom=bottom / height, wspace=0.17, hspace=0.28
    )
    scenarios = ", ".join(dict.fromkeys(point.load_point.scenario for point in bench.load_points))
    title_y, subtitle_y = 1 - 0.36 / height, 1 - 0.62 / height
    figure.text(0.07, title_y, title, fontsize=14, fontweight="bold", color=INK)
    has_closed_loop = any(point.load_point.concurrency for point in bench.load_points)
    key = ", c = concurrency" if has_closed_loop else ""
    subtitle = f"{printable(bench.model, 60)} at {printable(bench.url, 50)}, {printable(scenarios, 60)}{key}"
    figure.text(0.07, subtitle_y, subtitle, fontsize=9.5, color=DARK_GREY, parse_math=False)
    if bench.source in SOURCE_BADGES:
        figure.text(
            0.985,
            title_y,
            SOURCE_BADGES[bench.source],
            ha="right",
            fontsize=10.5,
            fontweight="bold",
            color=INK,
            bbox={"boxstyle": "round,pad=0.4", "facecolor": BADGE_COLOUR, "edgecolor": "none"},
        )
    return figure, axes


def save_figure(figure: Figure, path: Path, entries: Sequence[tuple[Any, str]] = ()) -> None:
    """Add the legend at the bottom and write the PNG; equal input gives equal bytes."""
    if entries:
        handles, texts = zip(*entries, strict=True)
        columns = _legend_columns(texts)
        figure.legend(handles, texts, loc="lower center", ncols=columns, frameon=False, fontsize=8.5, labelcolor=INK)
    figure.savefig(path, format="png", metadata={"Software": None})


def _legend_columns(texts: Sequence[str]) -> int:
    """Number of legend entries that fit on one line."""
    max_length = max(map(len, texts), default=0)
    return max(1, min(len(texts), LEGEND_LINE_CHARACTERS // (8 + max_length)))


def draw_placeholder(axes: Axes, text: str = "No load point has these metrics.") -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=GREY)


def load_value(point: LoadPoint) -> float:
    """The load of a load point as a number: its concurrency or its rate."""
    return float(point.concurrency) if point.concurrency is not None else float(point.rate or 0.0)


def load_label(point: LoadPoint) -> str:
    """The load of a load point as text: `c=4` for a concurrency, `4/s` for a rate."""
    return format_load(point) if point.concurrency is None else f"c={format_load(point)}"


def group_by_series(points: Sequence[LoadPointResult]) -> dict[tuple[str, bool], list[LoadPointResult]]:
    """(Scenario, is open loop) -> its load points, lightest first."""
    series: dict[tuple[str, bool], list[LoadPointResult]] = {}
    for point in sorted(points, key=lambda point: load_value(point.load_point)):
        load_point = point.load_point
        series.setdefault((load_point.scenario, load_point.rate is not None), []).append(point)
    return series


def scenario_colours(points: Sequence[LoadPointResult]) -> dict[str, str]:
    """Scenario -> colour."""
    names = dict.fromkeys(point.load_point.scenario for point in points)
    return {name: SERIES_COLOURS[index % len(SERIES_COLOURS)] for index, name in enumerate(names)}


def load_colours(count: int) -> list[Any]:
    """`count` colours, from light load to heavy."""
    return [matplotlib.colormaps["viridis"](0.85 - 0.85 * index / max(1, count - 1)) for index in range(count)]


def set_load_ticks(axes: Axes, levels: Sequence[float]) -> None:
    """Set ticks at the measured loads, if there are at most MAX_TICKS."""
    ticks = sorted(set(levels))
    if 0 < len(ticks) <= MAX_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
