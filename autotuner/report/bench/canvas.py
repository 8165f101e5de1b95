"""What the pictures of a load test share: figure, heading, colours, and which load points are drawn how."""

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

from autotuner.core import LoadPoint, Verdict
from autotuner.report.bench.result import BenchLoadPoint, BenchResult
from autotuner.report.formatting import format_load
from autotuner.report.plot_style import BADGE_COLOUR, DARK_GREY, GREY, INK, SERIES_COLOURS, SOURCE_BADGES, printable

UNTRUSTED_VERDICTS = (Verdict.INVALID, Verdict.CLIENT_LIMITED, Verdict.SATURATED)
MAX_TICKS = 10
LEGEND_LINE_CHARACTERS = 165
"""What one line of the legend holds."""


def make_figure(
    bench: BenchResult, title: str, rows: int = 1, columns: int = 1, legend: Sequence[str] = (), **options: Any
) -> tuple[Figure, Any]:
    """A figure with a heading, `rows` x `columns` axes as a grid, and room for a legend of these texts."""
    below = 0.85 + 0.2 * math.ceil(len(legend) / _legend_columns(legend))
    height = 1.0 + below + 3.3 * rows
    figure = Figure(figsize=(11.6, height), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    figure.subplots_adjust(
        left=0.07, right=0.985, top=1 - 1.0 / height, bottom=below / height, wspace=0.17, hspace=0.28
    )
    scenarios = ", ".join(dict.fromkeys(point.result.load_point.scenario for point in bench.load_points))
    heading, under = 1 - 0.36 / height, 1 - 0.62 / height
    figure.text(0.07, heading, title, fontsize=14, fontweight="bold", color=INK)
    closed = any(point.result.load_point.concurrency for point in bench.load_points)
    key = ", c = concurrency" if closed else ""
    said = f"{printable(bench.model, 60)} at {printable(bench.url, 50)}, {printable(scenarios, 60)}{key}"
    figure.text(0.07, under, said, fontsize=9.5, color=DARK_GREY, parse_math=False)
    if bench.source in SOURCE_BADGES:
        figure.text(
            0.985,
            heading,
            SOURCE_BADGES[bench.source],
            ha="right",
            fontsize=10.5,
            fontweight="bold",
            color=INK,
            bbox={"boxstyle": "round,pad=0.4", "facecolor": BADGE_COLOUR, "edgecolor": "none"},
        )
    return figure, axes


def save_figure(figure: Figure, path: Path, entries: Sequence[tuple[Any, str]] = ()) -> None:
    """Put the legend below and write the PNG; equal input gives equal bytes."""
    if entries:
        handles, texts = zip(*entries, strict=True)
        columns = max(1, min(len(texts), LEGEND_LINE_CHARACTERS // (8 + max(map(len, texts)))))
        figure.legend(handles, texts, loc="lower center", ncols=columns, frameon=False, fontsize=8.5, labelcolor=INK)
    figure.savefig(path, format="png", metadata={"Software": None})


def _legend_columns(texts: Sequence[str]) -> int:
    """How many entries of a legend fit beside each other."""
    longest = max(map(len, texts), default=0)
    return max(1, min(len(texts), LEGEND_LINE_CHARACTERS // (8 + longest)))


def draw_placeholder(axes: Axes, text: str = "No load point gave these figures.") -> None:
    """Say that there is nothing to draw."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=GREY)


def load_value(point: LoadPoint) -> float:
    """How hard a load point pushes: its concurrency or its rate."""
    return float(point.concurrency) if point.concurrency is not None else float(point.rate or 0.0)


def load_label(point: LoadPoint) -> str:
    """A load point by its load alone: `c=4` requests in flight, or `4/s`."""
    return format_load(point) if point.concurrency is None else f"c={format_load(point)}"


def group_by_series(points: Sequence[BenchLoadPoint]) -> dict[tuple[str, bool], list[BenchLoadPoint]]:
    """Load points by scenario and by whether they have a rate, lightest first."""
    found: dict[tuple[str, bool], list[BenchLoadPoint]] = {}
    for point in sorted(points, key=lambda point: load_value(point.result.load_point)):
        asked = point.result.load_point
        found.setdefault((asked.scenario, asked.rate is not None), []).append(point)
    return found


def scenario_colours(points: Sequence[BenchLoadPoint]) -> dict[str, str]:
    """One colour for each scenario."""
    names = dict.fromkeys(point.result.load_point.scenario for point in points)
    return {name: SERIES_COLOURS[place % len(SERIES_COLOURS)] for place, name in enumerate(names)}


def load_colours(count: int) -> list[Any]:
    """Colours in order, from light load to heavy."""
    return [matplotlib.colormaps["viridis"](0.85 - 0.85 * place / max(1, count - 1)) for place in range(count)]


def set_load_ticks(axes: Axes, levels: Sequence[float]) -> None:
    """Ticks at the loads that were driven, where they are few enough."""
    found = sorted(set(levels))
    if 0 < len(found) <= MAX_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(found))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
