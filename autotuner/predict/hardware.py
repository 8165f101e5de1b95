"""GPUs as data sheets: how much memory, how fast, how they are linked."""

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
"""GPUs of one node where the type is unknown."""

VENDORS = ("nvidia", "amd", "intel")


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """One GPU type: bytes, bytes/s per direction, dense operations/s by dtype, watts.

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
        """Dense operations/s of a matrix multiplication whose weights have this dtype.

        Where the GPU has no rate for it, or a lower one than bf16, engines dequantise and
        multiply in bf16.
        """
        return max(self.flops.get(dtype, 0.0), self.flops["bf16"])

    def link_bandwidth(self, gpus: int) -> float:
        """Bytes/s per direction of the slowest link that `gpus` GPUs talk over."""
        return self.intra_node if gpus <= self.gpus_per_node else min(self.intra_node, self.inter_node)


def _normalized_name(name: str) -> str:
    """A spelling without what may differ between two of them: case, separators, the vendor."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "".join(words[1:] if words[:1] and words[0] in VENDORS else words)


def read_table(path: Path, defaults: Mapping[str, GpuSpec] | None = None) -> dict[str, GpuSpec]:
    """Read a YAML table of GPUs, in the format of the bundled one.

    A row whose name is in `known` needs only the fields that it changes, such as `price`.
    """
    before = defaults or {}
    try:
        rows: Any = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return {name: _parse_row(name, row, before.get(name)) for name, row in rows.items()}
    except (OSError, ValueError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"Cannot read the GPU table {path}.",
            why=str(error),
            remedy="A new GPU needs every field that the bundled ones have; a bundled one only what changes.",
        ) from error


def _parse_row(name: str, row: Mapping[str, Any], default: GpuSpec | None) -> GpuSpec:
    fields = {**row, "aliases": tuple(row.get("aliases", default.aliases if default else ()))}
    made = replace(default, **fields) if default else GpuSpec(**{**fields, "name": name})
    figures = [made.memory, made.bandwidth, made.intra_node, made.inter_node, made.gpus_per_node, made.flops["bf16"]]
    if min(*figures, 1 if made.price is None else made.price) <= 0:
        raise ValueError(f"{name}: memory, speeds and price are above 0")
    return made


def user_table_path() -> Path:
    """Where the user's own GPUs and prices are kept; AUTOTUNE_CONFIG_HOME moves what holds it."""
    home = os.environ.get("AUTOTUNE_CONFIG_HOME")
    if home:
        return Path(home) / GPU_TABLE.name
    from platformdirs import user_config_path

    return user_config_path("autotune") / GPU_TABLE.name


@cache
def gpus() -> Mapping[str, GpuSpec]:
    """All GPUs by name: the bundled ones, and those of the user's own table."""
    bundled, own = read_table(GPU_TABLE), user_table_path()
    return {**bundled, **read_table(own, bundled)} if own.is_file() else bundled


@cache
def _gpus_by_spelling() -> Mapping[str, tuple[str, GpuSpec]]:
    """Plain spelling -> how the table writes it, and its GPU; ConfigError where two GPUs share one."""
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
    """Whether the table has a GPU of this name."""
    return _normalized_name(name) in _gpus_by_spelling()


def _unknown_gpu_error(name: str) -> ConfigError:
    near = difflib.get_close_matches(_normalized_name(name), list(_gpus_by_spelling()), n=1, cutoff=0.5)
    if near:
        what, why = f"Unknown GPU '{name}'; did you mean '{_gpus_by_spelling()[near[0]][0]}'?", ""
    else:
        what, why = f"Unknown GPU '{name}'.", f"Known are {', '.join(gpus())}."
    return ConfigError(what, why=why, remedy=f"Correct the name, or describe this GPU in {user_table_path()}.")
