"""Bencher Metric Format: `{benchmark: {measure: {value, lower_value, upper_value}}}`."""

from __future__ import annotations

import json
from typing import Any

from autotuner.report.exports.points import exported_points
from autotuner.report.run_view import RunView

MAX_NAME_CHARACTERS = 1024
"""Characters of a benchmark's name that Bencher takes."""


def bencher_files(view: RunView, run_name: str) -> dict[str, str]:
    """One file for `bencher run --adapter json`."""
    benchmarks: dict[str, dict[str, Any]] = {}
    model = view.experiment.model.id_or_path
    for point in exported_points(view):
        name = f"{model} {point.candidate} {point.result.load_point} ({point.result.source})"
        measures: dict[str, Any] = {}
        for figure in point.figures:
            limits = dict(zip(("lower_value", "upper_value"), figure.interval or (), strict=False))
            measures[figure.name.replace("_", "-")] = {"value": figure.value, **limits}
        benchmarks[name[:MAX_NAME_CHARACTERS]] = measures
    return {"bencher.json": json.dumps(benchmarks, indent=1) + "\n"}
