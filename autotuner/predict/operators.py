"""The work of one iteration on one GPU by operator, in roofline seconds.

Roofline seconds are operations over the data sheet's peak and bytes over its bandwidth; the fitted
constants say how much longer kernels take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from autotuner.predict.geometry import Attention
from autotuner.predict.hardware import GpuSpec
from autotuner.predict.layout import Dtypes, Layout
from autotuner.predict.shape import DTYPE_BYTES, ModelShape

TILE_ROWS = 64
"""Rows that a matrix multiplication is padded to, smoothly; kernels have tiles of 64 or 128.

Held-out models: TPOT off by 15.6% in the median, 16.8% with 32, 15.4% with 128 (benchmarks/predict/errors.py).
"""
KV_BYTES_PER_ELEMENT = {"bf16": 2.0, "fp8": 1.0}
EXPERT_DIVERSITY_POWER = 0.7
"""n tokens of one iteration pick as many different experts as n**0.7 tokens that pick independently.

Held-out models: TPOT off by 15.6% in the median, 16.7% with 0.6, 15.5% with 0.8, 16.0% with 1
(benchmarks/predict/errors.py).
"""
ONESHOT_BYTES = 2 * 2**20
"""Message from which an all-reduce goes around the ring; smaller ones are read from every GPU at once.

Chosen by hand; 1 and 8 MiB change medians of held-out models by 0.2 points (benchmarks/predict/errors.py).
"""


@dataclass(slots=True)
class Work:
    """Roofline seconds of each operator of one iteration, of arithmetic (`_compute`) and of memory (`_memory`).

    `_count` are numbers of collectives, `_transfer` seconds of their bytes on the link,
    `allreduce_oneshot` those of small all-reduces, which every GPU reads from all others;
    `idle_expert_memory` is that of experts no token is routed to. A fit stacks many of these into
    arrays, field by field.
    """

    attention_proj_compute: float
    attention_proj_memory: float
    mlp_compute: float
    mlp_memory: float
    expert_compute: float
    expert_memory: float
    head_compute: float
    head_memory: float
    prefill_attention: float
    prefill_mla: float
    decode_compute: float
    decode_memory: float
    state_compute: float
    state_memory: float
    elementwise: float
    permute: float
    allreduce_count: float
    allreduce_transfer: float
    allreduce_oneshot: float
    dispatch_count: float
    dispatch_transfer: float
    idle_expert_memory: float


class _ExpertSeconds(NamedTuple):
    """Roofline seconds of the experts of one kind of MoE layer, over all its layers, on one GPU.

    `per_row` is of arithmetic for one token in one expert, `per_read` of reading the weights of one expert.
    """

    experts: int
    active_experts: int
    per_row: float
    per_read: float


class _AttentionSeconds(NamedTuple):
    """Roofline seconds of one kind of attention, over all its layers, on one GPU.

    `per_entry` is of reading one KV cache entry, `per_prefill_pair` and `per_decode_pair` of arithmetic for one pair of
    a query and a key, `per_index` of scoring one key for sparse attention.
    """

    kind: Attention
    per_entry: float
    per_prefill_pair: float
    per_decode_pair: float
    per_index: float


class Operators:
    """Work of the iterations of one model on one layout; what all of them share is computed once, here."""

    def __init__(self, shape: ModelShape, gpu: GpuSpec, layout: Layout, dtypes: Dtypes) -> None:
        """Compute the roofline seconds on one GPU that are common to all iterations.

        `_compute` of matrices is per token and their `_memory` per iteration, the others per token or sequence; 2 are
        the operations of a multiply-add, or the bytes of a bf16 activation.
        """
        self.layout = layout
        tp, bandwidth = layout.tp, gpu.bandwidth
        peak, bf16 = gpu.peak_flops, gpu.peak_flops("bf16")
        attention_proj = shape.attention_proj_weights / tp
        mlp = sum(kind.layers * kind.weights for kind in shape.feed_forwards) / tp
        router = sum(kind.layers * kind.router_weights for kind in shape.feed_forwards)
        head = shape.vocab_size * shape.hidden_size / tp
        self._attention_proj_compute = 2 * attention_proj / peak(dtypes.attention_proj)
        self._attention_proj_memory = attention_proj * DTYPE_BYTES[dtypes.attention_proj] / bandwidth
        self._mlp_compute = 2 * mlp / peak(dtypes.mlp)
        self._mlp_memory = (mlp * DTYPE_BYTES[dtypes.mlp] + 2 * router) / bandwidth
        self._head_compute, self._head_memory = 2 * head / bf16, 2 * head / bandwidth
        self._experts = [
            _ExpertSeconds(
                kind.experts,
                kind.active_experts,
                kind.layers * 2 * kind.expert_weights / layout.gpus_per_stage / peak(dtypes.expert),
                kind.layers * kind.expert_weights * DTYPE_BYTES[dtypes.expert] / layout.gpus_per_stage / bandwidth,
            )
            for kind in shape.feed_forwards
            if kind.experts
        ]
        kv_bytes = KV_BYTES_PER_ELEMENT[dtypes.kv]
        self._attentions = [
            _AttentionSeconds(
                kind,
                kind.layers * kind.cache_elements * kv_bytes / min(tp, kind.kv_heads) / bandwidth,
                kind.layers * 2 * kind.heads * (kind.key_dim + kind.value_dim) / tp / bf16,
                kind.layers * 2 * kind.heads * kind.decode_dim / tp / bf16,
                kind.layers * kind.indexer_ops / peak("fp8"),
            )
            for kind in shape.attentions
            if kind.cache_elements
        ]
        recurrent = [kind for kind in shape.attentions if kind.state_elements]
        self._state_memory = sum(4 * kind.layers * kind.state_elements for kind in recurrent) / tp / bandwidth
        self._state_compute = sum(kind.layers * kind.scan_ops for kind in recurrent) / tp / bf16
        blocks = sum(kind.layers for kind in shape.attentions) + sum(kind.layers for kind in shape.feed_forwards)
        self._elementwise = 2 * shape.hidden_size * blocks / bandwidth
        widths = sum(kind.layers * kind.active_experts * kind.expert_hidden_size for kind in shape.feed_forwards)
        self._permute = 2 * widths * layout.dp / layout.ep_size / bandwidth
        # Tokens of all data-parallel replicas meet at the experts: gathered before, scattered after.
        self._dispatch_count = 2.0 * shape.moe_layers if layout.dp > 1 else 0.0
        self._allreduce_count = float(blocks - (shape.moe_layers if layout.dp > 1 else 0)) if tp > 1 else 0.0
        link = gpu.link_bandwidth(layout.gpus)
        self._allreduce_transfer = self._allreduce_count * 2 * shape.hidden_size * 2 * (tp - 1) / tp / link
        self._message_bytes, self._allreduce_oneshot = 2 * shape.hidden_size, self._allreduce_count * (tp - 1) / link
        self._dispatch_transfer = self._dispatch_count * 2 * shape.hidden_size / link
        if layout.pp > 1:
            self._allreduce_count += layout.pp - 1
            self._allreduce_transfer += (layout.pp - 1) * 2 * shape.hidden_size / link

    def decode_attention(self, decodes: float, context: float, queries: float = 1.0) -> tuple[float, float]:
        """Seconds of arithmetic and of memory of attention in decode, the only decode work that depends on context."""
        compute = memory = 0.0
        if decodes:
            for attention in self._attentions:
                entries = attention.kind.attended_entries(context)
                indexed_keys = context / attention.kind.stride
                query_seconds = entries * attention.per_decode_pair + indexed_keys * attention.per_index
                compute += decodes * queries * query_seconds
                memory += decodes * entries * attention.per_entry
        return compute, memory

    def work(
        self,
        prefill: Sequence[tuple[float, float]],
        decodes: float,
        context: float,
        *,
        other_replica_tokens: float | None = None,
        queries: float = 1.0,
    ) -> Work:
        """Work of one iteration of one replica: prompt chunks of (new, cached) tokens, and decoding sequences.

        `context` is the mean number of tokens behind each of the `decodes` sequences, `queries` the
        tokens that each verifies at once (1 without speculative decoding), `other_replica_tokens`
        the tokens of each other data-parallel replica in this iteration (None: as many as here).
        """
        tokens, sequences = decodes * queries, decodes + len(prefill)
        prefill_attention = prefill_mla = 0.0
        for new, _ in prefill:
            tokens += new
        decode_compute, decode_memory = self.decode_attention(decodes, context, queries)
        for attention in self._attentions:
            for new, cached in prefill:
                seconds = attention.kind.query_key_pairs(new, cached) * attention.per_prefill_pair
                seconds += new * (cached + new / 2) / attention.kind.stride * attention.per_index
                if attention.kind.is_latent:
                    prefill_mla += seconds
                else:
                    prefill_attention += seconds
        routed_tokens = tokens + (self.layout.dp - 1) * (
            tokens if other_replica_tokens is None else other_replica_tokens
        )
        message_bytes = tokens * self._message_bytes
        rows = (tokens * tokens + TILE_ROWS * TILE_ROWS) ** 0.5
        expert_compute = expert_memory = idle_expert_memory = 0.0
        for experts, active, per_row, per_read in self._experts:
            used = experts * (1 - (1 - active / experts) ** (routed_tokens**EXPERT_DIVERSITY_POWER))
            tokens_each = routed_tokens * active / used if used else 0.0
            expert_compute += used * (tokens_each * tokens_each + TILE_ROWS * TILE_ROWS) ** 0.5 * per_row
            expert_memory += used * per_read
            idle_expert_memory += (experts - used) * per_read
        return Work(
            attention_proj_compute=rows * self._attention_proj_compute,
            attention_proj_memory=self._attention_proj_memory,
            mlp_compute=rows * self._mlp_compute,
            mlp_memory=self._mlp_memory,
            expert_compute=expert_compute,
            expert_memory=expert_memory,
            head_compute=(sequences + TILE_ROWS) * self._head_compute,
            head_memory=self._head_memory,
            prefill_attention=prefill_attention,
            prefill_mla=prefill_mla,
            decode_compute=decode_compute,
            decode_memory=decode_memory,
            state_compute=tokens * self._state_compute,
            state_memory=sequences * self._state_memory,
            elementwise=tokens * self._elementwise,
            permute=tokens * self._permute,
            allreduce_count=self._allreduce_count,
            allreduce_transfer=tokens * self._allreduce_transfer,
            allreduce_oneshot=self._allreduce_oneshot * message_bytes / (1 + message_bytes / ONESHOT_BYTES),
            dispatch_count=self._dispatch_count,
            dispatch_transfer=routed_tokens * self._dispatch_transfer,
            idle_expert_memory=idle_expert_memory,
        )
