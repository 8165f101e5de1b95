"""How a model is spread over GPUs, and the types its numbers are kept in."""

from __future__ import annotations

from dataclasses import dataclass

from autotuner.errors import ConfigError
from autotuner.predict.hardware import Gpu
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
    def ranks(self) -> int:
        """GPUs of one pipeline stage."""
        return self.tp * self.dp

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return self.tp * self.dp * self.pp

    @property
    def expert_groups(self) -> int:
        """Groups of GPUs the experts are dealt to."""
        return self.ep or max(1, self.ranks // (self.moe_tp or self.ranks))


@dataclass(frozen=True, slots=True)
class Dtypes:
    """Types of the feed-forward matrices, the experts, the token mixers and the KV cache."""

    dense: str
    expert: str
    mixer: str
    kv: str


ROW_DTYPES = {
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


def storage(dtype: str) -> str:
    """The type weights are kept in under one of the names engines and tables use."""
    try:
        return ROW_DTYPES[dtype.strip().lower()]
    except KeyError:
        raise ConfigError(
            f"Unknown dtype '{dtype}'.", remedy=f"Known are: {', '.join(name for name in ROW_DTYPES if name)}."
        ) from None


def dtypes_of(
    shape: ModelShape, gpu: Gpu, *, gemm: str | None = None, moe: str | None = None, kv: str | None = None
) -> Dtypes:
    """Types of a deployment: what is asked for, else what the checkpoint has.

    Where only the experts of a model are published in four bits, the other matrices stay as
    they are; latent attention and recurrent mixers stay in bf16 beside four-bit matrices.
    """
    dense, expert, mixer = shape.weight_dtype, shape.expert_dtype, shape.attention_dtype
    if gemm is not None:
        dense = mixer = storage(gemm)
        expert = storage(moe) if moe is not None else dense
        only_experts = shape.weight_dtype == "bf16" and shape.expert_dtype in ("fp4", "int4")
        if only_experts and expert in ("fp4", "int4"):
            dense = mixer = "bf16"
        elif dense == "fp4" and any(kind.latent or kind.state for kind in shape.attentions):
            mixer = "bf16"
    elif moe is not None:
        expert = storage(moe)
    return Dtypes(dense, expert, mixer, cache_dtype(kv) if kv else "bf16")


def cache_dtype(name: str) -> str:
    """The type the KV cache is kept in under one of the names engines use."""
    found = {"auto": "bf16", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8"}.get(name.strip().lower()) or storage(name)
    if found not in ("bf16", "fp8"):
        raise ConfigError(f"A KV cache of {name} is not modelled.", remedy="Give bf16 or fp8.")
    return found
