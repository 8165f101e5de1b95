"""The load points of both sides of a comparison over each other, with the frontier of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from autotuner.compare.compared_run import ComparedRun
from autotuner.compare.comparison import Comparison
from autotuner.report.formatting import format_load, format_number
from autotuner.report.page.elements import Element, element

EXCLUDED_VERDICTS = ("infeasible",)
"""Trusted figures that are no part of a frontier, because they miss the targets."""

WIDTH, HEIGHT = 540.0, 330.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 14.0, 12.0, 46.0
"""The drawing and its margins, in its own units."""


@dataclass(frozen=True)
class OverlayPoint:
    """A load point of a candidate: means over its launches, in output tokens/s of one user and of one GPU."""

    candidate: str
    load: str
    interactivity: float
    throughput: float
    meets_targets: bool


def overlay_points(run: ComparedRun, scenario: str) -> list[OverlayPoint]:
    """The load points of all candidates that have a TPOT and an output throughput."""
    points = []
    for candidate in run.candidates.values():
        for point in candidate.load_points:
            speeds, tpots = candidate.log_values(point, "output_throughput"), candidate.log_values(point, "tpot")
            if point.scenario == scenario and speeds and tpots:
                points.append(
                    OverlayPoint(
                        candidate.label,
                        format_load(point),
                        math.exp(-fmean(tpots)),
                        math.exp(fmean(speeds)),
                        candidate.verdicts.get(point) not in EXCLUDED_VERDICTS,
                    )
                )
    return points


def frontier_of(points: Sequence[OverlayPoint]) -> list[OverlayPoint]:
    """The points within the targets that no other one beats in both figures, by interactivity."""
    frontier: list[OverlayPoint] = []
    for point in sorted(points, key=lambda point: (-point.interactivity, -point.throughput)):
        if point.meets_targets and (not frontier or point.throughput > frontier[-1].throughput):
            frontier.append(point)
    return frontier[::-1]


def frontier_overlays(comparison: Comparison) -> list[Element]:
    """A chart for each scenario of the baseline, with its frontiers as a table below."""
    charts = []
    for scenario in comparison.baseline.experiment.benchmark.traffic_scenarios:
        sides = [(run.name, overlay_points(run, scenario)) for run in (comparison.baseline, comparison.new)]
        if all(points for _, points in sides):
            charts.append(_chart(scenario, sides))
    return charts


def _chart(scenario: str, sides: Sequence[tuple[str, Sequence[OverlayPoint]]]) -> Element:
    everything = [point for _, points in sides for point in points]
    x_ticks = _ticks(max(point.interactivity for point in everything))
    y_ticks = _ticks(max(point.throughput for point in everything))
    limits = x_ticks[-1], y_ticks[-1]
    # the baseline on top, in rings and dashes, through which an equal new run is seen
    drawn = [*_side(sides[1][1], limits, "s2 new"), *_side(sides[0][1], limits, "s1 baseline")]
    names = " and ".join(name for name, _ in sides)
    return element(
        "figure",
        element("figcaption", element("h3", scenario)),
        element(
            "svg",
            *_axes(x_ticks, y_ticks),
            *drawn,
            viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
            role="img",
            aria_label=f"Output tokens/s per GPU against tokens/s per user of {names}, {scenario}",
        ),
        element("p", *_legend(sides), class_="muted"),
        _table(sides),
        class_="overlay",
    )


def _ticks(largest: float) -> list[float]:
    """Round steps from 0 to at least the largest value, four to eight of them."""
    power = 10 ** math.floor(math.log10(largest / 4))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if largest / (step * power) <= 7)
    return [step * index for index in range(math.ceil(largest / step) + 1)]


def _place(value: float, largest: float, start: float, end: float) -> float:
    return round(start + (end - start) * value / largest, 1)


def _axes(x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[Element]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick in x_ticks:
        x = _place(tick, x_ticks[-1], LEFT, right)
        parts.append(element("path", d=f"M{x:g} {TOP:g}V{bottom:g}", class_="grid"))
        parts.append(element("text", f"{tick:,g}", x=f"{x:g}", y=f"{bottom + 17:g}", text_anchor="middle"))
    for tick in y_ticks:
        y = _place(tick, y_ticks[-1], bottom, TOP)
        parts.append(element("path", d=f"M{LEFT:g} {y:g}H{right:g}", class_="grid"))
        parts.append(element("text", f"{tick:,g}", x=f"{LEFT - 7:g}", y=f"{y + 4:g}", text_anchor="end"))
    middle = (LEFT + right) / 2
    x_title = "output tokens/s per user (1 / TPOT p50)"
    parts.append(
        element("text", x_title, x=f"{middle:g}", y=f"{HEIGHT - 8:g}", text_anchor="middle", class_="axis-label")
    )
    y_middle = (TOP + bottom) / 2
    parts.append(
        element(
            "text",
            "output tokens/s per GPU",
            transform=f"translate(13 {y_middle:g}) rotate(-90)",
            text_anchor="middle",
            class_="axis-label",
        )
    )
    return parts


def _side(points: Sequence[OverlayPoint], limits: tuple[float, float], class_: str) -> list[Element]:
    """The marks of one side and its frontier; points that miss the targets are crosses."""

    def place(point: OverlayPoint) -> tuple[float, float]:
        x = _place(point.interactivity, limits[0], LEFT, WIDTH - RIGHT)
        return x, _place(point.throughput, limits[1], HEIGHT - BOTTOM, TOP)

    line = " L".join(f"{x:g} {y:g}" for x, y in map(place, frontier_of(points)))
    parts = [element("path", d=f"M{line}", class_=f"frontier-line {class_}")] if line else []
    for point in points:
        x, y = place(point)
        title = element("title", f"{point.candidate} at {point.load}")
        if point.meets_targets:
            radius = "6" if class_.endswith("baseline") else "4"
            parts.append(element("circle", title, cx=f"{x:g}", cy=f"{y:g}", r=radius, class_=f"overlay-mark {class_}"))
        else:
            cross = f"M{x - 4:g} {y - 4:g}l8 8m0 -8l-8 8"
            parts.append(element("path", title, d=cross, class_=f"overlay-mark {class_}"))
    return parts


def _legend(sides: Sequence[tuple[str, Sequence[OverlayPoint]]]) -> list[Element | str]:
    has_misses = any(not point.meets_targets for _, points in sides for point in points)
    return [
        element("span", "○ - - ", class_="key s1"),
        f"{sides[0][0]} (baseline)  ",
        element("span", "● — ", class_="key s2"),
        f"{sides[1][0]}{'; crosses miss the targets' if has_misses else ''}. Lines are the frontiers.",
    ]


def _table(sides: Sequence[tuple[str, Sequence[OverlayPoint]]]) -> Element:
    titles = ("run", "candidate", "load", "tokens/s per user", "tokens/s per GPU")
    rows = [
        element(
            "tr",
            *(element("td", text) for text in (name, point.candidate)),
            *(
                element("td", text, class_="number")
                for text in (point.load, format_number(point.interactivity), format_number(point.throughput))
            ),
        )
        for name, points in sides
        for point in frontier_of(points)
    ]
    head = (element("th", title, scope="col", class_="number" if i > 1 else None) for i, title in enumerate(titles))
    table = element("table", element("thead", element("tr", *head)), element("tbody", *rows), class_="wrap")
    return element("details", element("summary", f"Both frontiers as a table ({len(rows)})"), table)
