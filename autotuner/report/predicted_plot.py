"""Plot of a predicted sweep: throughput per GPU against per-user speed, aggregated and disaggregated (P/D)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autotuner.planning.question import LatencyTarget
from autotuner.planning.serving_option import ServingOption, pareto_frontier
from autotuner.report.label_placement import Label, place_labels
from autotuner.report.plot_style import (
    BADGE_COLOUR,
    DARK_GREY,
    GREY,
    INK,
    SERIES_COLOURS,
    SOURCE_BADGES,
    TARGET_COLOUR,
    printable,
    style_axes,
)

MODE_COLOURS = {"aggregated": SERIES_COLOURS[0], "disaggregated": SERIES_COLOURS[1]}
MODE_NAMES = {"aggregated": "aggregated", "disaggregated": "disaggregated (P/D)"}


def draw_options(options: Sequence[ServingOption], target: LatencyTarget, title: str, path: Path) -> None:
    """Write a PNG of all options, the Pareto frontier of each mode and the best option; output is deterministic."""
    figure = Figure(figsize=(10.2, 6.4), dpi=140, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.08, right=0.98, top=0.86, bottom=0.165)
    style_axes(axes, *_coordinates(options))
    axes.set_xlabel("Interactivity (tokens/s per user, 1 / mean TPOT)", color=INK)
    axes.set_ylabel("Output tokens/s per GPU of the budget", color=INK)
    _shade_target(axes, target)
    modes = [mode for mode in MODE_COLOURS if any(option.mode == mode for option in options)]
    eligible = [option for option in options if option.meets_target or not target.is_set]
    frontiers = {mode: pareto_frontier(option for option in eligible if option.mode == mode) for mode in modes}
    for mode in modes:
        _draw_points(axes, [option for option in options if option.mode == mode], frontiers[mode], MODE_COLOURS[mode])
    best = options[0] if options[0].meets_target and target.is_set else None
    if best is not None:
        axes.plot(
            *_coordinates([best]),
            "*",
            markersize=17,
            color=MODE_COLOURS[best.mode],
            markeredgecolor=INK,
            zorder=5,
        )
    _draw_labels(axes, frontiers, best)
    _draw_heading(figure, title, best)
    _draw_legend(figure, modes, best, has_target=target.is_set)
    figure.savefig(path, format="png", metadata={"Software": None})


def _draw_points(
    axes: Axes, options: Sequence[ServingOption], frontier_options: Sequence[ServingOption], colour: str
) -> None:
    best_by_decode: dict[tuple[object, ...], ServingOption] = {}
    for option in sorted(options, key=lambda option: option.throughput_per_gpu):
        key = (option.serving.gpu.name, option.serving.layout, option.performance.tpot)
        best_by_decode[key] = option  # with its best prefill workers
    for meets, face in ((True, colour), (False, "white")):
        shown_options = [option for option in best_by_decode.values() if option.meets_target == meets]
        axes.plot(
            *_coordinates(shown_options),
            "o",
            markersize=3.2,
            markerfacecolor=face,
            markeredgecolor=colour,
            markeredgewidth=0.7,
            alpha=0.28,
            zorder=2,
        )
    axes.plot(*_coordinates(frontier_options), color=colour, linewidth=1.6, zorder=3)
    for option in frontier_options:
        face = colour if option.meets_target else "white"
        axes.plot(*_coordinates([option]), "o", markersize=6, color=colour, markerfacecolor=face, zorder=4)


def _position(option: ServingOption) -> tuple[float, float]:
    return option.performance.interactivity, option.throughput_per_gpu


def _coordinates(options: Sequence[ServingOption]) -> tuple[list[float], list[float]]:
    """The horizontal and the vertical positions of options."""
    return [_position(option)[0] for option in options], [_position(option)[1] for option in options]


def _shade_target(axes: Axes, target: LatencyTarget) -> None:
    """Shade where the target on TPOT is met."""
    if target.tpot is None:
        return
    low, high = axes.get_xlim()
    limit = 1 / target.tpot
    if limit < high:
        axes.axvspan(max(low, limit), high, color=TARGET_COLOUR, alpha=0.07, linewidth=0, zorder=0)
    if low < limit < high:
        axes.axvline(limit, color=TARGET_COLOUR, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    text = f"target: mean TPOT ≤ {1000 * target.tpot:g} ms"
    axes.text(0.99, 1.012, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, color=TARGET_COLOUR)


def _draw_labels(axes: Axes, frontiers: dict[str, list[ServingOption]], best: ServingOption | None) -> None:
    """Label the best option, and each frontier's worker layout where it changes."""
    labels = [] if best is None else [_label(best, bold=True)]
    for frontier in frontiers.values():
        previous = ""
        for option in frontier:
            text = _workers_text(option)
            if text != previous and option is not best:
                labels.append(_label(option, bold=False))
            previous = text
    lines = [[_position(option) for option in frontier] for frontier in frontiers.values()]
    markers = [(x, y, 4.0) for line in lines for x, y in line]
    place_labels(axes, labels, markers, lines)


def _label(option: ServingOption, *, bold: bool) -> Label:
    return Label(_position(option), (_workers_text(option),), MODE_COLOURS[option.mode], bold)


def _workers_text(option: ServingOption) -> str:
    if option.prefill is None:
        return str(option.serving)
    return f"P {option.prefill}\nD {option.serving}"


def _draw_heading(figure: Figure, title: str, best: ServingOption | None) -> None:
    figure.text(0.08, 0.945, printable(title, 84), fontsize=12, fontweight="bold", color=INK, parse_math=False)
    subtitle = "no target set, or none met"
    if best is not None:
        subtitle = f"best: {best} (most output tokens/s per GPU in the target)"
    figure.text(0.08, 0.905, printable(subtitle, 120), fontsize=9.5, color=DARK_GREY, parse_math=False)
    figure.text(
        0.98,
        0.905,
        SOURCE_BADGES["predicted"],
        ha="right",
        fontsize=9,
        fontweight="bold",
        color=INK,
        bbox={"boxstyle": "round,pad=0.4", "facecolor": BADGE_COLOUR, "edgecolor": "none"},
    )


def _draw_legend(figure: Figure, modes: Sequence[str], best: ServingOption | None, *, has_target: bool) -> None:
    entries = [
        (Line2D([], [], color=MODE_COLOURS[mode], linewidth=1.6), f"frontier, {MODE_NAMES[mode]}") for mode in modes
    ]

    def marker(**style: object) -> Line2D:
        defaults: dict[str, object] = {"color": DARK_GREY, "linestyle": "none", "marker": "o", "markersize": 6}
        return Line2D([], [], **(defaults | style))  # type: ignore[arg-type]

    if best is not None:
        entries.append((marker(marker="*", markersize=13, color=MODE_COLOURS[best.mode], markeredgecolor=INK), "best"))
    if has_target:
        entries += [(marker(), "all targets met"), (marker(markerfacecolor="white"), "misses a target")]
    entries.append((marker(markersize=3.2, alpha=0.4, color=GREY), "not on a frontier"))
    handles, texts = zip(*entries, strict=True)
    figure.legend(
        handles, texts, loc="lower center", ncols=len(entries), frameon=False, fontsize=9, bbox_to_anchor=(0.5, 0.012)
    )
