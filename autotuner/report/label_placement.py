"""Places text labels beside plotted points so that labels overlap neither each other nor any point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DISTANCES_POINTS = (9.0, 16.0, 26.0)
_ANGLES_DEGREES = (45, 20, 70, 90, 0, 135, 110, 160, -45, -20, -70, -90, 180, -135, -160, -110)
_CLEARANCE_POINTS = 1.5
Marker = tuple[float, float, float]
"""A drawn marker: x and y, and its radius in points."""


@dataclass(frozen=True)
class Label:
    """Label for the point `anchor` (data coordinates): the first of `texts` that fits is drawn."""

    anchor: tuple[float, float]
    texts: tuple[str, ...]
    colour: str
    bold: bool = False


def place_labels(axes: Axes, labels: Sequence[Label], markers: Sequence[Marker], lines: Sequence[Sequence[Any]]) -> int:
    """Draw labels, most important first, where they cover no label, marker or line (all in data coordinates).

    A label for which there is no room is not drawn. Returns the number of labels drawn.
    """
    figure = axes.get_figure()
    renderer = figure.canvas.get_renderer()  # type: ignore[union-attr]
    transform = axes.transData.transform
    points_per_pixel = 72.0 / figure.dpi  # type: ignore[union-attr]
    boxes: list[Bbox] = []
    obstacles = [(*transform((x, y)), radius / points_per_pixel) for x, y, radius in markers]
    obstacles += [
        (*position, 2.0 / points_per_pixel)
        for line in lines
        for position in _sample_line([transform(point) for point in line])
    ]
    frame = axes.get_window_extent(renderer)
    drawn = 0
    for label in labels:
        for text in label.texts:
            artist = _annotate(axes, label, text)
            size = artist.get_window_extent(renderer)
            x, y = transform(label.anchor)
            placement = _free_box((x, y), size, points_per_pixel, frame, boxes, obstacles)
            if placement is None:
                artist.remove()
                continue
            box, distance = placement
            artist.set_position(((box.x0 - x) * points_per_pixel, (box.y0 - y) * points_per_pixel))
            if distance > _DISTANCES_POINTS[1]:
                _draw_leader(axes, (x, y), box, label.colour)
            boxes.append(box)
            drawn += 1
            break
    return drawn


def _annotate(axes: Axes, label: Label, text: str) -> Annotation:
    return axes.annotate(
        text,
        label.anchor,
        xytext=(0, 0),
        textcoords="offset points",
        fontsize=7.5,
        color=label.colour,
        fontweight="bold" if label.bold else "normal",
        linespacing=1.15,
        zorder=6,
        parse_math=False,
        path_effects=[withStroke(linewidth=2.2, foreground="white", alpha=0.85)],
    )


def _free_box(
    anchor: tuple[float, float],
    size: Bbox,
    points_per_pixel: float,
    frame: Bbox,
    boxes: Sequence[Bbox],
    obstacles: Sequence[Marker],
) -> tuple[Bbox, float] | None:
    """The nearest free box around `anchor` and its distance in points, or None; all else in pixels."""
    for distance in _DISTANCES_POINTS:
        for angle in _ANGLES_DEGREES:
            dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            # The box touches the circle of this distance with the side that faces the point.
            x = anchor[0] + dx * distance / points_per_pixel + (dx - 1) / 2 * size.width
            y = anchor[1] + dy * distance / points_per_pixel + (dy - 1) / 2 * size.height
            box = Bbox.from_bounds(x, y, size.width, size.height)
            if _is_free(box.padded(_CLEARANCE_POINTS / points_per_pixel), frame, boxes, obstacles):
                return box, distance
    return None


def _is_free(
    box: Bbox,
    frame: Bbox,
    boxes: Sequence[Bbox],
    obstacles: Sequence[Marker],
) -> bool:
    inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    return (
        inside
        and not any(box.overlaps(other) for other in boxes)
        and not any(box.x0 - r < x < box.x1 + r and box.y0 - r < y < box.y1 + r for x, y, r in obstacles)
    )


def _sample_line(line: Sequence[Any]) -> list[tuple[float, float]]:
    """Points along a line, in pixels, close enough that no label fits between them."""
    samples: list[tuple[float, float]] = []
    for (a, b), (c, d) in pairwise(line):
        steps = max(2, int(math.hypot(c - a, d - b) / 6))
        samples += [(a + (c - a) * i / steps, b + (d - b) * i / steps) for i in range(steps + 1)]
    return samples


def _draw_leader(axes: Axes, anchor: tuple[float, float], box: Bbox, colour: str) -> None:
    """Draw a thin line from the point to the nearest edge of its label; in pixels."""
    x = min(max(anchor[0], box.x0), box.x1)
    y = min(max(anchor[1], box.y0), box.y1)
    to_data = axes.transData.inverted().transform
    (x0, y0), (x1, y1) = to_data(anchor), to_data((x, y))
    axes.plot([x0, x1], [y0, y1], color=colour, linewidth=0.5, alpha=0.6, zorder=2, scalex=False, scaley=False)
