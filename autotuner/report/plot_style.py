"""The style shared by plots: colours, axes, heading and legend."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from autotuner.core import Verdict
from autotuner.report.environment_text import gpu_text
from autotuner.report.near_misses import near_terms
from autotuner.report.objective_text import objective_value_text
from autotuner.report.run_view import RunView
from autotuner.scoring.pareto import ParetoPoint
from autotuner.scoring.rank import Standing

INK, GREY, DARK_GREY, GRID_COLOUR = "#222222", "#8a8f98", "#555b63", "#e6e8eb"
TARGET_COLOUR, BADGE_COLOUR, NEAR_COLOUR = "#1a7f4b", "#f2b134", "#b35c00"
SERIES_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56b4e9", "#7b3fa0", "#5d5d5d")
LOG_SCALE_RATIO = 30.0
MAX_LEGEND_COLUMNS = 5
SOURCE_BADGES = {"simulated": "SIMULATED, NOT MEASURED", "predicted": "PREDICTED, NOT MEASURED"}


def style_axes(axes: Axes, xs: Sequence[float], ys: Sequence[float]) -> None:
    """Style axes and scale them to these values."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.grid(True, color=GRID_COLOUR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8.5, length=3)
    _set_scale(axes, "x", xs or [1.0])
    _set_scale(axes, "y", ys or [1.0])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"))


def _set_scale(axes: Axes, name: Literal["x", "y"], values: Sequence[float]) -> None:
    """Linear scale from zero, or logarithmic if the values span more than a factor of LOG_SCALE_RATIO."""
    low, high = min(values), max(values)
    if low <= 0 or high / low <= LOG_SCALE_RATIO:
        axes.set(**{f"{name}lim": (0.0, high * 1.16 or 1.0)})
        return
    axes.set(**{f"{name}scale": "log", f"{name}lim": (low / 1.6, high * 1.9)})
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())


def printable(text: str, width: int = 200) -> str:
    """Text in ASCII, which every font has, shortened in the middle to `width` characters."""
    text = "".join(character if character.isascii() and character.isprintable() else "?" for character in text)
    return text if len(text) <= width else f"{text[: width // 2 - 2]} .. {text[-(width // 2 - 2) :]}"


def draw_heading(figure: Figure, view: RunView) -> None:
    """Draw model, engine, scenarios and best result, and a badge unless all was measured."""
    experiment, ranking = view.experiment, view.ranking
    figure.text(
        0.062,
        0.95,
        printable(_title(view), 78),
        fontsize=14,
        fontweight="bold",
        color=INK,
        parse_math=False,
    )
    winner = ranking.winner
    best = "no winner"
    if winner is not None:
        scope = f" at {winner.load_point}"
        if winner.load_point is None:
            scope = f", geometric mean over {len(winner.load_points)} load points"
        value_text = objective_value_text(ranking.objective, winner.value, ranking.unit)
        best = f"best: {value_text}{scope} (trial {winner.trial_number})"
    scenarios = printable(", ".join(experiment.benchmark.traffic_scenarios), 60)
    count = len(ranking.standings)
    candidates = f"{count} candidate" + ("" if count == 1 else "s")
    key = " · c = concurrency" if experiment.benchmark.num_concurrency else ""
    figure.text(
        0.062,
        0.913,
        f"{scenarios} · {candidates} · {best}{key}",
        fontsize=9.5,
        color=DARK_GREY,
        parse_math=False,
    )
    badges = [SOURCE_BADGES[source] for source in ranking.sources if source in SOURCE_BADGES]
    if badges:
        figure.text(
            0.985,
            0.94,
            " / ".join(badges),
            ha="right",
            fontsize=11,
            fontweight="bold",
            color=INK,
            bbox={"boxstyle": "round,pad=0.45", "facecolor": BADGE_COLOUR, "edgecolor": "none"},
        )


def _title(view: RunView) -> str:
    """Model, engine and GPUs."""
    gpu = gpu_text(view)
    return f"{view.experiment.model.id_or_path} on {view.experiment.base_runtime}{f', {gpu}' if gpu else ''}"


def marker_face(verdict: Verdict, colour: str) -> dict[str, Any]:
    """Marker fill of a trusted point: full if feasible, half if undecided, hollow if a target is missed."""
    return {
        "markerfacecolor": "white" if verdict is Verdict.INFEASIBLE else colour,
        "markeredgecolor": colour,
        "markeredgewidth": 1.3,
        "fillstyle": "left" if verdict is Verdict.UNDECIDED else "full",
        "markerfacecoloralt": "white",
    }


def draw_near_ring(axes: Axes, x: float, y: float, size: float) -> None:
    """Draw a ring around a point that meets a target only within its warning band."""
    axes.plot(
        [x],
        [y],
        "o",
        markersize=size + 5,
        markerfacecolor="none",
        markeredgecolor=NEAR_COLOUR,
        markeredgewidth=1.4,
        zorder=6,
    )


def verdict_legend(verdicts: Collection[Verdict], *, has_targets: bool, has_near: bool) -> list[tuple[Line2D, str]]:
    """Legend entries for these verdicts of trusted points and, with `has_near`, for the ring."""
    texts = {
        Verdict.FEASIBLE: "all targets met" if has_targets else "load point",
        Verdict.UNDECIDED: "undecided (too few requests)",
        Verdict.INFEASIBLE: "misses a target",
    }
    entries = [
        (legend_marker(**marker_face(verdict, DARK_GREY)), text)
        for verdict, text in texts.items()
        if verdict in verdicts
    ]
    ring = legend_marker(markersize=11, markerfacecolor="none", markeredgecolor=NEAR_COLOUR, markeredgewidth=1.4)
    return [*entries, (ring, "near a target")] if has_near else entries


def draw_candidate_key(figure: Figure, view: RunView, colours: Mapping[int, str]) -> None:
    """Name the candidates that have colours, below the plot."""
    named = [standing for standing in view.ranking.standings if standing.trial_number in colours]
    if not named:
        return
    handles = [legend_marker(color=colours[standing.trial_number]) for standing in named]
    names = [_key_text(standing, view) for standing in named]
    figure.legend(
        handles, names, loc="lower center", ncols=2, frameon=False, fontsize=7.8, bbox_to_anchor=(0.5, 0.075),
        handletextpad=0.3, columnspacing=2.0, labelspacing=0.3,
    )  # fmt: skip


def _key_text(standing: Standing, view: RunView) -> str:
    name = view.names.short_name(standing.candidate)
    return printable(f"#{standing.rank} trial {standing.trial_number}: {name}", 100)


def legend_marker(marker: str = "o", **style: Any) -> Line2D:
    defaults: dict[str, Any] = {"color": DARK_GREY, "linestyle": "none", "marker": marker, "markersize": 6.5}
    return Line2D([], [], **(defaults | style))


def draw_legend(
    figure: Figure, shown: Sequence[ParetoPoint], view: RunView, scenario_styles: Mapping[str, Any]
) -> None:
    """Draw a legend with one entry for each kind of marker and for the line of each scenario."""
    slo = view.experiment.slo
    verdicts = {point.result.verdict for point in shown if point.is_trusted}
    entries = []
    if any(point.on_frontier for point in shown):
        several = len(scenario_styles) > 1
        entries += [
            (
                Line2D([], [], color=INK, linewidth=1.6, linestyle=style),
                printable(f"frontier, {scenario}", 34) if several else "Pareto frontier",
            )
            for scenario, style in list(scenario_styles.items())[:3]
        ]
    if view.ranking.winner is not None:
        entries.append((legend_marker("*", markersize=13, color=SERIES_COLOURS[0], markeredgecolor=INK), "winner"))
    entries += verdict_legend(
        verdicts, has_targets=bool(slo.terms), has_near=any(near_terms(point.result, slo) for point in shown)
    )
    if any(point.is_trusted and not point.on_frontier for point in shown):
        entries.append((legend_marker(alpha=0.4, color=GREY), "not on the frontier"))
    if any(not point.is_trusted for point in shown):
        entries.append((legend_marker("x", color=GREY, markersize=5), "failed, invalid or saturated"))
    if not entries:
        return
    handles, texts = zip(*entries, strict=True)
    figure.legend(
        handles,
        texts,
        loc="lower center",
        ncols=min(len(entries), MAX_LEGEND_COLUMNS),
        frameon=False,
        fontsize=8.5,
        bbox_to_anchor=(0.5, 0.005),
    )
