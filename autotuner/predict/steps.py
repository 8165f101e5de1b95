"""Roofline time of one iteration: the slower of arithmetic and memory, by kind of work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from autotuner.predict.hardware import FAST_LINK, Gpu
from autotuner.predict.memory import KV_BYTES
from autotuner.predict.shape import DTYPE_BYTES, ModelShape

GRAPH_TOKENS = 512
"""Engines capture graphs for batches up to about this many tokens."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of the data sheet that kernels reach, and fixed times in seconds.

    The floors are per layer: launches bound it where there is little work; routing adds to it.
    """

    matmul: float = 0.65
    attention: float = 0.45
    weight_read: float = 0.80
    kv_read: float = 0.70
    link: float = 0.70
    layer_floor: float = 20e-6
    layer_floor_eager: float = 110e-6
    mixture_floor: float = 40e-6
    step_overhead: float = 600e-6
    fast_hop: float = 8e-6
    slow_hop: float = 25e-6


class StepParts(NamedTuple):
    """Where one iteration's time goes, in seconds."""

    layers: float
    head: float
    communication: float
    overhead: float

    @property
    def total(self) -> float:
        """Seconds of the whole iteration."""
        return self.layers + self.head + self.communication + self.overhead


class StepTimes:
    """Times of iterations of one model on `tp` x `pp` GPUs of one type.

    A pipeline's stages run one after the other: it adds memory and hops, no overlap between
    batches is modelled.
    """

    def __init__(
        self,
        shape: ModelShape,
        gpu: Gpu,
        *,
        tp: int = 1,
        pp: int = 1,
        weight_dtype: str | None = None,
        kv_dtype: str = "bf16",
        cuda_graph: bool = True,
        efficiency: Efficiency | None = None,
    ) -> None:
        by = efficiency or Efficiency()
        dtype = weight_dtype or shape.weight_dtype
        size = DTYPE_BYTES[dtype]
        bandwidth = gpu.bandwidth * by.weight_read * tp
        dense_layers = shape.layers - shape.moe_layers
        always = shape.layers * shape.attention_weights + dense_layers * shape.mlp_weights
        always += shape.moe_layers * shape.shared_weights
        expert = shape.moe_layers * shape.expert_weights

        self._experts = shape.experts
        self._idle_share = 1 - shape.experts_per_token / shape.experts if shape.experts else 0.0
        self._flop_time = 2 * (always + shape.experts_per_token * expert) / (gpu.peak(dtype) * by.matmul * tp)
        self._read_time = always * size / bandwidth
        self._expert_read_time = expert * size / bandwidth

        per_kv = 2 * shape.layers * max(shape.kv_heads, tp) * shape.head_dim * KV_BYTES[kv_dtype]
        self._kv_time = per_kv / (gpu.bandwidth * by.kv_read * tp)
        pair_flops = 4 * shape.layers * shape.heads * shape.head_dim
        self._pair_time = pair_flops / (gpu.peak("bf16") * by.attention * tp)

        head = shape.vocabulary * shape.hidden
        self._head_read_time = head * DTYPE_BYTES["bf16"] / bandwidth
        self._head_flop_time = 2 * head / (gpu.peak("bf16") * by.matmul * tp)

        link = gpu.link(tp * pp) * by.link
        hop = by.fast_hop if gpu.link(tp * pp) >= FAST_LINK else by.slow_hop
        reductions = 2 * shape.layers if tp > 1 else 0
        token_bytes = 2 * shape.hidden
        self._hop_time = reductions * hop + (pp - 1) * hop
        self._link_time = token_bytes * (reductions * 2 * (tp - 1) / tp + (pp - 1)) / link

        routing = shape.moe_layers * by.mixture_floor
        self._graph_floor = shape.layers * (by.layer_floor if cuda_graph else by.layer_floor_eager) + routing
        self._eager_floor = shape.layers * by.layer_floor_eager + routing
        self._overhead = by.step_overhead

    def parts(self, prefill: Sequence[tuple[int, int]], decodes: int = 0, decode_context: int = 0) -> StepParts:
        """Divide one iteration's time.

        `prefill` has (new tokens, tokens already in the cache) for each prompt chunk; `decodes`
        sequences produce one token each and have `decode_context` tokens in the cache, all
        together.
        """
        tokens, sequences = decodes, decodes
        attention = decode_context * self._kv_time
        for new, cached in prefill:
            tokens += new
            sequences += 1
            pairs = new * cached + new * (new + 1) / 2
            attention += max(pairs * self._pair_time, (new + cached) * self._kv_time)
        read = self._read_time
        if self._experts:
            read += self._expert_read_time * self._experts * (1 - self._idle_share**tokens)
        work = max(tokens * self._flop_time, read) + attention + tokens * self._kv_time
        floor = self._graph_floor if tokens <= GRAPH_TOKENS else self._eager_floor
        head = max(sequences * self._head_flop_time, self._head_read_time)
        return StepParts(max(work, floor), head, self._hop_time + tokens * self._link_time, self._overhead)

    def step(self, prefill: Sequence[tuple[int, int]], decodes: int = 0, decode_context: int = 0) -> float:
        """Seconds of one iteration; arguments as for `parts`."""
        return sum(self.parts(prefill, decodes, decode_context))
