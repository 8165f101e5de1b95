"""Draws the pictures of the explanations, from a search that is run: `python docs/make_pictures.py`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

IMAGES = Path(__file__).with_name("images")
INK, MUTED, TARGET = "#1f2937", "#6b7280", "#b45309"
COLOURS = {"feasible": "#15803d", "infeasible": "#b91c1c", "undecided": "#6b7280"}
ATTAINMENT = 0.95


def request_timeline() -> None:
    """One request of five tokens in four chunks, as in the example of docs/reference/metrics.md."""
    figure, axes = plt.subplots(figsize=(9, 2.9), layout="constrained")
    chunks = [(0.20, 1), (0.25, 1), (0.30, 1), (0.40, 2)]
    first, last = chunks[0][0], chunks[-1][0]
    axes.plot([0, last], [0, 0], color=INK, linewidth=1.5)
    axes.plot(0, 0, "o", color=INK, markersize=8)
    axes.annotate("sent", (0, 0), (0, -18), textcoords="offset points", ha="center", color=INK)
    for time, tokens in chunks:
        axes.plot(time, 0, "|", color=COLOURS["feasible"], markersize=22, markeredgewidth=3)
        label = f"{time:.2f} s\n{tokens} token{'s' if tokens > 1 else ''}"
        axes.annotate(label, (time, 0), (0, -36), textcoords="offset points", ha="center", color=MUTED)
    spans = [
        (0, first, 0.55, "TTFT 0.20 s"),
        (first, last, 0.55, "4 more tokens in 0.20 s: TPOT 0.05 s"),
        (0, last, 1.05, "E2E 0.40 s"),
    ]
    for start, end, height, text in spans:
        axes.annotate("", (start, height), (end, height), arrowprops={"arrowstyle": "<->", "color": INK})
        axes.text((start + end) / 2, height + 0.06, text, ha="center", color=INK)
    axes.set(xlim=(-0.02, 0.43), ylim=(-0.75, 1.3))
    axes.axis("off")
    figure.savefig(IMAGES / "request-timeline.png", dpi=150)


def searched_load_points() -> list[dict[str, Any]]:
    """The load points of one capacity search in virtual time, in the order in which they were measured."""
    command = [
        str(Path(sys.executable).with_name("autotune")),
        *("run", "--evaluator", "simulated", "--runtime", "vllm", "--model", "llama-3.1-8b", "--gpu", "H100"),
        *("--find-capacity", "--scenario", "N(2000,600)/(300,90)", "--objective", "maximize_throughput"),
        *("--slo", "ttft=0.5,tpot=0.015", "--max-iterations", "1", "--set", "optimization.confirm=0"),
        *("--set", "simulate.skew={seed: 14, sd: 0.45}", "--json"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    points: list[dict[str, Any]] = json.loads(done.stdout)["trials"][0]["load_points"]
    return points


def capacity_search() -> None:
    """Share of good requests over concurrency, each load with its place in the search."""
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    points = searched_load_points()
    for place, point in enumerate(points, start=1):
        share, concurrency = point["metrics"]["attainment"], point["concurrency"]
        colour = COLOURS[point["verdict"]]
        axes.vlines(concurrency, 100 * share["low"], 100 * share["high"], color=colour, linewidth=2)
        axes.plot(concurrency, 100 * share["value"], "o", color=colour, markersize=8)
        axes.annotate(
            f"{place}",
            (concurrency, 100 * share["value"]),
            (9, -4),
            textcoords="offset points",
            color=INK,
            weight="bold",
        )
    axes.axhline(100 * ATTAINMENT, color=TARGET, linestyle="--", linewidth=1.2)
    axes.text(0.01, 100 * ATTAINMENT - 1.5, "target 95%", color=TARGET, va="top", transform=axes.get_yaxis_transform())
    feasible = [point["concurrency"] for point in points if point["verdict"] == "feasible"]
    axes.set_title(
        f"Highest concurrency that meets the targets: {max(feasible)}, after {len(points)} load points (simulated)",
        loc="left",
        fontsize=11,
        color=INK,
    )
    axes.set(xlabel="requests in flight", ylabel="good requests, % (95% interval)", ylim=(0, 104))
    axes.legend(
        handles=[
            Line2D([], [], color=colour, marker="o", label=verdict)
            for verdict, colour in COLOURS.items()
            if verdict in {point["verdict"] for point in points}
        ],
        loc="lower left",
        frameon=False,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb")
    figure.savefig(IMAGES / "capacity-search.png", dpi=150)


if __name__ == "__main__":
    request_timeline()
    capacity_search()
