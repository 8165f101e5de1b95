"""GPU types from their data sheets: memory, bandwidth, peak operations/s, links, price."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from autotuner.errors import ConfigError

GPU_TABLE = Path(__file__).with_name("gpus.yaml")

DEFAULT_GPUS_PER_NODE = 8
"""GPUs of one node where the type is unknown: as in HGX and DGX systems."""

VENDORS = ("nvidia", "amd", "intel")


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """One GPU type; fields are keys of gpus.yaml: bytes, bytes/s per direction, dense operations/s by dtype, watts.

    `price` is that of one GPU for one hour, in any one currency; None where nobody told it.
    """

    name: str
    memory: int
    bandwidth: float
    flops: Mapping[str, float]
    power: float
    compute_capability: int | None
    gpus_per_node: int
    intra_node: float
    inter_node: float
    pcie: float
    aliases: tuple[str, ...] = ()
    price: float | None = None

    def peak_flops(self, dtype: str) -> float:
        """Peak dense operations/s of a matrix multiplication with weights of this dtype.

        Where the GPU has no rate for it, or a lower one than bf16, engines dequantise and
        multiply in bf16.
        """
        return max(self.flops.get(dtype, 0.0), self.flops["bf16"])

    def link_bandwidth(self, gpus: int) -> float:
        """Bytes/s per direction of the slowest link among `gpus` GPUs."""
        return self.intra_node if gpus <= self.gpus_per_node else min(self.intra_node, self.inter_node)


def _normalized_name(name: str) -> str:
    """The name without case, separators and vendor."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "".join(words[1:] if words[:1] and words[0] in VENDORS else words)


def read_table(path: Path, defaults: Mapping[str, GpuSpec] | None = None) -> dict[str, GpuSpec]:
    """Read a YAML table of GPUs, in the format of the bundled one.

    A row whose name is in `defaults` needs only the fields that it changes, such as `price`.
    """
    defaults = defaults or {}
    try:
        rows: Any = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return {name: _parse_row(name, row, defaults.get(name)) for name, row in rows.items()}
    except (OSError, ValueError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"Cannot read the GPU table {path}.",
            why=str(error),
            remedy="A new GPU needs every field that the bundled ones have; a bundled one only what changes.",
        ) from error


def _parse_row(name: str, row: Mapping[str, Any], default: GpuSpec | None) -> GpuSpec:
    fields = {**row, "aliases": tuple(row.get("aliases", default.aliases if default else ()))}
    spec = replace(default, **fields) if default else GpuSpec(**{**fields, "name": name})
    positive = [spec.memory, spec.bandwidth, spec.intra_node, spec.inter_node, spec.gpus_per_node, spec.flops["bf16"]]
    if min(*positive, 1 if spec.price is None else spec.price) <= 0:
        raise ValueError(f"{name}: memory, speeds and price are above 0")
    return spec


def user_table_path() -> Path:
    """Path of the user's own GPUs and prices; AUTOTUNE_CONFIG_HOME moves its folder."""
    home = os.environ.get("AUTOTUNE_CONFIG_HOME")
    if home:
        return Path(home) / GPU_TABLE.name
    from platformdirs import user_config_path

    return user_config_path("autotune") / GPU_TABLE.name


@cache
def gpus() -> Mapping[str, GpuSpec]:
    """All GPU types by name: the bundled ones, and those of the user's table."""
    bundled, user_path = read_table(GPU_TABLE), user_table_path()
    return {**bundled, **read_table(user_path, bundled)} if user_path.is_file() else bundled


@cache
def _gpus_by_spelling() -> Mapping[str, tuple[str, GpuSpec]]:
    """Normalised name -> the table's spelling and its GPU; raises ConfigError if two GPUs share one."""
    spellings: dict[str, tuple[str, GpuSpec]] = {}
    for row in gpus().values():
        for text in (row.name, *row.aliases):
            _, other = spellings.setdefault(_normalized_name(text), (text, row))
            if other is not row:
                raise ConfigError(
                    f"'{text}' names two GPUs: {other.name} and {row.name}.",
                    remedy=f"Take the name out of the aliases of one of them in {user_table_path()}.",
                )
    return spellings


def find_gpu(name: str) -> GpuSpec:
    """Find a GPU by name, alias or as the driver spells it ("NVIDIA H100 80GB HBM3").

    ConfigError with the nearest name, or with all of them, where the table has none.
    """
    match = _gpus_by_spelling().get(_normalized_name(name))
    if match is None:
        raise _unknown_gpu_error(name)
    return match[1]


def is_known(name: str) -> bool:
    return _normalized_name(name) in _gpus_by_spelling()


def _unknown_gpu_error(name: str) -> ConfigError:
    nearest = difflib.get_close_matches(_normalized_name(name), list(_gpus_by_spelling()), n=1, cutoff=0.5)
    if nearest:
        what, why = f"Unknown GPU '{name}'; did you mean '{_gpus_by_spelling()[nearest[0]][0]}'?", ""
    else:
        what, why = f"Unknown GPU '{name}'.", f"Known are {', '.join(gpus())}."
    return ConfigError(what, why=why, remedy=f"Correct the name, or describe this GPU in {user_table_path()}.")
