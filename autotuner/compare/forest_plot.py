"""Relative differences with their intervals against the band of the tolerance, one row for each figure.

A row is a row of a table whose middle cell is drawn, so that texts keep their size on a narrow screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.compare.changes import Change
from autotuner.compare.comparison import Comparison, change_text
from autotuner.report.formatting import format_load
from autotuner.report.page.elements import Element, element

CHANGE_SIGNS = {Change.BETTER: "▲", Change.WORSE: "▼", Change.SAME: "=", Change.UNCLEAR: "?"}
"""Shapes before the words of the verdicts, which are told apart without colours."""

WIDTH, HEIGHT = 200.0, 20.0
"""Of the drawing of one row, in its own units."""

MAX_LOG_RATIO = math.log(2)
"""Half the width of the plot at most: what lies beyond, less than half or more than twice, ends at its edge."""


@dataclass(frozen=True)
class ForestRow:
    """The ratio new / baseline of one figure; without `interval` nothing is known of its noise."""

    group: str
    name: str
    ratio: float
    interval: tuple[float, float] | None
    change: Change


def forest_rows(comparison: Comparison) -> list[ForestRow]:
    """The gated figures, then the figures of every candidate that both sides have, by load."""
    rows = [
        ForestRow("gated", figure.name, figure.value_ratio, figure.value_interval, figure.change)
        for figure in comparison.gated
        if figure.value_ratio is not None
    ]
    several_scenarios = len({each.load_point.scenario for side in comparison.candidates for each in side.figures}) > 1
    for candidate in comparison.candidates:
        for each in candidate.figures:
            load = str(each.load_point) if several_scenarios else f"load {format_load(each.load_point)}"
            rows.append(
                ForestRow(
                    f"{candidate.label}, {load}", each.figure.title, each.ratio.value, each.ratio.interval, each.change
                )
            )
    return rows


def forest_plot(rows: Sequence[ForestRow], tolerance: float) -> Element:
    """The rows as a table: the figure, its ratio drawn on a logarithmic axis with 0% in the middle, and the verdict."""
    limit = _axis_limit(rows, tolerance)
    axis = element(
        "div",
        *(element("span", f"{math.expm1(value):+.0%}" if value else "0%") for value in (-limit, 0.0, limit)),
        class_="forest-axis",
    )
    head = (
        element("th", "figure", scope="col"),
        element("th", axis, scope="col"),
        element("th", "change", scope="col"),
    )
    groups: dict[str, list[ForestRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return element(
        "table",
        element("thead", element("tr", *head)),
        *(_row_group(name, members, tolerance, limit) for name, members in groups.items()),
        class_="forest",
    )


def _axis_limit(rows: Sequence[ForestRow], tolerance: float) -> float:
    """Half the width of the axis as a log ratio: all intervals fit, and the band takes at most half of it."""
    ends = [abs(math.log(end)) for row in rows for end in (row.ratio, *(row.interval or ())) if end > 0]
    return min(MAX_LOG_RATIO, max(1.1 * max(ends, default=0.0), -2 * math.log(1 - tolerance)))


def _row_group(name: str, rows: Sequence[ForestRow], tolerance: float, limit: float) -> Element:
    title = element("tr", element("th", name, scope="rowgroup", colspan="3", class_="group"))
    return element("tbody", title, *(_row(row, tolerance, limit) for row in rows))


def _row(row: ForestRow, tolerance: float, limit: float) -> Element:
    return element(
        "tr",
        element("th", row.name, scope="row"),
        element("td", _drawing(row, tolerance, limit)),
        element(
            "td",
            element("span", f"{CHANGE_SIGNS[row.change]} {row.change}", class_=f"change {row.change}"),
            element("span", f" {change_text(row.ratio, row.interval)}"),
        ),
    )


def _drawing(row: ForestRow, tolerance: float, limit: float) -> Element:
    """The band of the tolerance, the line of no change, the interval and the ratio; hidden from screen readers, who
    have the same in words beside it."""
    middle = HEIGHT / 2

    def x(ratio: float) -> float:
        share = math.log(ratio) / limit if ratio > 0 else -1.0
        return round(WIDTH / 2 * (1 + max(-1.0, min(1.0, share))), 2)

    low, high = x(1 - tolerance), x(1 / (1 - tolerance))
    interval = None
    if row.interval is not None:
        start, end = x(row.interval[0]), x(row.interval[1])
        interval = element("path", d=f"M{start:g} {middle:g}H{end:g}", class_="interval")
    return element(
        "svg",
        element("rect", x=f"{low:g}", y="0", width=f"{high - low:g}", height=f"{HEIGHT:g}", class_="tolerance"),
        element("path", d=f"M{WIDTH / 2:g} 0V{HEIGHT:g}", class_="no-change"),
        interval,
        # a line without length and with round ends: a dot that stays round however wide the cell is
        element("path", d=f"M{x(row.ratio):g} {middle:g}h0", class_="ratio" if row.interval else "ratio alone"),
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        preserveAspectRatio="none",
        class_=f"change {row.change}",
        aria_hidden="true",
    )
