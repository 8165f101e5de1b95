"""What fits on a GPU: weights, KV bytes per token, and the pool that is left for the KV cache."""

from __future__ import annotations

from dataclasses import dataclass

from autotuner.predict.hardware import Gpu
from autotuner.predict.shape import DTYPE_BYTES, ModelShape

GIB = 2**30
CONTEXT_BYTES = int(0.9 * GIB)
"""Driver context, kernels and captured graphs; engines log 0.7 to 1.3 GiB."""
COLLECTIVE_BYTES = int(0.4 * GIB)
"""Buffers of the communicator, where there is one."""
KV_BYTES = {"bf16": 2, "fp8": 1}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """One GPU's memory in bytes, and the KV cache in tokens of the whole model.

    `budget` is memory x fraction; `kv_tokens` is 0 where nothing is left, and then `shortage`
    says so with figures.
    """

    memory: int
    fraction: float
    budget: int
    weights: int
    activations: int
    overhead: int
    kv_bytes_per_token: int
    kv_tokens: int

    @property
    def fits(self) -> bool:
        """Whether at least one block's worth of KV cache is left."""
        return self.kv_tokens > 0

    @property
    def shortage(self) -> str:
        """What is short, in figures, as one sentence."""
        needed = self.weights + self.activations + self.overhead
        return (
            f"weights need {self.weights / GIB:.1f} GiB per GPU and {(needed - self.weights) / GIB:.1f} GiB go to "
            f"activations and overhead, GPU has {self.memory / GIB:.1f} GiB x {self.fraction:g} = "
            f"{self.budget / GIB:.1f} GiB"
        )


def weight_bytes(shape: ModelShape, *, dtype: str | None = None, tp: int = 1, pp: int = 1) -> int:
    """Bytes of weights on the fullest GPU; `dtype` overrides the checkpoint's."""
    layers = shape.layer_weights * DTYPE_BYTES[dtype or shape.weight_dtype]
    # Embedding and head sit on the first and the last stage; without a pipeline on the same one.
    ends = shape.embedding_weights if pp == 1 else shape.vocabulary * shape.hidden
    stage = -(-shape.layers // pp) / shape.layers
    return int((layers * stage + ends * DTYPE_BYTES["bf16"]) / tp)


def kv_bytes_per_token(shape: ModelShape, *, dtype: str = "bf16", tp: int = 1, pp: int = 1) -> int:
    """Bytes one token takes in one GPU's KV cache; heads are copied when tp exceeds them."""
    heads = -(-shape.kv_heads // tp)
    layers = -(-shape.layers // pp)
    return 2 * layers * heads * shape.head_dim * KV_BYTES[dtype]


def activation_bytes(shape: ModelShape, *, tokens: int, sequences: int, tp: int = 1) -> int:
    """Bytes of the largest set of tensors alive at once in one iteration."""
    experts = shape.experts_per_token * shape.moe_intermediate + shape.shared_intermediate
    widest = max(3 * shape.intermediate, 3 * experts, (shape.heads + 2 * shape.kv_heads) * shape.head_dim)
    per_token = 2 * (3 * shape.hidden + widest // tp)
    logits = 2 * 4 * shape.vocabulary * sequences // tp
    return tokens * per_token + logits


def plan(
    shape: ModelShape,
    gpu: Gpu,
    *,
    fraction: float,
    tp: int = 1,
    pp: int = 1,
    weight_dtype: str | None = None,
    kv_dtype: str = "bf16",
    max_batched_tokens: int = 8192,
    max_running_requests: int = 256,
) -> MemoryPlan:
    """Divide one GPU's memory as an engine does at start."""
    budget = int(gpu.memory * fraction)
    weights = weight_bytes(shape, dtype=weight_dtype, tp=tp, pp=pp)
    activations = activation_bytes(shape, tokens=max_batched_tokens, sequences=max_running_requests, tp=tp)
    overhead = CONTEXT_BYTES + (COLLECTIVE_BYTES if tp * pp > 1 else 0)
    per_token = kv_bytes_per_token(shape, dtype=kv_dtype, tp=tp, pp=pp)
    left = budget - weights - activations - overhead
    return MemoryPlan(
        memory=gpu.memory,
        fraction=fraction,
        budget=budget,
        weights=weights,
        activations=activations,
        overhead=overhead,
        kv_bytes_per_token=per_token,
        kv_tokens=max(0, left // per_token),
    )
