"""The formats of other tools that a run is written in: `FORMATS[name](view, run_name) -> {file name: text}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autotuner.report.exports.bencher import bencher_files
from autotuner.report.exports.github_benchmark import github_benchmark_files
from autotuner.report.exports.llm_d import llm_d_files
from autotuner.report.exports.openmetrics import openmetrics_files
from autotuner.report.run_view import RunView

FORMATS: Mapping[str, Callable[[RunView, str], dict[str, str]]] = {
    "llm-d": llm_d_files,
    "bencher": bencher_files,
    "github-action-benchmark": github_benchmark_files,
    "openmetrics": openmetrics_files,
}
"""All but the trace of one load point, which is made of its records."""
