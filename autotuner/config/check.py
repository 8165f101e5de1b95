"""Checks a profile file on its own, whatever context it is meant for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from autotuner.config import layers
from autotuner.config.composition import Composition, compose
from autotuner.config.context import TaskContext
from autotuner.config.layers import FileLayer
from autotuner.config.merging import value_at
from autotuner.config.schema import check_keys, normalize_slo

_EXAMPLE_MODEL = "llama-3.1-8b"


def check_file(path: str | Path, context: TaskContext | None = None) -> Composition:
    """Check every layer and case of a profile file, then compose it; ConfigError where it cannot be used.

    Without a context it is composed for the simulated engine, or for the engine that it names itself.
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
    if context is None:
        names_model = any(value_at(data, "model.id_or_path") for _, data in parts)
        context = TaskContext(model_name=None if names_model else _EXAMPLE_MODEL)
    return compose(replace(context, profiles=[str(file)]))
