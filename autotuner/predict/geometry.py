"""Sizes of the attention and feed-forward layers of a decoder, by kind of layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attention:
    """One kind of attention or state-space layer and how many there are; counts are of elements, for one layer.

    A query attends to `key_dim` + `value_dim` elements per head and key in prefill; `decode_dim`
    is their sum in decode, larger where MLA attends to its latent cache directly. A cached token
    takes `cache_elements`, which divide over at most `kv_heads` GPUs; one entry is cached per
    `stride` tokens, at most `window` of them (0: all), and at most `sparse_top_k` are attended to
    (0: all), chosen by `indexer_ops` operations per query and key. A recurrent layer keeps
    `state_elements` per sequence, whatever its length, and does `scan_ops` per token on them.
    """

    layers: int
    weights: int
    heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    decode_dim: int = 0
    cache_elements: int = 0
    kv_heads: int = 1
    window: int = 0
    sparse_top_k: int = 0
    stride: int = 1
    indexer_ops: int = 0
    state_elements: int = 0
    scan_ops: int = 0
    is_latent: bool = False

    def cache_entries(self, tokens: float) -> float:
        """Cache entries of a sequence of this many tokens."""
        entries = tokens / self.stride
        return min(entries, self.window) if self.window else entries

    def attended_entries(self, tokens: float) -> float:
        """Cache entries that a query after this many tokens attends to."""
        entries = self.cache_entries(tokens)
        return min(entries, self.sparse_top_k) if self.sparse_top_k else entries

    def query_key_pairs(self, new_tokens: float, cached_tokens: float = 0.0) -> float:
        """Query-key pairs of a causal prefill of `new_tokens` behind `cached_tokens`."""
        end = cached_tokens + new_tokens
        limit = min(self.window or end, self.sparse_top_k * self.stride or end)
        if limit >= end:
            return new_tokens * (cached_tokens + (new_tokens + 1) / 2) / self.stride
        full = max(0.0, end - max(limit, cached_tokens))
        ramp = new_tokens - full
        return (ramp * (cached_tokens + (ramp + 1) / 2) + full * limit) / self.stride


@dataclass(frozen=True, slots=True)
class FeedForward:
    """One kind of feed-forward layer and how many there are; weights are of one layer.

    Every token passes through `weights` (a dense MLP, shared experts, projections around the
    experts) and `router_weights`, which are in bf16; each of `experts` has `expert_weights`, and a
    token passes through `active_experts` of them, with `expert_hidden_size` elements.
    """

    layers: int
    weights: int
    router_weights: int = 0
    experts: int = 0
    active_experts: int = 0
    expert_weights: int = 0
    expert_hidden_size: int = 0
