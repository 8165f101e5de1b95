"""OpenMetrics text, for the textfile collector of a node exporter or a push gateway."""

from __future__ import annotations

from collections import defaultdict

from autotuner.report.exports.points import exported_points
from autotuner.report.run_view import RunView

UNITS = {"tokens/s": "tokens_per_second", "requests/s": "requests_per_second", "s": "seconds", "share": "ratio"}
"""Units as the ends of metric names, which the format asks for."""


def openmetrics_files(view: RunView, run_name: str) -> dict[str, str]:
    """One gauge for each figure, with labels for run, model, engine, candidate, scenario, load and source."""
    samples: dict[tuple[str, str], list[str]] = defaultdict(list)
    for point in exported_points(view):
        load_point = point.result.load_point
        labels = {
            "run": run_name,
            "model": view.experiment.model.id_or_path,
            "engine": point.trial.candidate.runtime,
            "candidate": point.candidate,
            "scenario": load_point.scenario,
            "concurrency": "" if load_point.concurrency is None else str(load_point.concurrency),
            "rate": "" if load_point.rate is None else f"{load_point.rate:g}",
            "source": point.result.source,
            "verdict": str(point.result.verdict),
        }
        text = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items() if value)
        for figure in point.figures:
            unit = UNITS[figure.unit]
            samples[f"autotune_{figure.name}_{unit}", unit].append(f"{{{text}}} {figure.value!r}")
    lines: list[str] = []
    for (name, unit), values in samples.items():
        lines += [f"# TYPE {name} gauge", f"# UNIT {name} {unit}", *(f"{name}{value}" for value in values)]
    return {"autotune.prom": "\n".join([*lines, "# EOF"]) + "\n"}


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
