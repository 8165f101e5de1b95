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
from autotuner.report.bench.result import BenchResult, Driven
from autotuner.report.formatting import load
from autotuner.report.plot_style import BADGE, BADGES, COLOURS, INK, MUTED, QUIET, plain

UNTRUSTED = (Verdict.INVALID, Verdict.CLIENT_LIMITED, Verdict.SATURATED)
MOST_TICKS = 10
CHARACTERS = 165
"""What one line of the legend holds."""


def canvas(
    bench: BenchResult, what: str, rows: int = 1, columns: int = 1, legend: Sequence[str] = (), **options: Any
) -> tuple[Figure, Any]:
    """A figure with a heading, `rows` x `columns` axes as a grid, and room for a legend of these texts."""
    below = 0.85 + 0.2 * math.ceil(len(legend) / _abreast(legend))
    height = 1.0 + below + 3.3 * rows
    figure = Figure(figsize=(11.6, height), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    figure.subplots_adjust(
        left=0.07, right=0.985, top=1 - 1.0 / height, bottom=below / height, wspace=0.17, hspace=0.28
    )
    scenarios = ", ".join(dict.fromkeys(point.result.load_point.scenario for point in bench.load_points))
    heading, under = 1 - 0.36 / height, 1 - 0.62 / height
    figure.text(0.07, heading, what, fontsize=14, fontweight="bold", color=INK)
    closed = any(point.result.load_point.concurrency for point in bench.load_points)
    key = ", c = concurrency" if closed else ""
    said = f"{plain(bench.model, 60)} at {plain(bench.url, 50)}, {plain(scenarios, 60)}{key}"
    figure.text(0.07, under, said, fontsize=9.5, color=QUIET, parse_math=False)
    if bench.source in BADGES:
        figure.text(
            0.985,
            heading,
            BADGES[bench.source],
            ha="right",
            fontsize=10.5,
            fontweight="bold",
            color=INK,
            bbox={"boxstyle": "round,pad=0.4", "facecolor": BADGE, "edgecolor": "none"},
        )
    return figure, axes


def finish(figure: Figure, path: Path, entries: Sequence[tuple[Any, str]] = ()) -> None:
    """Put the legend below and write the PNG; equal input gives equal bytes."""
    if entries:
        handles, texts = zip(*entries, strict=True)
        columns = max(1, min(len(texts), CHARACTERS // (8 + max(map(len, texts)))))
        figure.legend(handles, texts, loc="lower center", ncols=columns, frameon=False, fontsize=8.5, labelcolor=INK)
    figure.savefig(path, format="png", metadata={"Software": None})


def _abreast(texts: Sequence[str]) -> int:
    """How many entries of a legend fit beside each other."""
    longest = max(map(len, texts), default=0)
    return max(1, min(len(texts), CHARACTERS // (8 + longest)))


def empty(axes: Axes, text: str = "No load point gave these figures.") -> None:
    """Say that there is nothing to draw."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=MUTED)


def level(point: LoadPoint) -> float:
    """How hard a load point pushes: its concurrency or its rate."""
    return float(point.concurrency) if point.concurrency is not None else float(point.rate or 0.0)


def named(point: LoadPoint) -> str:
    """A load point by its load alone: `c=4` requests in flight, or `4/s`."""
    return load(point) if point.concurrency is None else f"c={load(point)}"


def series(points: Sequence[Driven]) -> dict[tuple[str, bool], list[Driven]]:
    """Load points by scenario and by whether they have a rate, lightest first."""
    found: dict[tuple[str, bool], list[Driven]] = {}
    for point in sorted(points, key=lambda point: level(point.result.load_point)):
        asked = point.result.load_point
        found.setdefault((asked.scenario, asked.rate is not None), []).append(point)
    return found


def scenario_colours(points: Sequence[Driven]) -> dict[str, str]:
    """One colour for each scenario."""
    names = dict.fromkeys(point.result.load_point.scenario for point in points)
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}


def shades(count: int) -> list[Any]:
    """Colours in order, from light load to heavy."""
    return [matplotlib.colormaps["viridis"](0.85 - 0.85 * place / max(1, count - 1)) for place in range(count)]


def load_ticks(axes: Axes, levels: Sequence[float]) -> None:
    """Ticks at the loads that were driven, where they are few enough."""
    found = sorted(set(levels))
    if 0 < len(found) <= MOST_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(found))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
