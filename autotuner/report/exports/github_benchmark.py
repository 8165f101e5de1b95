"""The custom formats of github-action-benchmark, one file for each direction in which figures are better."""

from __future__ import annotations

import json
from typing import Any

from autotuner.report.exports.points import exported_points
from autotuner.report.run_view import RunView


def github_benchmark_files(view: RunView, run_name: str) -> dict[str, str]:
    """`customBiggerIsBetter` and `customSmallerIsBetter`."""
    bigger: list[dict[str, Any]] = []
    smaller: list[dict[str, Any]] = []
    for point in exported_points(view):
        for figure in point.figures:
            entry: dict[str, Any] = {
                "name": f"{point.candidate} {point.result.load_point}: {figure.name}",
                "unit": figure.unit,
                "value": figure.value,
                "extra": f"{point.result.source}, {point.result.verdict}, run {run_name}",
            }
            if figure.interval:
                half_width = (figure.interval[1] - figure.interval[0]) / 2
                entry["range"] = f"\N{PLUS-MINUS SIGN} {half_width:.3g}"
            (bigger if figure.higher_is_better else smaller).append(entry)
    return {
        "bigger-is-better.json": json.dumps(bigger, indent=1) + "\n",
        "smaller-is-better.json": json.dumps(smaller, indent=1) + "\n",
    }
