"""GPUs as data sheets: how much memory, how fast, how they are linked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from autotuner.errors import ConfigError, unknown

TABLE = Path(__file__).with_name("gpus.yaml")
FAST_LINK = 200e9
"""Bytes/s from which a link is NVLink and not PCIe or a network adapter."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU type: bytes, bytes/s per direction, dense operations/s by dtype, watts."""

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

    def peak(self, dtype: str) -> float:
        """Dense operations/s of a matrix multiplication whose weights have this dtype.

        Where the GPU has no rate for it, or a lower one than bf16, engines dequantise and
        multiply in bf16.
        """
        return max(self.flops.get(dtype, 0.0), self.flops["bf16"])

    def link(self, gpus: int) -> float:
        """Bytes/s per direction of the slowest link that `gpus` GPUs talk over."""
        return self.intra_node if gpus <= self.gpus_per_node else min(self.intra_node, self.inter_node)


def _plain(name: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")
    return words.removeprefix("nvidia_")


def read_table(path: Path) -> dict[str, Gpu]:
    """Read a YAML table of GPUs, in the format of the bundled one."""
    try:
        rows: Any = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return {
            name: Gpu(**{**row, "name": name, "aliases": tuple(row.get("aliases", ()))}) for name, row in rows.items()
        }
    except (OSError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise ConfigError(f"Cannot read the GPU table {path}.", why=str(error)) from error


@cache
def gpus() -> Mapping[str, Gpu]:
    """All bundled GPUs by name."""
    return read_table(TABLE)


@cache
def _spellings() -> Mapping[str, Gpu]:
    return {_plain(spelling): gpu for gpu in gpus().values() for spelling in (gpu.name, *gpu.aliases)}


def gpu(name: str) -> Gpu:
    """Find a GPU by name, alias or as the driver spells it ("NVIDIA H100 80GB HBM3")."""
    found = _spellings().get(_plain(name))
    if found is None:
        raise ConfigError(unknown("GPU", name, [*gpus(), *(alias for row in gpus().values() for alias in row.aliases)]))
    return found
