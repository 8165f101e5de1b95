"""Checks a profile file on its own, whatever context it is meant for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotuner.config import layers, ranges
from autotuner.config.composition import Composition, compose
from autotuner.config.context import TaskContext
from autotuner.config.layers import FileLayer
from autotuner.config.merging import value_at
from autotuner.config.schema import check_keys, normalize_slo

ValuesCheck = Callable[[Mapping[str, Sequence[Any]], Callable[[str], str]], None]
"""A check of parameters with their values, given the place of each name."""

_EXAMPLE_MODEL = "llama-3.1-8b"


def check_file(
    path: str | Path, context: TaskContext | None = None, check_values: ValuesCheck = lambda values, origin: None
) -> Composition:
    """Check every layer and case of a profile file, then compose it; ConfigError if it cannot be used.

    Without a context it is composed for the simulated engine, or for the engine that it names itself. `check_values`
    is given the parameters of every layer and case, each with all of its values, and says which are wrong.
    """
    file = Path(path).absolute()
    parts = [
        (layer, {**data, "slo": normalize_slo(data["slo"])} if "slo" in data else data)
        for layer in layers.load_profile(file).layers
        if isinstance(layer, FileLayer)
        for data in layer.data_variants()
    ]
    for layer, data in parts:
        check_keys(layer.name, data, layer.locate)
        check_values(_parameter_values(data), lambda name, layer=layer: layer.locate(f"parameters.{name}"))  # type: ignore[misc]
    if context is None:
        names_model = any(value_at(data, "model.id_or_path") for _, data in parts)
        context = TaskContext(model_name=None if names_model else _EXAMPLE_MODEL)
    return compose(replace(context, profiles=[str(file)]))


def _parameter_values(data: Mapping[str, Any]) -> dict[str, list[Any]]:
    """All values of each parameter of a layer that are known without a context."""
    parameters = data.get("parameters")
    known: dict[str, list[Any]] = {}
    for name, values in parameters.items() if isinstance(parameters, Mapping) else ():
        with contextlib.suppress(ValueError):  # a malformed range is an error of the composition
            expanded = ranges.expand_values(values)
            known[name] = [value for value in expanded if not (isinstance(value, str) and "{" in value)]
    return known
