"""The picture of a predicted sweep: throughput per GPU against what one user sees, aggregated and split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autotuner.predict.serving_option import Option, frontier, label
from autotuner.predict.traffic import Target
from autotuner.report.label_placement import Label, place
from autotuner.report.plot_style import BADGE, BADGES, COLOURS, INK, MUTED, QUIET, TARGET, plain, style

COLOUR = {"aggregated": COLOURS[0], "split": COLOURS[1]}
NAMED = {"aggregated": "aggregated", "split": "prefill and decode apart"}


def draw_options(found: Sequence[Option], target: Target, title: str, path: Path) -> None:
    """Write a PNG of all options, with the frontier of each mode and the best. Equal input gives equal bytes."""
    figure = Figure(figsize=(10.2, 6.4), dpi=140, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.08, right=0.98, top=0.86, bottom=0.165)
    style(axes, [option.interactivity for option in found], [option.per_gpu for option in found])
    axes.set_xlabel("Interactivity (tokens/s per user, 1 / mean TPOT)", color=INK)
    axes.set_ylabel("Output tokens/s per GPU", color=INK)
    _region(axes, target)
    modes = [mode for mode in COLOUR if any(option.mode == mode for option in found)]
    edges = {mode: frontier(option for option in found if option.mode == mode) for mode in modes}
    for mode in modes:
        _points(axes, [option for option in found if option.mode == mode], edges[mode], COLOUR[mode])
    best = found[0] if found[0].meets and target.told else None
    if best is not None:
        axes.plot(
            [best.interactivity],
            [best.per_gpu],
            "*",
            markersize=17,
            color=COLOUR[best.mode],
            markeredgecolor=INK,
            zorder=5,
        )
    _labels(axes, edges, best)
    _head(figure, title, best)
    _legend(figure, modes, best, targets=target.told)
    figure.savefig(path, format="png", metadata={"Software": None})


def _points(axes: Axes, found: Sequence[Option], edge: Sequence[Option], colour: str) -> None:
    cloud: dict[tuple[object, ...], Option] = {}
    for option in sorted(found, key=lambda option: option.per_gpu):
        cloud[option.serving.gpu.name, option.serving.layout, option.tpot] = option  # with its best prefill workers
    for meets, face in ((True, colour), (False, "white")):
        some = [option for option in cloud.values() if option.meets == meets]
        axes.plot(
            [option.interactivity for option in some],
            [option.per_gpu for option in some],
            "o",
            markersize=3.2,
            markerfacecolor=face,
            markeredgecolor=colour,
            markeredgewidth=0.7,
            alpha=0.28,
            zorder=2,
        )
    xs, ys = [option.interactivity for option in edge], [option.per_gpu for option in edge]
    axes.plot(xs, ys, color=colour, linewidth=1.6, zorder=3)
    for option in edge:
        face = colour if option.meets else "white"
        axes.plot(
            [option.interactivity], [option.per_gpu], "o", markersize=6, color=colour, markerfacecolor=face, zorder=4
        )


def _region(axes: Axes, target: Target) -> None:
    """Shade where the target on TPOT is met."""
    if target.tpot is None:
        return
    low, high = axes.get_xlim()
    limit = 1 / target.tpot
    if limit < high:
        axes.axvspan(max(low, limit), high, color=TARGET, alpha=0.07, linewidth=0, zorder=0)
    if low < limit < high:
        axes.axvline(limit, color=TARGET, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    text = f"target: mean TPOT ≤ {1000 * target.tpot:g} ms"
    axes.text(0.99, 1.012, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, color=TARGET)


def _labels(axes: Axes, edges: dict[str, list[Option]], best: Option | None) -> None:
    """Name the best, and each frontier's workers where they change."""
    labels = [] if best is None else [_label(best, bold=True)]
    for edge in edges.values():
        before = ""
        for option in edge:
            text = _workers(option)
            if text != before and option is not best:
                labels.append(_label(option, bold=False))
            before = text
    spots = [(option.interactivity, option.per_gpu, 4.0) for edge in edges.values() for option in edge]
    lines = [[(option.interactivity, option.per_gpu) for option in edge] for edge in edges.values()]
    place(axes, labels, spots, lines)


def _label(option: Option, *, bold: bool) -> Label:
    return Label((option.interactivity, option.per_gpu), (_workers(option),), COLOUR[option.mode], bold)


def _workers(option: Option) -> str:
    if option.prefill is None:
        return f"{option.serving.workers} x {label(option.serving.layout)}"
    first, second = option.prefill, option.serving
    return f"P {first.workers} x {label(first.layout)}\nD {second.workers} x {label(second.layout)}"


def _head(figure: Figure, title: str, best: Option | None) -> None:
    figure.text(0.08, 0.945, plain(title, 84), fontsize=12, fontweight="bold", color=INK, parse_math=False)
    said = "no target, or none that is met" if best is None else f"best: {best}"
    figure.text(0.08, 0.905, plain(said, 120), fontsize=9.5, color=QUIET, parse_math=False)
    figure.text(
        0.98,
        0.905,
        BADGES["predicted"],
        ha="right",
        fontsize=9,
        fontweight="bold",
        color=INK,
        bbox={"boxstyle": "round,pad=0.4", "facecolor": BADGE, "edgecolor": "none"},
    )


def _legend(figure: Figure, modes: Sequence[str], best: Option | None, *, targets: bool) -> None:
    entries = [(Line2D([], [], color=COLOUR[mode], linewidth=1.6), f"frontier, {NAMED[mode]}") for mode in modes]

    def dot(**more: object) -> Line2D:
        base: dict[str, object] = {"color": QUIET, "linestyle": "none", "marker": "o", "markersize": 6}
        return Line2D([], [], **(base | more))  # type: ignore[arg-type]

    if best is not None:
        entries.append((dot(marker="*", markersize=13, color=COLOUR[best.mode], markeredgecolor=INK), "best"))
    if targets:
        entries += [(dot(), "all targets met"), (dot(markerfacecolor="white"), "misses a target")]
    entries.append((dot(markersize=3.2, alpha=0.4, color=MUTED), "not on a frontier"))
    handles, texts = zip(*entries, strict=True)
    figure.legend(
        handles, texts, loc="lower center", ncols=len(entries), frameon=False, fontsize=9, bbox_to_anchor=(0.5, 0.012)
    )
