"""The pictures of a profile: both sweeps, the curves with their points, and cost over latency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from autotuner.errors import pluralize
from autotuner.profiling.artefacts import cost_rows
from autotuner.profiling.outcome import ProfileOutcome
from autotuner.profiling.planner_profile import DECODE_FOLDER, PREFILL_FOLDER
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

LEGEND_ROWS = 12


def draw_pictures(outcome: ProfileOutcome) -> list[Path]:
    """Draw every picture that the points allow; returns their paths."""
    folder, selection = outcome.record.path, outcome.selection
    paths = []
    if selection.prefill:
        paths.append(_draw_prefill_sweep(outcome, folder / "prefill_performance.png"))
    if selection.decode:
        paths.append(_draw_decode_sweep(outcome, folder / "decode_performance.png"))
    if selection.prefill and selection.decode:
        paths.append(_draw_cost(outcome, folder / "cost_sla.png"))
    if outcome.curves is not None:
        (folder / PREFILL_FOLDER).mkdir(exist_ok=True)
        (folder / DECODE_FOLDER).mkdir(exist_ok=True)
        paths += [
            _draw_ttft_curve(outcome, folder / PREFILL_FOLDER / "prefill_ttft_interpolation.png"),
            _draw_prefill_throughput(outcome, folder / "prefill_throughput_interpolation.png"),
            _draw_itl_curves(outcome, folder / DECODE_FOLDER / "decode_itl_interpolation.png"),
            _draw_decode_throughput(outcome, folder / "decode_throughput_interpolation.png"),
        ]
    return paths


def _figure(outcome: ProfileOutcome, title: str, xlabel: str, ylabel: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(8.4, 5.0), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.12, 0.66, 0.7))
    request = outcome.record.request
    figure.text(0.05, 0.93, title, fontsize=13, fontweight="bold", color=INK)
    lengths = f"{request.isl:,} prompt and {request.osl:,} output tokens"
    context = f"{request.model} on {request.runtime}, {request.gpu or 'GPU type unknown'}; {lengths}"
    figure.text(0.05, 0.88, printable(context, 100), fontsize=9, color=DARK_GREY, parse_math=False)
    badges = [SOURCE_BADGES[source] for source in outcome.sources if source in SOURCE_BADGES]
    if badges:
        box = {"boxstyle": "round,pad=0.4", "facecolor": BADGE_COLOUR, "edgecolor": "none"}
        text = " / ".join(badges)
        figure.text(0.98, 0.94, text, ha="right", fontsize=9, fontweight="bold", color=INK, bbox=box)
    axes.set_xlabel(xlabel, color=INK, fontsize=9.5)
    axes.set_ylabel(ylabel, color=INK, fontsize=9.5)
    return figure, axes


def _finish(figure: Figure, axes: Any, path: Path, xs: Sequence[float], ys: Sequence[float]) -> Path:
    style_axes(axes, list(xs), list(ys))
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles[:LEGEND_ROWS],
            labels[:LEGEND_ROWS],
            loc="upper left",
            bbox_to_anchor=(0.765, 0.82),
            frameon=False,
            fontsize=8.5,
        )
    figure.savefig(path)
    return path


def _draw_target(axes: Any, milliseconds: float, name: str, *, is_vertical: bool = True) -> None:
    draw = axes.axvline if is_vertical else axes.axhline
    draw(milliseconds, color=TARGET_COLOUR, linewidth=1.3, linestyle=(0, (5, 3)), label=f"{name} {milliseconds:g} ms")


def _draw_prefill_sweep(outcome: ProfileOutcome, path: Path) -> Path:
    request, workers = outcome.record.request, outcome.selection.prefill
    figure, axes = _figure(
        outcome, "Prefill: throughput and TTFT of each mapping", "TTFT in ms", "prompt tokens/s per GPU"
    )
    ordered = sorted(workers, key=lambda worker: worker.mapping.gpus)
    for number, worker in enumerate(ordered):
        point, colour = worker.point, SERIES_COLOURS[number % len(SERIES_COLOURS)]
        low, high = (1000 * bound for bound in point.interval)
        axes.plot([low, high], [point.throughput_per_gpu] * 2, color=colour, linewidth=1.2)
        chosen = worker is outcome.selection.prefill_pick
        axes.plot(
            [1000 * point.ttft],
            [point.throughput_per_gpu],
            "*" if chosen else "o",
            color=colour,
            linestyle="none",
            markersize=14 if chosen else 8,
            label=f"{worker.mapping.label}{', chosen' if chosen else ''}",
        )
    _draw_target(axes, 1000 * request.ttft, "target")
    xs = [1000 * worker.point.ttft for worker in workers] + [1000 * request.ttft]
    return _finish(figure, axes, path, xs, [worker.point.throughput_per_gpu for worker in workers])


def _draw_decode_sweep(outcome: ProfileOutcome, path: Path) -> Path:
    request, workers = outcome.record.request, outcome.selection.decode
    figure, axes = _figure(
        outcome, "Decode: throughput and ITL of each mapping", "ITL in ms", "output tokens/s per GPU"
    )
    mappings = sorted({worker.mapping for worker in workers}, key=lambda mapping: (mapping.gpus, mapping.kind))
    for number, mapping in enumerate(mappings):
        points = sorted(
            (worker.point for worker in workers if worker.mapping == mapping), key=lambda point: point.concurrency
        )
        colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
        xs, ys = [1000 * point.itl for point in points], [point.throughput_per_gpu for point in points]
        axes.plot(xs, ys, "o-", color=colour, markersize=5, linewidth=1.4, label=mapping.label)
        for point, x, y in list(zip(points, xs, ys, strict=True))[:: max(1, len(points) // 3)]:
            axes.annotate(
                f"{point.concurrency}", (x, y), textcoords="offset points", xytext=(5, -9), fontsize=7, color=GREY
            )
    pick = outcome.selection.decode_pick
    if pick is not None:
        label = f"chosen: {pick.mapping.label} with\n{pluralize(pick.point.concurrency, 'request')}"
        x, y = 1000 * pick.point.itl, pick.point.throughput_per_gpu
        axes.plot([x], [y], "*", color=INK, markersize=13, linestyle="none", label=label)
    _draw_target(axes, 1000 * request.itl, "target")
    xs = [1000 * worker.point.itl for worker in workers] + [1000 * request.itl]
    return _finish(figure, axes, path, xs, [worker.point.throughput_per_gpu for worker in workers])


def _draw_cost(outcome: ProfileOutcome, path: Path) -> Path:
    request, pick = outcome.record.request, outcome.selection.prefill_pick
    figure, axes = _figure(
        outcome, "Cost: GPU-hours of 1,000 requests over ITL", "ITL in ms", "GPU-hours per 1,000 requests"
    )
    name = pick.mapping.name if pick else ""
    rows = [row for row in cost_rows(outcome) if row["prefill"] == name]
    for number, decode in enumerate(dict.fromkeys(row["decode"] for row in rows)):
        series = sorted((row for row in rows if row["decode"] == decode), key=lambda row: row["itl_ms"])
        axes.plot(
            [row["itl_ms"] for row in series],
            [row["gpu_hours_per_1000_requests"] for row in series],
            "o-",
            color=SERIES_COLOURS[number % len(SERIES_COLOURS)],
            markersize=5,
            linewidth=1.4,
            label=f"decode {decode.partition('_')[2].upper()}",
        )
    _draw_target(axes, 1000 * request.itl, "target")
    xs = [row["itl_ms"] for row in rows] + [1000 * request.itl]
    return _finish(figure, axes, path, xs, [row["gpu_hours_per_1000_requests"] for row in rows])


def _draw_ttft_curve(outcome: ProfileOutcome, path: Path) -> Path:
    curves, points = outcome.curves, outcome.prefill_curve_points
    assert curves is not None
    figure, axes = _figure(outcome, "Prefill: TTFT over prompt length", "prompt tokens", "TTFT in ms")
    lengths = np.geomspace(points[0].prompt_tokens, points[-1].prompt_tokens, 200)
    axes.plot(lengths, 1000 * curves.ttft_curve(lengths), color=SERIES_COLOURS[0], linewidth=1.6, label="fitted")
    for point in points:
        bounds = [1000 * bound for bound in point.interval]
        axes.plot([point.prompt_tokens] * 2, bounds, color=GREY, linewidth=1.2)
    xs, ys = [point.prompt_tokens for point in points], [1000 * point.ttft for point in points]
    axes.plot(xs, ys, "o", color=INK, markersize=5, linestyle="none", label="median and 95% interval")
    _draw_target(axes, 1000 * outcome.record.request.ttft, "target", is_vertical=False)
    return _finish(figure, axes, path, xs, [*ys, 1000 * outcome.record.request.ttft])


def _draw_prefill_throughput(outcome: ProfileOutcome, path: Path) -> Path:
    curves, points = outcome.curves, outcome.prefill_curve_points
    assert curves is not None
    figure, axes = _figure(
        outcome, "Prefill: throughput over prompt length", "prompt tokens", "prompt tokens/s per GPU"
    )
    lengths = np.geomspace(points[0].prompt_tokens, points[-1].prompt_tokens, 200)
    throughput = lengths / curves.ttft_curve(lengths) * curves.prefill_streams / curves.prefill_gpus
    axes.plot(lengths, throughput, color=SERIES_COLOURS[0], linewidth=1.6, label="fitted")
    xs, ys = [point.prompt_tokens for point in points], [point.throughput_per_gpu for point in points]
    axes.plot(xs, ys, "o", color=INK, markersize=5, linestyle="none", label="points")
    return _finish(figure, axes, path, xs, ys)


def _draw_itl_curves(outcome: ProfileOutcome, path: Path) -> Path:
    figure, axes = _figure(outcome, "Decode: ITL over KV usage", "KV cache in use, %", "ITL in ms")
    return _draw_surface(outcome, figure, axes, path, throughput=False)


def _draw_decode_throughput(outcome: ProfileOutcome, path: Path) -> Path:
    figure, axes = _figure(outcome, "Decode: throughput over KV usage", "KV cache in use, %", "output tokens/s per GPU")
    return _draw_surface(outcome, figure, axes, path, throughput=True)


def _draw_surface(outcome: ProfileOutcome, figure: Figure, axes: Any, path: Path, *, throughput: bool) -> Path:
    """A fitted curve and its points for each context length."""
    curves, points = outcome.curves, outcome.decode_curve_points
    assert curves is not None
    kv_tokens, all_xs, all_ys = curves.profile.max_kv_tokens, list[float](), list[float]()
    for number, context in enumerate(sorted({point.context_length for point in points})):
        row = [point for point in points if point.context_length == context]
        colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
        requests = np.geomspace(row[0].concurrency, max(row[-1].concurrency, row[0].concurrency + 0.01), 80)
        itls = curves.itl_surface(requests, np.full_like(requests, context))
        fitted = requests / itls / curves.decode_gpus if throughput else 1000 * itls
        axes.plot(100 * requests * context / kv_tokens, fitted, color=colour, linewidth=1.4)
        xs = [100 * point.kv_usage for point in row]
        ys = [point.throughput_per_gpu if throughput else 1000 * point.itl for point in row]
        axes.plot(xs, ys, "o", color=colour, markersize=4.5, linestyle="none", label=f"{context:,.0f} tokens")
        all_xs, all_ys = [*all_xs, *xs], [*all_ys, *ys]
    if not throughput:
        _draw_target(axes, 1000 * outcome.record.request.itl, "target", is_vertical=False)
    return _finish(figure, axes, path, all_xs, all_ys)
