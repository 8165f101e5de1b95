"""The parts of a decoder that set its memory and its work, one layer of each kind."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attention:
    """One kind of token mixer and how many layers have it; counts are of elements, for one layer.

    A query attends to `key_dim` + `value_dim` elements per head and key, in the form that prefill
    computes; `decode_dim` is their sum in the form that decode computes (larger where a latent
    cache is attended to directly). `cache` elements are kept per cached token, dividing over at
    most `shards` GPUs; one entry is kept per `stride` tokens, at most `window` of them (0: all),
    and at most `selected` are attended to (0: all). `state` elements are kept per sequence,
    whatever its length, and `scan` operations are done per token on them. `index` operations per
    query and key choose the selected entries.
    """

    layers: int
    weights: int
    heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    decode_dim: int = 0
    cache: int = 0
    kv_heads: int = 1
    window: int = 0
    selected: int = 0
    stride: int = 1
    index: int = 0
    state_elements: int = 0
    scan_ops: int = 0
    is_latent: bool = False

    def cache_entries(self, tokens: float) -> float:
        """Cache entries of a sequence of so many tokens."""
        entries = tokens / self.stride
        return min(entries, self.window) if self.window else entries

    def attended_entries(self, tokens: float) -> float:
        """Cache entries a query attends to after so many tokens."""
        entries = self.cache_entries(tokens)
        return min(entries, self.selected) if self.selected else entries

    def query_key_pairs(self, new_tokens: float, cached_tokens: float = 0.0) -> float:
        """Query-key pairs of `new` tokens behind `cached` ones."""
        end = cached_tokens + new_tokens
        limit = min(self.window or end, self.selected * self.stride or end)
        if limit >= end:
            return new_tokens * (cached_tokens + (new_tokens + 1) / 2) / self.stride
        full = max(0.0, end - max(limit, cached_tokens))
        ramp = new_tokens - full
        return (ramp * (cached_tokens + (ramp + 1) / 2) + full * limit) / self.stride


@dataclass(frozen=True, slots=True)
class FeedForward:
    """One kind of feed-forward layer and how many there are; weights are of one layer.

    `weights` every token passes through (a dense MLP, shared experts, projections around the
    experts), `router` too, in bf16; each of `experts` has `expert_weights`, and a token passes
    through `active` of them, `width` wide on the way there.
    """

    layers: int
    weights: int
    router_weights: int = 0
    experts: int = 0
    active_experts: int = 0
    expert_weights: int = 0
    expert_hidden_size: int = 0
