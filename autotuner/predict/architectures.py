"""Attention and feed-forward layers from the fields of a config.json, by architecture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autotuner.errors import ConfigError, unknown_name_message
from autotuner.predict.geometry import Attention, FeedForward

Config = Mapping[str, Any]
Layers = tuple[list[Attention], list[FeedForward]]
REQUIRED_FIELDS = ("hidden_size", "num_attention_heads", "vocab_size", "max_position_embeddings")
STATE_SIZE_RATIO = 2
"""Bytes of a recurrent state's fp32 elements over the two that counts of elements stand for."""


def grouped_attention(
    hidden_size: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    *,
    value_dim: int = 0,
    window: int = 0,
    output_gate: bool = False,
    shared_kv: bool = False,
    sparse_top_k: int = 0,
    indexer_ops: int = 0,
    indexer_key_dim: int = 0,
) -> Attention:
    """Grouped-query attention, full, over a sliding window, or sparse with an indexer."""
    value = value_dim or head_dim
    queries_and_output = heads * (head_dim + value + (head_dim if output_gate else 0))
    keys_and_values = kv_heads * (head_dim if shared_kv else head_dim + value)
    return Attention(
        layers=1,
        weights=hidden_size * (queries_and_output + keys_and_values + indexer_key_dim),
        heads=heads,
        key_dim=head_dim,
        value_dim=value,
        decode_dim=head_dim + value,
        cache_elements=kv_heads * (head_dim + value) + indexer_key_dim,
        kv_heads=kv_heads,
        window=window,
        sparse_top_k=sparse_top_k,
        indexer_ops=indexer_ops,
    )


def latent_attention(config: Config, *, has_indexer: bool = False) -> Attention:
    """Multi-head latent attention (MLA), with an indexer where it is sparse, as in DeepSeek-V3.2."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    queries, rank, rope = config.get("q_lora_rank"), config["kv_lora_rank"], config["qk_rope_head_dim"]
    nope, value = config["qk_nope_head_dim"], config["v_head_dim"]
    query = hidden * queries + queries * heads * (nope + rope) if queries else hidden * heads * (nope + rope)
    weights = query + hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden
    if config.get("mla_use_output_gate"):
        weights += hidden * heads * value
    index_heads, index_dim = config.get("index_n_heads") or 0, config.get("index_head_dim") or 0
    if has_indexer:
        weights += (queries or hidden) * index_heads * index_dim + hidden * (index_dim + index_heads)
    return Attention(
        layers=1,
        weights=weights,
        heads=heads,
        key_dim=nope + rope,
        value_dim=value,
        decode_dim=2 * rank + rope,
        cache_elements=rank + rope + (index_dim // 2 if has_indexer else 0),
        sparse_top_k=config["index_topk"] if has_indexer else 0,
        indexer_ops=2 * index_heads * index_dim if has_indexer else 0,
        is_latent=True,
    )


def gated_delta_net(
    hidden_size: int, key_heads: int, value_heads: int, key_dim: int, value_dim: int, conv_kernel: int
) -> Attention:
    """Gated delta-rule linear attention: a state matrix per value head instead of a KV cache."""
    channels = 2 * key_heads * key_dim + value_heads * value_dim
    return Attention(
        layers=1,
        weights=hidden_size * (channels + 2 * value_heads * value_dim + 2 * value_heads) + conv_kernel * channels,
        state_elements=STATE_SIZE_RATIO * value_heads * key_dim * value_dim + (conv_kernel - 1) * channels,
        scan_ops=8 * value_heads * key_dim * value_dim,
    )


def mamba2(config: Config) -> Attention:
    """A Mamba-2 state-space layer."""
    hidden, heads, dim = config["hidden_size"], config["mamba_num_heads"], config["mamba_head_dim"]
    inner, groups, state = heads * dim, config["n_groups"], config["ssm_state_size"]
    channels = inner + 2 * groups * state
    return Attention(
        layers=1,
        weights=hidden * (inner + channels + heads) + config["conv_kernel"] * channels + inner * hidden,
        state_elements=STATE_SIZE_RATIO * inner * state + (config["conv_kernel"] - 1) * channels,
        scan_ops=6 * inner * state,
    )


def mlp(hidden_size: int, intermediate_size: int, matrices: int = 3) -> FeedForward:
    """A dense feed_forward-forward layer of `matrices` weight matrices: 3 with a gate, 2 without."""
    return FeedForward(layers=1, weights=matrices * hidden_size * intermediate_size)


def mixture_of_experts(
    hidden_size: int,
    experts: int,
    active_experts: int,
    expert_size: int,
    *,
    shared_size: int = 0,
    matrices: int = 3,
    expert_hidden_size: int = 0,
) -> FeedForward:
    """Routed experts, a shared expert of `shared_size`, and projections to `expert_hidden_size` around the experts."""
    inner = expert_hidden_size or hidden_size
    around = 2 * hidden_size * inner if expert_hidden_size else 0
    return FeedForward(
        layers=1,
        weights=matrices * hidden_size * shared_size + around,
        router_weights=hidden_size * experts,
        experts=experts,
        active_experts=active_experts,
        expert_weights=matrices * inner * expert_size,
        expert_hidden_size=inner,
    )


def _grouped_from_config(config: Config, **options: Any) -> Attention:
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    return grouped_attention(
        hidden,
        heads,
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or hidden // heads,
        **options,
    )


def _dense_decoder(config: Config, name: str) -> Layers:
    require_fields(config, ("num_hidden_layers", "intermediate_size"), name)
    layers = config["num_hidden_layers"]
    window = config.get("sliding_window") or 0
    if not config.get("use_sliding_window", True) or window >= config["max_position_embeddings"]:
        window = 0
    kinds = config.get("layer_types") or ["sliding_attention" if window else "full_attention"] * layers
    attentions = [_grouped_from_config(config, window=window if kind == "sliding_attention" else 0) for kind in kinds]
    return attentions, [mlp(config["hidden_size"], config["intermediate_size"])] * layers


def _moe_from_config(config: Config, name: str) -> FeedForward:
    """The mixture-of-experts layer, whose sizes have different names in the configs of different models."""
    experts = first_field(config, ("num_experts", "num_local_experts", "n_routed_experts"), name)
    active = first_field(
        config, ("num_experts_per_tok", "experts_per_token", "top_k_experts", "num_experts_per_token"), name
    )
    sizes = ("moe_intermediate_size", "intermediate_size")
    if str(config["architectures"][0]).startswith("Qwen"):
        sizes = ("moe_intermediate_size",) * 2
    size = first_field(config, sizes, name)
    count = config.get("n_shared_experts") or config.get("num_shared_experts") or 0
    shared = config.get("shared_expert_intermediate_size") or config.get("moe_shared_expert_intermediate_size")
    shared = shared or config.get("share_expert_dim") or count * size
    return mixture_of_experts(config["hidden_size"], experts, active, size, shared_size=shared)


def feed_forwards_from_config(config: Config, name: str) -> list[FeedForward]:
    """Mixture-of-experts layers, with dense ones where the config puts them."""
    layers, moe = config["num_hidden_layers"], _moe_from_config(config, name)
    every, only = config.get("decoder_sparse_step") or 1, set(config.get("mlp_only_layers") or ())
    first_dense, frequency = config.get("first_k_dense_replace") or 0, config.get("moe_layer_freq")
    pattern = frequency if isinstance(frequency, list) else None
    size = config.get("dense_intermediate_size") or config.get("intermediate_size") or 0
    feed_forwards = []
    for layer in range(layers):
        routed = layer >= first_dense and (layer + 1) % every == 0 and layer not in only
        if pattern is not None:
            routed = bool(pattern[layer])
        feed_forwards.append(moe if routed else mlp(config["hidden_size"], size))
    return feed_forwards


def _moe_decoder(config: Config, name: str) -> Layers:
    require_fields(config, ("num_hidden_layers",), name)
    window, layers = config.get("sliding_window") or 0, config["num_hidden_layers"]
    kinds = config.get("layer_types") or ["full_attention"] * layers
    attentions = [_grouped_from_config(config, window=window if kind == "sliding_attention" else 0) for kind in kinds]
    return attentions, feed_forwards_from_config(config, name)


def _mla_decoder(config: Config, name: str) -> Layers:
    """Multi-head latent attention, with sparse attention (an indexer picks keys) where the config has `index_topk`.

    Layers whose indexer type is not "full" reuse the keys picked by an earlier one: no indexer to compute or store.
    """
    needed = ("num_hidden_layers", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    require_fields(config, needed, name)
    sparse = bool(config.get("index_topk"))
    kinds = config.get("indexer_types") or ["full"] * config["num_hidden_layers"]
    indexed, reused = latent_attention(config, has_indexer=sparse), latent_attention(config, has_indexer=sparse)
    reused = replace(
        reused,
        indexer_ops=0,
        weights=latent_attention(config).weights,
        cache_elements=latent_attention(config).cache_elements,
    )
    return [indexed if kind == "full" else reused for kind in kinds], feed_forwards_from_config(config, name)


def _qwen_hybrid(config: Config, name: str) -> Layers:
    needed = ("num_hidden_layers", "linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim")
    require_fields(config, (*needed, "linear_value_head_dim", "linear_conv_kernel_dim", "num_key_value_heads"), name)
    linear = gated_delta_net(
        config["hidden_size"],
        config["linear_num_key_heads"],
        config["linear_num_value_heads"],
        config["linear_key_head_dim"],
        config["linear_value_head_dim"],
        config["linear_conv_kernel_dim"],
    )
    full = _grouped_from_config(config, output_gate=bool(config.get("attn_output_gate", True)))
    layers, every = config["num_hidden_layers"], config.get("full_attention_interval") or 4
    kinds = config.get("layer_types") or [
        "full_attention" if (n + 1) % every == 0 else "linear_attention" for n in range(layers)
    ]
    attentions = [full if kind == "full_attention" else linear for kind in kinds]
    if config.get("num_experts"):
        return attentions, feed_forwards_from_config(config, name)
    require_fields(config, ("intermediate_size",), name)
    return attentions, [mlp(config["hidden_size"], config["intermediate_size"])] * layers


LAYER_READERS: dict[str, Callable[[Config, str], Layers]] = {
    **dict.fromkeys(
        (
            "LlamaForCausalLM",
            "MistralForCausalLM",
            "Qwen2ForCausalLM",
            "Qwen3ForCausalLM",
            "Phi3ForCausalLM",
            "GraniteForCausalLM",
            "SmolLM3ForCausalLM",
            "MiMoForCausalLM",
            "Qwen3VLForConditionalGeneration",
        ),
        _dense_decoder,
    ),
    **dict.fromkeys(
        (
            "MixtralForCausalLM",
            "Qwen2MoeForCausalLM",
            "Qwen3MoeForCausalLM",
            "Qwen3VLMoeForConditionalGeneration",
            "MiniMaxM2ForCausalLM",
            "GptOssForCausalLM",
            "Step3p7FlashForCausalLM",
        ),
        _moe_decoder,
    ),
    **dict.fromkeys(
        (
            "DeepseekV2ForCausalLM",
            "DeepseekV3ForCausalLM",
            "DeepseekV32ForCausalLM",
            "KimiK25ForConditionalGeneration",
            "GlmMoeDsaForCausalLM",
        ),
        _mla_decoder,
    ),
    **dict.fromkeys(("Qwen3_5MoeForConditionalGeneration", "Qwen3_5ForConditionalGeneration"), _qwen_hybrid),
}


def require_fields(config: Config, fields: Sequence[str], name: str) -> None:
    """Raise ConfigError naming every field that is missing or not a positive whole number."""
    missing = [field for field in fields if config.get(field) is None]
    if missing:
        raise ConfigError(f"The config of '{name}' lacks: {', '.join(missing)}.")
    wrong = [field for field in fields if not isinstance(config[field], int) or config[field] <= 0]
    if wrong:
        raise ConfigError(f"The config of '{name}' needs positive whole numbers for: {', '.join(wrong)}.")


def first_field(config: Config, fields: Sequence[str], name: str) -> int:
    """The value of the first of these fields that the config has; ConfigError where it has none."""
    for field in fields:
        if config.get(field) is not None:
            require_fields(config, (field,), name)
            return int(config[field])
    raise ConfigError(f"The config of '{name}' lacks: {fields[0]}.")


def read_layers(config: Config, name: str) -> tuple[str, tuple[Attention, ...], tuple[FeedForward, ...]]:
    """Architecture, kinds of attention and kinds of feed-forward layers of a config.json."""
    from autotuner.predict.hybrids import HYBRID_LAYER_READERS  # builds on the functions above

    architectures = config.get("architectures")
    if not architectures:
        raise ConfigError(f"The config of '{name}' lacks: architectures.")
    architecture, readers = str(architectures[0]), {**LAYER_READERS, **HYBRID_LAYER_READERS}
    if architecture not in readers:
        raise ConfigError(unknown_name_message("architecture", architecture, readers), why=f"Model '{name}' has it.")
    require_fields(config, REQUIRED_FIELDS, name)
    attentions, feed_forwards = readers[architecture](config, name)
    return architecture, _count_attentions(attentions), _count_feed_forwards(feed_forwards)


def _count_attentions(layers: Sequence[Attention]) -> tuple[Attention, ...]:
    return tuple(replace(kind, layers=count) for kind, count in Counter(layers).items())


def _count_feed_forwards(layers: Sequence[FeedForward]) -> tuple[FeedForward, ...]:
    return tuple(replace(kind, layers=count) for kind, count in Counter(layers).items())
