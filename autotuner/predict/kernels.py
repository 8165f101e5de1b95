"""Constants of kernels measured one by one: the bundled ones, and those nearest to a GPU, an engine and types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

from autotuner.predict.hardware import GpuSpec, gpus
from autotuner.predict.layout import Dtypes
from autotuner.predict.shape import ModelShape

KERNELS_FILE = Path(__file__).with_name("kernels.yaml")
OTHER_DTYPES = {
    "int8": ("fp8", "bf16"),
    "fp4": ("int4", "fp8", "bf16"),
    "int4": ("bf16",),
    "fp8": ("bf16",),
    "bf16": (),
}
"""Types whose kernels stand for those of a type that was not measured."""
LAYER_GEMMS = {"attention": 2, "mla": 5, "linear": 3, "mlp": 2, "moe": 1}
"""Matrix multiplications of a layer that are kernels of their own, beside attention and the experts: query-key-value
and output; for MLA those of the latent too; gate-up and down; the router."""


@dataclass(frozen=True, slots=True)
class KernelConstants:
    """Inverse efficiencies of one model's kernels, as fields of `Efficiencies`.

    `launch` is the seconds that all its kernels take beside arithmetic and memory.
    """

    gemm_compute: float
    mlp_compute: float
    attention_proj_memory: float
    mlp_memory: float
    expert_compute: float
    expert_memory: float
    prefill_attention: float
    prefill_mla: float
    decode_compute: float
    decode_memory: float
    allreduce_latency: float
    allreduce_bytes: float
    allreduce_oneshot: float
    launch: float


@cache
def _bundled() -> Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]:
    """Constants by GPU type, engine and `KIND NAME` of a kernel."""
    tables: Any = yaml.load(KERNELS_FILE.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {
        gpu: {
            engine: {f"{kind} {name}": constants for kind, names in kinds.items() for name, constants in names.items()}
            for engine, kinds in engines.items()
        }
        for gpu, engines in tables.items()
    }


@lru_cache(maxsize=4096)
def kernel(gpu: str, engine: str, kind: str, name: str) -> tuple[float, float, float]:
    """Three constants of a kernel, those of the nearest measured one where this was not: another type, engine, GPU.

    `name` is a type for matrix multiplications and experts.
    """
    tables = _bundled()
    capability = gpus()[gpu].compute_capability or 0 if gpu in gpus() else 0
    nearest_gpus = sorted(
        tables, key=lambda other: (other != gpu, abs((gpus()[other].compute_capability or 0) - capability))
    )
    keys = [f"{kind} {other}" for other in (name, *OTHER_DTYPES.get(name, ()))]
    for key in keys:
        for other_gpu in nearest_gpus[:1]:
            for other_engine in dict.fromkeys((engine, "sglang", "vllm", "trtllm")):
                constants = tables[other_gpu].get(other_engine, {}).get(key)
                if constants is not None:
                    return constants[0], constants[1], constants[2]
    for key in keys:
        rows = [row[key] for other_gpu in nearest_gpus for row in tables[other_gpu].values() if key in row]
        if rows:
            return rows[0][0], rows[0][1], rows[0][2]
    return 2.0, 1.5, 10.0


def kernel_constants(shape: ModelShape, gpu: GpuSpec, dtypes: Dtypes, engine: str) -> KernelConstants:
    """The constants of a model's kernels on one GPU type and engine."""
    attention_gemm, mlp_gemm = (
        kernel(gpu.name, engine, "gemm", dtype) for dtype in (dtypes.attention_proj, dtypes.mlp)
    )
    experts, router = kernel(gpu.name, engine, "moe", dtypes.expert), kernel(gpu.name, engine, "gemm", "bf16")
    prefill, decode = (kernel(gpu.name, engine, "attention", name) for name in ("prefill", "decode"))
    prefill_mla, decode_mla = (kernel(gpu.name, engine, "mla", name) for name in ("mla_prefill", "mla_decode"))
    allreduce = kernel(gpu.name, engine, "collective", "allreduce")
    is_latent = any(kind.is_latent for kind in shape.attentions)
    launch = 0.0
    for kind in shape.attentions:
        if kind.cache_elements and not kind.is_latent:
            launch += kind.layers * (LAYER_GEMMS["attention"] * attention_gemm[2] + decode[2])
        elif kind.is_latent:
            launch += kind.layers * (LAYER_GEMMS["mla"] * attention_gemm[2] + decode_mla[2])
        else:
            launch += kind.layers * LAYER_GEMMS["linear"] * attention_gemm[2]
    for feed_forward in shape.feed_forwards:
        if feed_forward.weights:
            launch += feed_forward.layers * LAYER_GEMMS["mlp"] * mlp_gemm[2]
        if feed_forward.experts:
            launch += feed_forward.layers * (LAYER_GEMMS["moe"] * router[2] + experts[2])
    chosen_decode = decode_mla if is_latent else decode
    return KernelConstants(
        gemm_compute=attention_gemm[0],
        mlp_compute=mlp_gemm[0],
        attention_proj_memory=attention_gemm[1],
        mlp_memory=mlp_gemm[1],
        expert_compute=experts[0],
        expert_memory=experts[1],
        prefill_attention=prefill[0],
        prefill_mla=prefill_mla[0],
        decode_compute=chosen_decode[0],
        decode_memory=chosen_decode[1],
        allreduce_latency=allreduce[0] * 1e-6,
        allreduce_bytes=allreduce[1],
        allreduce_oneshot=allreduce[2],
        launch=launch * 1e-6,
    )
