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
"""Key in constants.yaml of the part of a series' effect that all its layouts share."""
GENERATION_BY_CAPABILITY = {80: "ampere", 86: "ampere", 89: "ada", 90: "hopper", 100: "blackwell", 103: "blackwell"}
GENERATION_BY_CAPABILITY |= {120: "blackwell", 121: "blackwell"}


@dataclass(frozen=True, slots=True)
class ServingConstants:
    """How an engine serves a closed loop, fitted.

    `overhead` seconds and `wait_iterations` pass before a prompt's own prefill, and at most
    `gather_iterations` more until every data-parallel replica has a prompt. `host_per_token` is
    seconds per prompt token outside the GPU, `burst_share` half the share of requests that arrive
    together at the start. `replica_interference` scales what prefills of other data-parallel
    replicas add to decodes, `queue_scale` the time spent queueing for KV cache. `mixes_phases`:
    prefill and decode share iterations.
    """

    overhead: float
    wait_iterations: float
    gather_iterations: float
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
        """One constant: its base times the multipliers of these engine, generation and dtype, each 1 if not fitted."""
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
        """Constants of the operators of one model on one layout, engine and GPU type."""
        generation, multipliers = gpu_generation(gpu), self.version_multipliers(engine, version)

        def value(name: str, dtype: str = "") -> float:
            return self.value(name, engine, generation, dtype)

        launch_multiplier = multipliers.get("launch", 1.0)
        attentions = shape.attentions
        softmax = sum(kind.layers for kind in attentions if kind.cache_elements and not kind.is_latent)
        mla = sum(kind.layers for kind in attentions if kind.is_latent)
        linear = sum(kind.layers for kind in attentions if kind.state_elements)
        indexers = sum(kind.layers for kind in attentions if kind.indexer_ops)
        mlp = sum(kind.layers for kind in shape.feed_forwards if not kind.experts)
        launch = softmax * value("launch_attention") + mla * value("launch_mla") + linear * value("launch_linear")
        launch += indexers * value("launch_indexer") + mlp * value("launch_mlp")
        launch += shape.moe_layers * value("launch_moe")
        host = (softmax + mlp) * value("host_standard") + (mla + linear + indexers) * value("host_other")
        host += shape.moe_layers * value("host_moe")
        return Efficiencies(
            gemm_compute=value("gemm_compute", dtypes.attention_proj),
            attention_proj_memory=value("attention_proj_memory", dtypes.attention_proj),
            mlp_memory=value("mlp_memory", dtypes.mlp),
            expert_compute=value("expert_compute", dtypes.expert),
            expert_memory=value("expert_memory", dtypes.expert) * multipliers.get("expert_memory", 1.0),
            prefill_attention=value("prefill_attention"),
            prefill_mla=value("prefill_mla"),
            decode_compute=value("decode_compute"),
            decode_memory=value("decode_memory"),
            state_memory=value("state_memory"),
            elementwise=value("elementwise"),
            permute=value("permute"),
            allreduce_latency=value("allreduce_latency"),
            allreduce_bytes=value("allreduce_bytes"),
            allreduce_oneshot=value("allreduce_oneshot"),
            dispatch_latency=value("dispatch_latency"),
            dispatch_bytes=value("dispatch_bytes"),
            expert_imbalance=value("expert_imbalance") if layout.ep_size > 1 else 1.0,
            idle_expert_memory=multipliers.get("idle_experts", 0.0),
            launch=launch * launch_multiplier,
            host=host * launch_multiplier,
            step=value("step"),
        )

    def serving_constants(
        self, engine: str, gpu: GpuSpec, layers: int, version: str | None = None, concurrency: float = 1.0, dp: int = 1
    ) -> ServingConstants:
        """How this engine serves a closed loop of so many requests over `dp` replicas of a model."""
        wait = self.value("wait_iterations", engine)
        wait *= self.version_multipliers(engine, version).get("wait_iterations", 1.0)
        if engine == "sglang" and gpu_generation(gpu) == "blackwell":
            # The measured servers poll for requests every few iterations there, rarer from 16 in flight.
            wait = self.value("poll_iterations") * (3 if concurrency >= 16 else 1)
        return ServingConstants(
            overhead=self.value("overhead", engine) * layers,
            wait_iterations=wait,
            gather_iterations=self.value("gather_iterations") if dp > 1 and engine == "trtllm" else 0.0,
            host_per_token=self.value("host_per_token", engine),
            burst_share=self.value("burst_share"),
            replica_interference=self.value("replica_interference", engine),
            queue_scale=self.value("queue_scale", engine),
            mixes_phases=engine != "sglang",
        )

    def effect(self, metric: str, keys: tuple[str, ...], basis: tuple[float, ...]) -> tuple[float, int]:
        """Mean log residual measured for the series and layout of `keys`, and how many levels of `keys` were measured.

        0: none, 1: the model, 2: the series too, 3: the layout too.
        """
        model, series, layout = keys
        if model not in self.models:
            return 0.0, 0
        levels = self.effects.get(series)
        if levels is None:
            return 0.0, 1
        coefficients = [row[metric] for row in (levels[ALL_LAYOUTS], levels.get(layout)) if row is not None]
        total = sum(weight * value for row in coefficients for weight, value in zip(row, basis, strict=False))
        return total, 1 + len(coefficients)


def gpu_generation(gpu: GpuSpec) -> str:
    return GENERATION_BY_CAPABILITY.get(gpu.compute_capability or 0, "other")


def effect_basis(isl: float, osl: float, concurrency: float) -> tuple[float, ...]:
    """Regressors of a series' log residual: constant, log load and log lengths, centred and scaled."""
    return (1.0, math.log2(concurrency / 16) / 3, math.log2(isl / 2048) / 2, math.log2(osl / 2048) / 2)


def read_calibration(path: Path) -> Calibration:
    """Read constants in the format of the bundled ones."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        fields: Any = yaml.load(path.read_text(), Loader=loader)
        return Calibration(**fields)
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise ConfigError(f"Cannot read the constants in {path}.", why=str(error)) from error


@cache
def bundled_calibration() -> Calibration:
    return read_calibration(CONSTANTS_FILE)
