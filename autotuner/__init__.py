"""autotune finds the engine, flags and load that serve a model best within latency targets.

From Python: `compose(TaskContext(...))` returns a validated configuration and `run(composition)` tunes it;
`bench(url, ...)` load-tests a running server. Without a GPU, `what_if`, `at_rate`, `rank_deployments` and
`fewest_gpus` predict performance; `calibrate(runs)` fits the predictions to measured runs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotuner.config import ConfigLayer, TaskConfigFactory, TaskContext, compose
    from autotuner.loadtest import bench
    from autotuner.local_data import calibrate
    from autotuner.predict.api import at_rate, fewest_gpus, rank_deployments, what_if
    from autotuner.predict.layout import Layout
    from autotuner.predict.traffic import Software
    from autotuner.report.bench.result import BenchResult
    from autotuner.run_report import Result
    from autotuner.session import run

__version__ = "0.1.0"
__all__ = [
    "BenchResult",
    "ConfigLayer",
    "Layout",
    "Result",
    "Software",
    "TaskConfigFactory",
    "TaskContext",
    "at_rate",
    "bench",
    "calibrate",
    "compose",
    "fewest_gpus",
    "rank_deployments",
    "run",
    "what_if",
]

_HOMES = {
    "BenchResult": "autotuner.report.bench.result",
    "ConfigLayer": "autotuner.config",
    "Layout": "autotuner.predict.layout",
    "Result": "autotuner.run_report",
    "Software": "autotuner.predict.traffic",
    "TaskConfigFactory": "autotuner.config",
    "TaskContext": "autotuner.config",
    "at_rate": "autotuner.predict.api",
    "bench": "autotuner.loadtest",
    "calibrate": "autotuner.local_data",
    "compose": "autotuner.config",
    "fewest_gpus": "autotuner.predict.api",
    "rank_deployments": "autotuner.predict.api",
    "run": "autotuner.session",
    "what_if": "autotuner.predict.api",
}


def __getattr__(name: str) -> Any:
    """Import on first use, to keep the start of the command line fast."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
