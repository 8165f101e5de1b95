"""The longest context that a model's config.json allows an engine that does not override it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from autotuner import model_files
from autotuner.experiment import Model
from autotuner.input_files import read_json

LENGTH_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
UNSCALED_ROPE_TYPES = ("default", "llama3", "longrope", "su", "mrope")
"""Kinds of rope scaling whose max_position_embeddings is the length after scaling."""


@lru_cache(maxsize=16)
def context_limit(model: Model) -> int | None:
    """Tokens that a model on this machine has positions for, rope scaling included; None where that is not known."""
    path = model_files.config_file(model)
    try:
        config = read_json(path) if path else {}
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    text_config = config.get("text_config")
    return _limit({**config, **(text_config if isinstance(text_config, dict) else {})})


def _limit(config: Mapping[str, Any]) -> int | None:
    lengths = [value for key in LENGTH_KEYS if isinstance(value := config.get(key), int) and value > 0]
    if not lengths or config.get("model_max_length") is not None:
        return None
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        return None
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind in UNSCALED_ROPE_TYPES:
        return min(lengths)
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
    if not isinstance(factor, int | float):
        return None
    base = original if kind == "yarn" and isinstance(original, int) else min(lengths)
    return max(int(base * factor), min(lengths))
