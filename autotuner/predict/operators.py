"""The work of one iteration on one GPU, operator by operator, in ideal seconds.

Ideal seconds are operations over the data sheet's rate and bytes over its bandwidth; what a
kernel reaches of them is a matter of the fitted constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.predict.hardware import GpuSpec
from autotuner.predict.layout import Dtypes, Layout
from autotuner.predict.shape import DTYPE_BYTES, ModelShape

TILE_ROWS = 64
"""Rows a matrix multiplication is padded to."""
KV_BYTES_PER_ELEMENT = {"bf16": 2.0, "fp8": 1.0}
EXPERT_DIVERSITY_POWER = 0.7
"""Tokens of one iteration pick experts like this power of as many tokens that pick them independently."""
ONESHOT_BYTES = 2 * 2**20
"""Message from which a reduction goes around the ring; smaller ones are read from every GPU at once."""


@dataclass(slots=True)
class Work:
    """Ideal seconds of each operator of one iteration: arithmetic (`_c`) and memory (`_m`).

    `reductions` and `dispatches` count collectives, `reduced` and `dispatched` are seconds of
    their bytes on the link, `oneshot` those of small reductions, which every GPU reads from all
    others; `idle_m` is the memory of experts that no token picked. A fit stacks many of these
    into arrays, field by field.
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


class Operators:
    """Work of any iteration of one model on one layout; building it does what is common."""

    def __init__(self, shape: ModelShape, gpu: GpuSpec, layout: Layout, dtypes: Dtypes) -> None:
        self.layout = layout
        tp, bandwidth = layout.tp, gpu.bandwidth
        peak, bf16 = gpu.peak_flops, gpu.peak_flops("bf16")
        mixer = shape.attention_proj_weights / tp
        dense = sum(kind.layers * kind.weights for kind in shape.feed_forwards) / tp
        router = sum(kind.layers * kind.router_weights for kind in shape.feed_forwards)
        head = shape.vocab_size * shape.hidden_size / tp
        self._attention_proj_compute, self._attention_proj_memory = (
            2 * mixer / peak(dtypes.attention_proj),
            mixer * DTYPE_BYTES[dtypes.attention_proj] / bandwidth,
        )
        self._mlp_compute = 2 * dense / peak(dtypes.mlp)
        self._mlp_memory = (dense * DTYPE_BYTES[dtypes.mlp] + 2 * router) / bandwidth
        self._head_compute, self._head_memory = 2 * head / bf16, 2 * head / bandwidth
        self._experts = [
            (
                kind.experts,
                kind.active_experts,
                kind.layers * 2 * kind.expert_weights / layout.gpus_per_stage / peak(dtypes.expert),
                kind.layers * kind.expert_weights * DTYPE_BYTES[dtypes.expert] / layout.gpus_per_stage / bandwidth,
            )
            for kind in shape.feed_forwards
            if kind.experts
        ]
        self._attentions = [
            (
                kind,
                kind.layers * kind.cache * KV_BYTES_PER_ELEMENT[dtypes.kv] / min(tp, kind.kv_heads) / bandwidth,
                kind.layers * 2 * kind.heads * (kind.key_dim + kind.value_dim) / tp / bf16,
                kind.layers * 2 * kind.heads * kind.decode_dim / tp / bf16,
                kind.layers * kind.index / peak("fp8"),
            )
            for kind in shape.attentions
            if kind.cache
        ]
        states = [kind for kind in shape.attentions if kind.state_elements]
        self._state_memory = sum(4 * kind.layers * kind.state_elements for kind in states) / tp / bandwidth
        self._state_compute = sum(kind.layers * kind.scan_ops for kind in states) / tp / bf16
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
        """Seconds of arithmetic and of memory that decodes attend with: all of their work that depends on context."""
        compute = memory = 0.0
        if decodes:
            for kind, read, _, pair, index in self._attentions:
                attended = kind.attended_entries(context)
                compute += decodes * queries * (attended * pair + context / kind.stride * index)
                memory += decodes * attended * read
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
        """Work of one iteration of one replica: prompt chunks of (new, cached) tokens, and decodes.

        `context` is the mean number of tokens behind each of the `decodes` sequences, `others`
        the tokens that each other data-parallel replica has in this iteration (None: as many),
        `queries` the tokens a decoding sequence verifies at once.
        """
        tokens, sequences = decodes * queries, decodes + len(prefill)
        latent = plain = 0.0
        for new, _ in prefill:
            tokens += new
        decode_c, decode_m = self.decode_attention(decodes, context, queries)
        for kind, _, pair, _, index in self._attentions:
            for new, cached in prefill:
                seconds = kind.query_key_pairs(new, cached) * pair + new * (cached + new / 2) / kind.stride * index
                if kind.is_latent:
                    latent += seconds
                else:
                    plain += seconds
        routed = tokens + (self.layout.dp - 1) * (tokens if other_replica_tokens is None else other_replica_tokens)
        message = tokens * self._message_bytes
        rows = (tokens * tokens + TILE_ROWS * TILE_ROWS) ** 0.5
        expert_c = expert_m = idle_m = 0.0
        for experts, active, flops, read in self._experts:
            touched = experts * (1 - (1 - active / experts) ** (routed**EXPERT_DIVERSITY_POWER))
            each = routed * active / touched if touched else 0.0
            expert_c += touched * (each * each + TILE_ROWS * TILE_ROWS) ** 0.5 * flops
            expert_m += touched * read
            idle_m += (experts - touched) * read
        return Work(
            attention_proj_compute=rows * self._attention_proj_compute,
            attention_proj_memory=self._attention_proj_memory,
            mlp_compute=rows * self._mlp_compute,
            mlp_memory=self._mlp_memory,
            expert_compute=expert_c,
            expert_memory=expert_m,
            head_compute=(sequences + TILE_ROWS) * self._head_compute,
            head_memory=self._head_memory,
            prefill_attention=plain,
            prefill_mla=latent,
            decode_compute=decode_c,
            decode_memory=decode_m,
            state_compute=tokens * self._state_compute,
            state_memory=sequences * self._state_memory,
            elementwise=tokens * self._elementwise,
            permute=tokens * self._permute,
            allreduce_count=self._allreduce_count,
            allreduce_transfer=tokens * self._allreduce_transfer,
            allreduce_oneshot=self._allreduce_oneshot * message / (1 + message / ONESHOT_BYTES),
            dispatch_count=self._dispatch_count,
            dispatch_transfer=routed * self._dispatch_transfer,
            idle_expert_memory=idle_m,
        )
