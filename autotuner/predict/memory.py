"""How a GPU's memory divides into weights, activations, overhead and KV cache."""

from __future__ import annotations

from dataclasses import dataclass

from autotuner.predict.hardware import GpuSpec
from autotuner.predict.layout import Dtypes, Layout, resolve_dtypes
from autotuner.predict.quantization import BF16, MXFP4, WeightFormat, WeightFormats
from autotuner.predict.shape import DTYPE_BITS, DTYPE_BYTES, ModelShape, stored_bytes

GIB = 2**30
CONTEXT_BYTES = int(0.9 * GIB)
"""CUDA context, kernels and captured graphs; engines log 0.7 to 1.3 GiB."""
COLLECTIVE_BYTES = int(0.4 * GIB)
"""NCCL buffers, where there is more than one GPU; chosen by hand."""
DEFAULT_RUNNING_REQUESTS = 256
"""vLLM's default max_num_seqs, for which an engine profiles its logits at start."""
KV_BYTES_PER_ELEMENT = {"bf16": 2, "fp8": 1}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """One GPU's memory in bytes, and the size of the KV cache in tokens.

    `budget` is memory x fraction. `kv_tokens` is 0 where nothing remains for the KV cache.
    `kv_bytes_per_token` is what one more token takes once every sliding window is full,
    `kv_bytes_per_sequence` what a sequence takes besides: windows and recurrent states.
    """

    memory: int
    fraction: float
    budget: int
    weights: int
    activations: int
    overhead: int
    kv_bytes_per_token: int
    kv_tokens: int
    kv_bytes_per_sequence: int = 0

    @property
    def fits(self) -> bool:
        return self.kv_tokens > 0

    @property
    def kv_pool(self) -> int:
        """Bytes of the KV cache, negative where the rest exceeds the budget."""
        return self.budget - self.weights - self.activations - self.overhead

    def sequence_capacity(self, tokens: float) -> float:
        """How many sequences of this many tokens the KV cache holds."""
        sequence_bytes = self.kv_bytes_per_sequence + tokens * self.kv_bytes_per_token
        return max(0.0, self.kv_pool / sequence_bytes) if sequence_bytes else float("inf")

    @property
    def shortage(self) -> str:
        """One sentence with the figures that exceed the budget."""
        needed = self.weights + self.activations + self.overhead
        return (
            f"weights need {self.weights / GIB:.1f} GiB per GPU and {(needed - self.weights) / GIB:.1f} GiB go to "
            f"activations and overhead, GPU has {self.memory / GIB:.1f} GiB x {self.fraction:g} = "
            f"{self.budget / GIB:.1f} GiB"
        )


def weight_bytes(
    shape: ModelShape,
    *,
    dtype: str | None = None,
    tp: int = 1,
    pp: int = 1,
    dtypes: Dtypes | None = None,
    layout: Layout | None = None,
) -> int:
    """Bytes of weights on the fullest GPU; `dtype` overrides the checkpoint's, `dtypes` each kind's."""
    layout = layout or Layout(tp=tp, pp=pp)
    if dtypes is None:
        dtypes = Dtypes(
            dtype or shape.weight_dtype, dtype or shape.expert_dtype, dtype or shape.attention_dtype, "bf16"
        )
    formats = shape.formats or WeightFormats()
    # A type other than the checkpoint's has its usual size: the engine quantises when it loads the model.
    is_stored = holds_stored_weights(shape, dtypes)
    projections = shape.attention_proj_weights * _weight_size(formats.attention, dtypes.attention_proj)
    dense = projections + shape.mlp_weights * _weight_size(formats.mlp, dtypes.mlp)
    experts = shape.expert_weights * _weight_size(formats.expert, dtypes.expert)
    # Embedding and head sit on the first and the last stage; without a pipeline on the same one.
    embeddings = shape.embedding_weights if layout.pp == 1 else shape.vocab_size * shape.hidden_size
    stage = -(-shape.layers // layout.pp) / shape.layers
    embedding_bytes = embeddings * DTYPE_BYTES["bf16"]
    if is_stored and formats.head.size != DTYPE_BYTES["bf16"] and not shape.tied_embeddings:
        embedding_bytes -= shape.vocab_size * shape.hidden_size * (DTYPE_BYTES["bf16"] - formats.head.size)
    scale = shape.stored_scale if is_stored else 1.0
    return int(((dense * stage + embedding_bytes) / layout.tp + experts * stage / layout.gpus_per_stage) * scale)


def holds_stored_weights(shape: ModelShape, dtypes: Dtypes) -> bool:
    """Whether these are the types of the checkpoint's own weights."""
    return (dtypes.mlp, dtypes.expert, dtypes.attention_proj) == (
        shape.weight_dtype,
        shape.expert_dtype,
        shape.attention_dtype,
    )


def _weight_size(stored: WeightFormat, dtype: str) -> float:
    """Bytes of a weight in this type: as the checkpoint has them where it is in it.

    Engines pad the experts of MXFP4: vLLM logs 65.97 GiB for gpt-oss-120b, whose files have 60.8.
    """
    if stored.dtype != dtype:
        return DTYPE_BYTES[dtype]
    return max(stored.size, DTYPE_BYTES["fp4"]) if stored is MXFP4 else stored.size


def weights_text(shape: ModelShape, dtypes: Dtypes, override: str = "") -> str:
    """Bits of the weights, where they were read, and the size of their files: `4 bit (config_groups), 36.8 GiB`.

    `override` names what replaces the checkpoint's types, such as `--dtype fp8`.
    """
    kinds = {
        "attention": (dtypes.attention_proj, shape.formats.attention if shape.formats else BF16),
        "MLP": (dtypes.mlp, shape.formats.mlp if shape.formats else BF16),
        "experts": (dtypes.expert, shape.formats.expert if shape.formats else BF16),
    }
    has = {"attention": shape.attention_proj_weights, "MLP": shape.mlp_weights, "experts": shape.expert_weights}
    bits = {
        name: stored.bits if stored.dtype == dtype else DTYPE_BITS[dtype]
        for name, (dtype, stored) in kinds.items()
        if has[name]
    }
    text = f"{next(iter(bits.values()))} bit"
    if len(set(bits.values())) > 1:
        text = ", ".join(f"{name} {count}" for name, count in bits.items()) + " bit"
    source = override or (shape.formats.source if shape.formats else "")
    size = (stored_bytes(shape) if holds_stored_weights(shape, dtypes) else weight_bytes(shape, dtypes=dtypes)) / GIB
    return f"{text} ({source}), {size:.1f} GiB"


def kv_bytes_per_token(shape: ModelShape, *, dtype: str = "bf16", tp: int = 1, pp: int = 1) -> int:
    """Bytes one token takes in one GPU's KV cache; KV heads are replicated where tp exceeds their number."""
    stage = -(-shape.layers // pp) / shape.layers
    elements = sum(
        kind.layers * _elements_per_gpu(kind.cache_elements, kind.kv_heads, tp) / kind.stride
        for kind in shape.attentions
        if kind.cache_elements and not kind.window
    )
    return int(elements * stage * KV_BYTES_PER_ELEMENT[dtype])


def kv_bytes_per_sequence(shape: ModelShape, *, dtype: str = "bf16", tp: int = 1, pp: int = 1) -> int:
    """Bytes one GPU keeps for a sequence whatever its length: full sliding windows and recurrent states."""
    stage, kv_bytes = -(-shape.layers // pp) / shape.layers, KV_BYTES_PER_ELEMENT[dtype]
    windows = sum(
        kind.layers * _elements_per_gpu(kind.cache_elements, kind.kv_heads, tp) * kind.window * kv_bytes
        for kind in shape.attentions
        if kind.window
    )
    states = sum(kind.layers * kind.state_elements * 2 / tp for kind in shape.attentions)
    return int((windows + states) * stage)


def _elements_per_gpu(elements: int, kv_heads: int, tp: int) -> int:
    """Elements of a cache entry on one of `tp` GPUs; a KV head is never divided."""
    return elements // kv_heads * -(-kv_heads // tp)


def activation_bytes(shape: ModelShape, *, tokens: int, sequences: int, tp: int = 1) -> int:
    """Bytes of the largest set of tensors alive at once in one iteration of `tokens`, with logits of `sequences`."""
    # Elements per token of the widest layer: a weight matrix over its input size leaves its output size.
    mlp = max((kind.weights // max(1, shape.hidden_size) for kind in shape.feed_forwards), default=0)
    experts = max(
        (
            kind.active_experts * kind.expert_weights // max(1, kind.expert_hidden_size)
            for kind in shape.feed_forwards
            if kind.experts
        ),
        default=0,
    )
    projections = max(kind.heads * (kind.key_dim + kind.value_dim) // 2 for kind in shape.attentions)
    projections += 2 * shape.kv_heads * shape.head_dim
    # Activations are bf16, logits two float32 copies.
    bytes_per_token = 2 * (3 * shape.hidden_size + max(mlp, experts, projections) // tp)
    logits_bytes = 2 * 4 * shape.vocab_size * sequences // tp
    return tokens * bytes_per_token + logits_bytes


def plan_memory(
    shape: ModelShape,
    gpu: GpuSpec,
    *,
    fraction: float,
    tp: int = 1,
    pp: int = 1,
    weight_dtype: str | None = None,
    kv_dtype: str = "bf16",
    max_batched_tokens: int = 8192,
    max_running_requests: int = DEFAULT_RUNNING_REQUESTS,
    dtypes: Dtypes | None = None,
    layout: Layout | None = None,
) -> MemoryPlan:
    """Divide one GPU's memory as an engine does at start.

    `layout` and `dtypes`, where given, replace `tp`, `pp`, `weight_dtype` and `kv_dtype`.
    """
    layout = layout or Layout(tp=tp, pp=pp)
    dtypes = dtypes or resolve_dtypes(shape, gemm_dtype=weight_dtype, kv_dtype=kv_dtype)
    budget = int(gpu.memory * fraction)
    weights = weight_bytes(shape, dtypes=dtypes, layout=layout)
    activations = activation_bytes(shape, tokens=max_batched_tokens, sequences=max_running_requests, tp=layout.tp)
    overhead = CONTEXT_BYTES + (COLLECTIVE_BYTES if layout.gpus > 1 else 0)
    per_token = kv_bytes_per_token(shape, dtype=dtypes.kv, tp=layout.tp, pp=layout.pp)
    per_sequence = kv_bytes_per_sequence(shape, dtype=dtypes.kv, tp=layout.tp, pp=layout.pp)
    kv_pool = budget - weights - activations - overhead
    return MemoryPlan(
        memory=gpu.memory,
        fraction=fraction,
        budget=budget,
        weights=weights,
        activations=activations,
        overhead=overhead,
        kv_bytes_per_token=per_token,
        kv_tokens=max(0, kv_pool // per_token) if per_token else max(0, kv_pool),
        kv_bytes_per_sequence=per_sequence,
    )
