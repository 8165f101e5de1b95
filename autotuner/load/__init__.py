"""The load generator: `measure` drives one load point on a running server and brings back raw request records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotuner.endpoints.address import Endpoint
    from autotuner.load.supervisor import MeasurementInterrupted, measure
    from autotuner.load.worker_process import WorkerEndedError
    from autotuner.load.write_delay import first_token_delay

__all__ = ["Endpoint", "MeasurementInterrupted", "WorkerEndedError", "first_token_delay", "measure"]

_MODULES = {
    "Endpoint": "autotuner.endpoints.address",
    "MeasurementInterrupted": "autotuner.load.supervisor",
    "WorkerEndedError": "autotuner.load.worker_process",
    "first_token_delay": "autotuner.load.write_delay",
    "measure": "autotuner.load.supervisor",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the worker process needs neither."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
