"""The files of a checkpoint that say what its weights are: config.json and those beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotuner.errors import ConfigError, file_error_reason
from autotuner.input_files import read_json

SIDECARS = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
"""Files with a quantisation beside config.json: modelopt's, and those of older GPTQ and AWQ checkpoints."""
MAX_BYTES = 1e18
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class CheckpointFiles:
    """A config.json, the quantisation in a file beside it, and the size of all weights by the safetensors index."""

    config: Mapping[str, Any]
    sidecar: Mapping[str, Any] | None = None
    sidecar_name: str = ""
    index_bytes: int | None = None


def read_checkpoint(path: Path) -> CheckpointFiles:
    """The configuration at `path`; what stands beside it counts only for a file named config.json."""
    config = _read_object(path)
    if path.name != "config.json":
        return CheckpointFiles(config)
    sidecars = ((name, _read_optional(path.with_name(name))) for name in SIDECARS)
    name, sidecar = next(((name, found) for name, found in sidecars if found), ("", None))
    return CheckpointFiles(config, sidecar, name, _index_bytes(_read_optional(path.with_name(INDEX))))


def _read_object(path: Path) -> Mapping[str, Any]:
    try:
        config = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"Cannot read {path}.", why=file_error_reason(error)) from error
    if not isinstance(config, dict):
        raise ConfigError(f"Cannot read {path}.", why="It is not a JSON object.")
    return config


def _read_optional(path: Path) -> Mapping[str, Any] | None:
    """A JSON object, None where there is none or it cannot be read: it only adds to the configuration."""
    try:
        return _read_object(path) if path.is_file() else None
    except ConfigError:
        return None


def _index_bytes(index: Mapping[str, Any] | None) -> int | None:
    metadata = (index or {}).get("metadata")
    size: Any = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    if isinstance(size, str) and size.strip().isdigit():
        size = int(size)
    if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < MAX_BYTES:
        return None
    return int(size)
