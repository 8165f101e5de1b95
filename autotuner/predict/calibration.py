"""The fitted constants: read, and resolved for an engine, a GPU generation and types."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from autotuner.errors import ConfigError, file_error_reason
from autotuner.predict.efficiencies import Efficiencies
from autotuner.predict.hardware import GpuSpec
from autotuner.predict.kernels import kernel_constants
from autotuner.predict.layout import Dtypes, Layout
from autotuner.predict.shape import ModelShape

CONSTANTS_FILE = Path(__file__).with_name("constants.yaml")
GENERATION_BY_CAPABILITY = {80: "ampere", 86: "ampere", 89: "ada", 90: "hopper", 100: "blackwell", 103: "blackwell"}
GENERATION_BY_CAPABILITY |= {120: "blackwell", 121: "blackwell"}


@dataclass(frozen=True, slots=True)
class ServingConstants:
    """How an engine serves a closed loop, fitted.

    Before a prompt's own prefill `overhead` seconds and, where other requests run, `wait_iterations` pass, and at most
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
    effects: Mapping[str, Mapping[str, Sequence[float]]]
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
        kernels = kernel_constants(shape, gpu, dtypes, engine)
        return Efficiencies(
            gemm_compute=kernels.gemm_compute * value("gemm_compute"),
            mlp_compute=kernels.mlp_compute * value("gemm_compute"),
            attention_proj_memory=kernels.attention_proj_memory * value("attention_proj_memory", dtypes.attention_proj),
            mlp_memory=kernels.mlp_memory * value("mlp_memory", dtypes.mlp),
            expert_compute=kernels.expert_compute * value("expert_compute", dtypes.expert),
            expert_memory=kernels.expert_memory
            * value("expert_memory", dtypes.expert)
            * multipliers.get("expert_memory", 1.0),
            prefill_attention=kernels.prefill_attention * value("prefill_attention"),
            prefill_mla=kernels.prefill_mla * value("prefill_mla"),
            decode_compute=kernels.decode_compute * value("decode_compute"),
            decode_memory=kernels.decode_memory * value("decode_memory"),
            state_memory=value("state_memory"),
            elementwise=value("elementwise"),
            permute=value("permute"),
            allreduce_latency=kernels.allreduce_latency * value("allreduce_latency"),
            allreduce_bytes=kernels.allreduce_bytes * value("allreduce_bytes"),
            allreduce_oneshot=kernels.allreduce_oneshot * value("allreduce_oneshot"),
            dispatch_latency=value("dispatch_latency"),
            dispatch_bytes=value("dispatch_bytes"),
            expert_imbalance=value("expert_imbalance") if layout.ep_size > 1 else 1.0,
            idle_expert_memory=multipliers.get("idle_experts", 0.0),
            launch=launch * launch_multiplier + kernels.launch * value("launch_kernels"),
            host=host * launch_multiplier,
            step=value("step"),
        )

    def serving_constants(
        self, engine: str, layers: int, version: str | None = None, *, dp: int = 1, recv_interval: int = 1
    ) -> ServingConstants:
        """How this engine serves a closed loop over `dp` replicas of a model of so many layers."""
        wait = self.value("wait_iterations", engine)
        wait *= self.version_multipliers(engine, version).get("wait_iterations", 1.0)
        return ServingConstants(
            overhead=self.value("overhead", engine) * layers,
            wait_iterations=wait + self.value("poll_share") * (recv_interval - 1),
            gather_iterations=self.value("gather_iterations") if dp > 1 and engine == "trtllm" else 0.0,
            host_per_token=self.value("host_per_token", engine),
            burst_share=self.value("burst_share"),
            replica_interference=self.value("replica_interference", engine),
            queue_scale=self.value("queue_scale", engine),
            mixes_phases=engine != "sglang",
        )

    def effect(self, metric: str, keys: tuple[str, ...], basis: tuple[float, ...]) -> tuple[float, int]:
        """Mean log residual of the series of `keys`; 0 where nothing was measured, 1 the model, 2 the series too."""
        model, series = keys
        if model not in self.models:
            return 0.0, 0
        row = self.effects.get(series)
        if row is None:
            return 0.0, 1
        return sum(weight * value for weight, value in zip(row[metric], basis, strict=False)), 2


def gpu_generation(gpu: GpuSpec) -> str:
    return GENERATION_BY_CAPABILITY.get(gpu.compute_capability or 0, "other")


def effect_basis(isl: float, osl: float, concurrency: float, layout: Layout) -> tuple[float, ...]:
    """Regressors of a series' log residual, centred and scaled: load, lengths, tp, data and expert parallelism."""
    return (
        1.0,
        math.log2(concurrency / 16) / 3,
        math.log2(isl / 2048) / 2,
        math.log2(osl / 2048) / 2,
        math.log2(layout.tp / 4) / 2,
        float(layout.dp > 1),
        float(layout.ep_size > 1),
    )


def read_calibration(path: Path) -> Calibration:
    """Read constants in the format of the bundled ones."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        fields: Any = yaml.load(path.read_text(), Loader=loader)
        return Calibration(**fields)
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise ConfigError(f"Cannot read the constants in {path}.", why=file_error_reason(error)) from error


@cache
def bundled_calibration() -> Calibration:
    return read_calibration(CONSTANTS_FILE)
