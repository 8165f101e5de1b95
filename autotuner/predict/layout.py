"""Parallel layout of a model over GPUs, and the dtypes of its weights and KV cache."""

from __future__ import annotations

from dataclasses import dataclass

from autotuner.errors import ConfigError
from autotuner.predict.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Layout:
    """Attention over `tp` GPUs in each of `dp` replicas and `pp` stages; experts over `moe_tp` x `ep`."""

    tp: int = 1
    pp: int = 1
    dp: int = 1
    moe_tp: int = 0
    ep: int = 0

    @property
    def gpus_per_stage(self) -> int:
        """GPUs of one pipeline stage."""
        return self.tp * self.dp

    @property
    def gpus(self) -> int:
        return self.tp * self.dp * self.pp

    @property
    def ep_size(self) -> int:
        """Expert-parallel size; where `ep` is 0, what `moe_tp` leaves of a pipeline stage."""
        return self.ep or max(1, self.gpus_per_stage // (self.moe_tp or self.gpus_per_stage))

    def __str__(self) -> str:
        """The sizes above one, as in `tp4 pp2`."""
        sizes = (("dp", self.dp), ("tp", self.tp), ("pp", self.pp), ("ep", self.ep_size))
        return " ".join(f"{name}{size}" for name, size in sizes if size > 1) or "tp1"


@dataclass(frozen=True, slots=True)
class Dtypes:
    """Dtypes of the MLP, the experts, the attention projections and the KV cache."""

    mlp: str
    expert: str
    attention_proj: str
    kv: str


STORAGE_DTYPES = {
    "": "bf16",
    "bf16": "bf16",
    "float16": "bf16",
    "bfloat16": "bf16",
    "fp16": "bf16",
    "fp8": "fp8",
    "fp8_block": "fp8",
    "fp8_static": "fp8",
    "nvfp4": "fp4",
    "mxfp4": "fp4",
    "fp4": "fp4",
    "w4a16_mxfp4": "fp4",
    "w4a8_mxfp4_mxfp8": "fp4",
    "int8": "int8",
    "int8_wo": "int8",
    "int4": "int4",
    "int4_wo": "int4",
}


def storage_dtype(dtype: str) -> str:
    """The dtype in which weights of this engine's or table's dtype name are stored."""
    try:
        return STORAGE_DTYPES[dtype.strip().lower()]
    except KeyError:
        raise ConfigError(
            f"Unknown dtype '{dtype}'.", remedy=f"Known are: {', '.join(name for name in STORAGE_DTYPES if name)}."
        ) from None


def resolve_dtypes(
    shape: ModelShape,
    *,
    gemm_dtype: str | None = None,
    moe_dtype: str | None = None,
    kv_dtype: str | None = None,
) -> Dtypes:
    """Dtypes of a deployment: the given ones, else the checkpoint's.

    Where a checkpoint has only its experts in four bits, the other matrices stay as they are; MLA
    and recurrent layers stay in bf16 beside four-bit matrices.
    """
    mlp, expert, attention_proj = shape.weight_dtype, shape.expert_dtype, shape.attention_dtype
    if gemm_dtype is not None:
        mlp = attention_proj = storage_dtype(gemm_dtype)
        expert = storage_dtype(moe_dtype) if moe_dtype is not None else mlp
        only_experts = shape.weight_dtype == "bf16" and shape.expert_dtype in ("fp4", "int4")
        if only_experts and expert in ("fp4", "int4"):
            mlp = attention_proj = "bf16"
        elif mlp == "fp4" and any(kind.is_latent or kind.state_elements for kind in shape.attentions):
            attention_proj = "bf16"
    elif moe_dtype is not None:
        expert = storage_dtype(moe_dtype)
    return Dtypes(mlp, expert, attention_proj, kv_cache_dtype(kv_dtype) if kv_dtype else "bf16")


def kv_cache_dtype(name: str) -> str:
    """The dtype of a KV cache of this engine's dtype name; ConfigError for other than bf16 and fp8."""
    dtype = {"auto": "bf16", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8"}.get(name.strip().lower()) or storage_dtype(name)
    if dtype not in ("bf16", "fp8"):
        raise ConfigError(f"A KV cache of {name} is not modelled.", remedy="Give bf16 or fp8.")
    return dtype
