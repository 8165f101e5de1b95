"""autotune: the engine, flags and load that serve a model best within latency targets.

From Python: `compose(TaskContext(...))` gives a validated configuration, `run(composition)` does
the whole job; `bench(url, ...)` drives load on a server that runs already.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotuner.config import ConfigLayer, TaskConfigFactory, TaskContext, compose
    from autotuner.loadtest import bench
    from autotuner.report.bench.result import BenchResult
    from autotuner.wire import Result, run

__version__ = "0.1.0"
__all__ = [
    "BenchResult",
    "ConfigLayer",
    "Result",
    "TaskConfigFactory",
    "TaskContext",
    "bench",
    "compose",
    "run",
]

_HOMES = {
    "BenchResult": "autotuner.report.bench.result",
    "ConfigLayer": "autotuner.config",
    "Result": "autotuner.wire",
    "TaskConfigFactory": "autotuner.config",
    "TaskContext": "autotuner.config",
    "bench": "autotuner.loadtest",
    "compose": "autotuner.config",
    "run": "autotuner.wire",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line starts at once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
