"""GPUs as data sheets: how much memory, how fast, how they are linked."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
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


def read_table(path: Path, known: Mapping[str, Gpu] | None = None) -> dict[str, Gpu]:
    """Read a YAML table of GPUs, in the format of the bundled one.

    A row whose name is in `known` needs only the fields that it changes, such as `price`.
    """
    before = known or {}
    try:
        rows: Any = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return {name: _row(name, row, before.get(name)) for name, row in rows.items()}
    except (OSError, ValueError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"Cannot read the GPU table {path}.",
            why=str(error),
            remedy="A new GPU needs every field that the bundled ones have; a bundled one only what changes.",
        ) from error


def _row(name: str, row: Mapping[str, Any], before: Gpu | None) -> Gpu:
    fields = {**row, "aliases": tuple(row.get("aliases", before.aliases if before else ()))}
    made = replace(before, **fields) if before else Gpu(**{**fields, "name": name})
    figures = [made.memory, made.bandwidth, made.intra_node, made.inter_node, made.gpus_per_node, made.flops["bf16"]]
    if min(*figures, 1 if made.price is None else made.price) <= 0:
        raise ValueError(f"{name}: memory, speeds and price are above 0")
    return made


def user_table() -> Path:
    """Where the user's own GPUs and prices are kept; AUTOTUNE_CONFIG_HOME moves what holds it."""
    home = os.environ.get("AUTOTUNE_CONFIG_HOME")
    if home:
        return Path(home) / TABLE.name
    from platformdirs import user_config_path

    return user_config_path("autotune") / TABLE.name


@cache
def gpus() -> Mapping[str, Gpu]:
    """All GPUs by name: the bundled ones, and those of the user's own table."""
    bundled, own = read_table(TABLE), user_table()
    return {**bundled, **read_table(own, bundled)} if own.is_file() else bundled


@cache
def _spellings() -> Mapping[str, Gpu]:
    return {_plain(spelling): gpu for gpu in gpus().values() for spelling in (gpu.name, *gpu.aliases)}


def gpu(name: str) -> Gpu:
    """Find a GPU by name, alias or as the driver spells it ("NVIDIA H100 80GB HBM3")."""
    found = _spellings().get(_plain(name))
    if found is None:
        spellings = [*gpus(), *(alias for row in gpus().values() for alias in row.aliases)]
        raise ConfigError(unknown("GPU", name, spellings), remedy=f"Other GPUs can be added in {user_table()}.")
    return found
