"""The fitted constants: read, and resolved for an engine, a GPU generation and types."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from autotuner.errors import ConfigError
from autotuner.predict.efficiencies import Efficiencies
from autotuner.predict.hardware import GpuSpec
from autotuner.predict.layout import Dtypes, Layout
from autotuner.predict.shape import ModelShape

CONSTANTS_FILE = Path(__file__).with_name("constants.yaml")
ALL_LAYOUTS = "every"
"""The name under which a series keeps what holds for all its layouts."""
GENERATION_BY_CAPABILITY = {80: "ampere", 86: "ampere", 89: "ada", 90: "hopper", 100: "blackwell", 103: "blackwell"}
GENERATION_BY_CAPABILITY |= {120: "blackwell", 121: "blackwell"}


@dataclass(frozen=True, slots=True)
class ServingConstants:
    """How an engine serves a closed loop, fitted.

    `overhead` seconds and `wait` iterations pass before a prompt's own prefill, and at most
    `gather` more until every data-parallel replica has a prompt; `per_token` seconds per prompt
    token are spent outside the GPU, `burst` is the share of requests that arrive together at the
    start, over two; `replicas` scales what prefills of other data-parallel replicas add to
    decodes, `saturation` the time spent queueing for KV cache. `mixes` says that prefill and
    decode share iterations.
    """

    overhead: float
    wait_iterations: float
    gather: float
    host_per_token: float
    burst_share: float
    replica_interference: float
    queue_scale: float
    mixes_phases: bool


@dataclass(frozen=True)
class Calibration:
    """Constants by name: a shared `base` and multipliers per engine, GPU generation and dtype."""

    constants: Mapping[str, Mapping[str, float]]
    versions: Mapping[str, Mapping[str, float]]
    models: Sequence[str]
    effects: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
    intervals: Mapping[str, Any]

    def value(self, name: str, *keys: str) -> float:
        """One constant for these engine, generation and dtype; what was not fitted counts as 1."""
        row = self.constants[name]
        value = row["base"]
        for key in keys:
            value *= row.get(key, 1.0)
        return value

    def version_multipliers(self, engine: str, version: str | None) -> Mapping[str, float]:
        """Multipliers of one engine version; empty where it was never measured."""
        return self.versions.get(f"{engine} {version or '-'}", {})

    def efficiencies(
        self, shape: ModelShape, gpu: GpuSpec, layout: Layout, dtypes: Dtypes, engine: str, version: str | None = None
    ) -> Efficiencies:
        """Constants of the operators for one deployment."""
        generation, of = gpu_generation(gpu), self.version_multipliers(engine, version)

        def value(name: str, dtype: str = "") -> float:
            return self.value(name, engine, generation, dtype)

        floor, expert = of.get("floor", 1.0), of.get("expert", 1.0)
        kinds, feeds = shape.attentions, shape.feed_forwards
        plain = sum(kind.layers for kind in kinds if kind.cache and not kind.is_latent)
        latent = sum(kind.layers for kind in kinds if kind.is_latent)
        linear = sum(kind.layers for kind in kinds if kind.state_elements)
        indexed = sum(kind.layers for kind in kinds if kind.index)
        dense = sum(kind.layers for kind in feeds if not kind.experts)
        launch = plain * value("launch_plain") + latent * value("launch_latent") + linear * value("launch_linear")
        launch += indexed * value("launch_index") + dense * value("launch_dense")
        launch += shape.moe_layers * value("launch_expert")
        host = (plain + dense) * value("host_plain") + (latent + linear + indexed) * value("host_other")
        host += shape.moe_layers * value("host_expert")
        return Efficiencies(
            gemm_compute=value("gemm_compute", dtypes.attention_proj),
            mixer_memory=value("mixer_memory", dtypes.attention_proj),
            dense_memory=value("dense_memory", dtypes.mlp),
            expert_compute=value("expert_compute", dtypes.expert),
            expert_memory=value("expert_memory", dtypes.expert) * expert,
            context=value("context"),
            latent_context=value("latent_context"),
            decode_compute=value("decode_compute"),
            decode_memory=value("decode_memory"),
            state=value("state"),
            elementwise=value("elementwise"),
            permute=value("permute"),
            reduce_latency=value("reduce_latency"),
            reduce_bytes=value("reduce_bytes"),
            reduce_oneshot=value("reduce_oneshot"),
            dispatch_latency=value("dispatch_latency"),
            dispatch_bytes=value("dispatch_bytes"),
            imbalance=value("imbalance") if layout.ep_size > 1 else 1.0,
            idle=of.get("idle", 0.0),
            launch=launch * floor,
            host=host * floor,
            step=value("step"),
        )

    def serving_constants(
        self, engine: str, gpu: GpuSpec, layers: int, version: str | None = None, concurrency: float = 1.0, dp: int = 1
    ) -> ServingConstants:
        """How this engine serves a closed loop of so many requests over `dp` replicas of a model."""
        wait = self.value("wait", engine) * self.version_multipliers(engine, version).get("wait", 1.0)
        if engine == "sglang" and gpu_generation(gpu) == "blackwell":
            # There it is run polling for requests every few iterations, rarer from 16 in flight.
            wait = self.value("poll") * (3 if concurrency >= 16 else 1)
        return ServingConstants(
            overhead=self.value("overhead", engine) * layers,
            wait_iterations=wait,
            gather=self.value("gather") if dp > 1 and engine == "trtllm" else 0.0,
            host_per_token=self.value("per_token", engine),
            burst_share=self.value("burst"),
            replica_interference=self.value("replicas", engine),
            queue_scale=self.value("saturation", engine),
            mixes_phases=engine != "sglang",
        )

    def effect(self, metric: str, keys: tuple[str, ...], basis: tuple[float, ...]) -> tuple[float, int]:
        """Logarithm of what this series was measured to differ by, and how much of `keys` is known.

        0: nothing, 1: the model, 2: the series too, 3: the layout too.
        """
        model, series, layout = keys
        if model not in self.models:
            return 0.0, 0
        levels = self.effects.get(series)
        if levels is None:
            return 0.0, 1
        known = [row[metric] for row in (levels[ALL_LAYOUTS], levels.get(layout)) if row is not None]
        total = sum(weight * value for row in known for weight, value in zip(row, basis, strict=False))
        return total, 1 + len(known)


def gpu_generation(gpu: GpuSpec) -> str:
    """The GPU generation constants are fitted for."""
    return GENERATION_BY_CAPABILITY.get(gpu.compute_capability or 0, "other")


def effect_basis(isl: float, osl: float, concurrency: float) -> tuple[float, ...]:
    """What a model's own residual may depend on: nothing, load and lengths, on a log scale."""
    return (1.0, math.log2(concurrency / 16) / 3, math.log2(isl / 2048) / 2, math.log2(osl / 2048) / 2)


def read_calibration(path: Path) -> Calibration:
    """Read constants in the format of the bundled ones."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        found: Any = yaml.load(path.read_text(), Loader=loader)
        return Calibration(**found)
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise ConfigError(f"Cannot read the constants in {path}.", why=str(error)) from error


@cache
def bundled_calibration() -> Calibration:
    """The bundled constants."""
    return read_calibration(CONSTANTS_FILE)
