"""The work of one iteration on one GPU, operator by operator, in ideal seconds.

Ideal seconds are operations over the data sheet's rate and bytes over its bandwidth; what a
kernel reaches of them is a matter of the fitted constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.predict.hardware import Gpu
from autotuner.predict.layout import Dtypes, Layout
from autotuner.predict.shape import DTYPE_BYTES, ModelShape

TILE = 64
"""Rows a matrix multiplication is padded to."""
KV_BYTES = {"bf16": 2.0, "fp8": 1.0}
DIVERSITY = 0.7
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

    mixer_c: float
    mixer_m: float
    dense_c: float
    dense_m: float
    expert_c: float
    expert_m: float
    head_c: float
    head_m: float
    context: float
    latent: float
    decode_c: float
    decode_m: float
    state_c: float
    state_m: float
    elementwise: float
    permute: float
    reductions: float
    reduced: float
    oneshot: float
    dispatches: float
    dispatched: float
    idle_m: float


class Operators:
    """Work of any iteration of one model on one layout; building it does what is common."""

    def __init__(self, shape: ModelShape, gpu: Gpu, layout: Layout, dtypes: Dtypes) -> None:
        self.layout = layout
        tp, bandwidth = layout.tp, gpu.bandwidth
        peak, bf16 = gpu.peak, gpu.peak("bf16")
        mixer = shape.mixer_weights / tp
        dense = sum(kind.layers * kind.weights for kind in shape.feeds) / tp
        router = sum(kind.layers * kind.router for kind in shape.feeds)
        head = shape.vocabulary * shape.hidden / tp
        self._mixer_c, self._mixer_m = 2 * mixer / peak(dtypes.mixer), mixer * DTYPE_BYTES[dtypes.mixer] / bandwidth
        self._dense_c = 2 * dense / peak(dtypes.dense)
        self._dense_m = (dense * DTYPE_BYTES[dtypes.dense] + 2 * router) / bandwidth
        self._head_c, self._head_m = 2 * head / bf16, 2 * head / bandwidth
        self._experts = [
            (
                kind.experts,
                kind.active,
                kind.layers * 2 * kind.expert_weights / layout.ranks / peak(dtypes.expert),
                kind.layers * kind.expert_weights * DTYPE_BYTES[dtypes.expert] / layout.ranks / bandwidth,
            )
            for kind in shape.feeds
            if kind.experts
        ]
        self._attentions = [
            (
                kind,
                kind.layers * kind.cache * KV_BYTES[dtypes.kv] / min(tp, kind.shards) / bandwidth,
                kind.layers * 2 * kind.heads * (kind.key_dim + kind.value_dim) / tp / bf16,
                kind.layers * 2 * kind.heads * kind.decode_dim / tp / bf16,
                kind.layers * kind.index / peak("fp8"),
            )
            for kind in shape.attentions
            if kind.cache
        ]
        states = [kind for kind in shape.attentions if kind.state]
        self._state_m = sum(4 * kind.layers * kind.state for kind in states) / tp / bandwidth
        self._state_c = sum(kind.layers * kind.scan for kind in states) / tp / bf16
        blocks = sum(kind.layers for kind in shape.attentions) + sum(kind.layers for kind in shape.feeds)
        self._elementwise = 2 * shape.hidden * blocks / bandwidth
        widths = sum(kind.layers * kind.active * kind.width for kind in shape.feeds)
        self._permute = 2 * widths * layout.dp / layout.expert_groups / bandwidth
        # Tokens of all data-parallel replicas meet at the experts: gathered before, scattered after.
        self._dispatches = 2.0 * shape.moe_layers if layout.dp > 1 else 0.0
        self._reductions = float(blocks - (shape.moe_layers if layout.dp > 1 else 0)) if tp > 1 else 0.0
        link = gpu.link(layout.gpus)
        self._reduced = self._reductions * 2 * shape.hidden * 2 * (tp - 1) / tp / link
        self._message, self._oneshot = 2 * shape.hidden, self._reductions * (tp - 1) / link
        self._dispatched = self._dispatches * 2 * shape.hidden / link
        if layout.pp > 1:
            self._reductions += layout.pp - 1
            self._reduced += (layout.pp - 1) * 2 * shape.hidden / link

    def decode_attention(self, decodes: float, context: float, queries: float = 1.0) -> tuple[float, float]:
        """Seconds of arithmetic and of memory that decodes attend with: all of their work that depends on context."""
        compute = memory = 0.0
        if decodes:
            for kind, read, _, pair, index in self._attentions:
                attended = kind.attended(context)
                compute += decodes * queries * (attended * pair + context / kind.stride * index)
                memory += decodes * attended * read
        return compute, memory

    def work(
        self,
        prefill: Sequence[tuple[float, float]],
        decodes: float,
        context: float,
        *,
        others: float | None = None,
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
                seconds = kind.pairs(new, cached) * pair + new * (cached + new / 2) / kind.stride * index
                if kind.latent:
                    latent += seconds
                else:
                    plain += seconds
        routed = tokens + (self.layout.dp - 1) * (tokens if others is None else others)
        message = tokens * self._message
        rows = (tokens * tokens + TILE * TILE) ** 0.5
        expert_c = expert_m = idle_m = 0.0
        for experts, active, flops, read in self._experts:
            touched = experts * (1 - (1 - active / experts) ** (routed**DIVERSITY))
            each = routed * active / touched if touched else 0.0
            expert_c += touched * (each * each + TILE * TILE) ** 0.5 * flops
            expert_m += touched * read
            idle_m += (experts - touched) * read
        return Work(
            mixer_c=rows * self._mixer_c,
            mixer_m=self._mixer_m,
            dense_c=rows * self._dense_c,
            dense_m=self._dense_m,
            expert_c=expert_c,
            expert_m=expert_m,
            head_c=(sequences + TILE) * self._head_c,
            head_m=self._head_m,
            context=plain,
            latent=latent,
            decode_c=decode_c,
            decode_m=decode_m,
            state_c=tokens * self._state_c,
            state_m=sequences * self._state_m,
            elementwise=tokens * self._elementwise,
            permute=tokens * self._permute,
            reductions=self._reductions,
            reduced=tokens * self._reduced,
            oneshot=self._oneshot * message / (1 + message / ONESHOT_BYTES),
            dispatches=self._dispatches,
            dispatched=routed * self._dispatched,
            idle_m=idle_m,
        )
