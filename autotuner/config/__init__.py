"""Layers of YAML and Python, composed into one validated experiment with the origin of every value."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotuner.config.check import check_file
    from autotuner.config.composition import Composition, ResolvedValue, compose, resolved_context
    from autotuner.config.context import TaskContext
    from autotuner.config.factory import TaskConfigFactory
    from autotuner.config.layers import ConfigLayer, Profile
    from autotuner.config.merging import leaves, merge
    from autotuner.config.overrides import Overrides, parse_set, read_overrides

__all__ = [
    "Composition",
    "ConfigLayer",
    "Overrides",
    "Profile",
    "ResolvedValue",
    "TaskConfigFactory",
    "TaskContext",
    "check_file",
    "compose",
    "leaves",
    "merge",
    "parse_set",
    "read_overrides",
    "resolved_context",
]

# Loaded on first use: listing profiles must not pay for pydantic.
_MODULES = {
    "Composition": "composition",
    "ConfigLayer": "layers",
    "Overrides": "overrides",
    "Profile": "layers",
    "ResolvedValue": "composition",
    "TaskConfigFactory": "factory",
    "TaskContext": "context",
    "check_file": "check",
    "compose": "composition",
    "leaves": "merging",
    "merge": "merging",
    "parse_set": "overrides",
    "read_overrides": "overrides",
    "resolved_context": "composition",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
