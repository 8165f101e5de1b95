"""Attention and feed-forward layers from the fields of a config.json, by architecture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from autotuner.errors import ConfigError
from autotuner.predict.config_fields import Config
from autotuner.predict.geometry import Attention, FeedForward

Layers = tuple[list[Attention], list[FeedForward]]
REQUIRED_FIELDS = ("hidden_size", "num_attention_heads", "vocab_size", "max_position_embeddings")
MAX_LAYERS = 10_000
"""More layers than this are a mistake; chosen by hand, ten times those of the deepest model."""
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


def _grouped_from_config(config: Config, layer: int | None = None, **options: Any) -> Attention:
    """Grouped-query attention of the configuration, with the sizes of one layer where they differ by layer."""

    def size(field: str) -> int:
        values = config.get("per_layer", {}).get(field, ())
        return (values[layer] if layer is not None and layer < len(values) else config.get(field)) or 0

    heads, hidden = size("num_attention_heads"), config["hidden_size"]
    return grouped_attention(
        hidden,
        heads,
        size("num_key_value_heads") or heads,
        size("head_dim") or hidden // config["num_attention_heads"],
        **options,
    )


def layer_windows(config: Config, *, all_windowed: bool) -> list[int]:
    """The attention window of each layer, 0 for full attention.

    It is read from the types of the layers, else from how often a full layer comes, else from the first windowed
    layer (`max_window_layers`); else all layers have it, or with `all_windowed` false none.
    """
    layers, window = config["num_hidden_layers"], config.get("sliding_window") or 0
    is_used = config.get("use_sliding_window", not str(_first_architecture(config)).startswith("Qwen"))
    if not is_used or window < 0 or window >= config["max_position_embeddings"]:
        window = 0
    kinds, pattern = config.get("layer_types"), config.get("sliding_window_pattern")
    if kinds:
        chunk = config.get("attention_chunk_size") or 0
        by_kind = {"sliding_attention": window, "local": window, "chunked_attention": chunk}
        return [by_kind.get(kind, 0) for kind in kinds]
    if isinstance(pattern, str) and pattern:
        return [0 if pattern[layer % len(pattern)] == "G" else window for layer in range(layers)]
    if isinstance(pattern, int) and pattern > 0:
        return [0 if (layer + 1) % pattern == 0 else window for layer in range(layers)]
    if isinstance(first := config.get("max_window_layers"), int):
        return [window if layer >= first else 0 for layer in range(layers)]
    return [window if all_windowed else 0] * layers


def _attentions_from_config(config: Config, *, all_windowed: bool) -> list[Attention]:
    windows = layer_windows(config, all_windowed=all_windowed)
    if not config.get("per_layer"):
        by_window = {window: _grouped_from_config(config, window=window) for window in set(windows)}
        return [by_window[window] for window in windows]
    return [_grouped_from_config(config, layer, window=window) for layer, window in enumerate(windows)]


def _dense_decoder(config: Config, name: str) -> Layers:
    require_fields(config, ("num_hidden_layers", "intermediate_size"), name)
    return _attentions_from_config(config, all_windowed=True), dense_feed_forwards(config)


def dense_feed_forwards(config: Config) -> list[FeedForward]:
    """An MLP for each layer, each of its own width where the configuration lists them."""
    layers, widths = config["num_hidden_layers"], config.get("per_layer", {}).get("intermediate_size", ())
    widths = widths if len(widths) == layers else [config["intermediate_size"]] * layers
    matrices = mlp_matrices(config)
    return [mlp(config["hidden_size"], width, matrices) for width in widths]


def mlp_matrices(config: Config) -> int:
    """Weight matrices of an MLP: 2 where the architecture has no gate."""
    architecture = str(_first_architecture(config))
    if architecture.startswith(UNGATED_ARCHITECTURES):
        return 2
    is_known = architecture in LAYER_READERS
    activation = config.get("hidden_act") or config.get("activation_function")
    return 2 if not is_known and activation in UNGATED_ACTIVATIONS else 3


UNGATED_ARCHITECTURES = (
    "GPT2",
    "GPTBigCode",
    "GPTNeoX",
    "GPTJ",
    "Falcon",
    "Bloom",
    "OPT",
    "MPT",
    "PhiForCausalLM",
    "Starcoder2",
    "NemotronForCausalLM",
    "Persimmon",
    "Arcee",
    "Apertus",
    "CodeGen",
)
UNGATED_ACTIVATIONS = ("relu2", "xielu", "gelu_new", "gelu_fast")

EXPERT_COUNT_FIELDS = ("num_experts", "num_local_experts", "n_routed_experts")
"""The number of routed experts, by its names in the configurations of different models."""
ACTIVE_EXPERTS_FIELDS = ("num_experts_per_tok", "experts_per_token", "top_k_experts", "num_experts_per_token")


def _moe_from_config(config: Config, name: str) -> FeedForward:
    """The mixture-of-experts layer, whose sizes have different names in the configs of different models."""
    experts = first_field(config, EXPERT_COUNT_FIELDS, name)
    active = first_field(config, ACTIVE_EXPERTS_FIELDS, name)
    sizes = ("moe_intermediate_size", "intermediate_size")
    if str(_first_architecture(config)).startswith("Qwen"):
        sizes = ("moe_intermediate_size",) * 2
    size = first_field(config, sizes, name)
    count = config.get("n_shared_experts") or config.get("num_shared_experts") or 0
    shared = config.get("shared_expert_intermediate_size") or config.get("moe_shared_expert_intermediate_size")
    shared = shared or config.get("shared_intermediate_size")
    shared = shared or config.get("share_expert_dim") or count * size
    return mixture_of_experts(config["hidden_size"], experts, active, size, shared_size=shared)


def feed_forwards_from_config(config: Config, name: str) -> list[FeedForward]:
    """Mixture-of-experts layers, with dense ones where the config puts them."""
    layers, moe = config["num_hidden_layers"], _moe_from_config(config, name)
    every, only = config.get("decoder_sparse_step") or 1, set(config.get("mlp_only_layers") or ())
    first_dense, frequency = config.get("first_k_dense_replace") or 0, config.get("moe_layer_freq")
    first_dense = first_dense or config.get("moe_layer_start_index") or 0
    pattern = frequency if isinstance(frequency, list) else None
    if isinstance(config.get("mlp_layer_types"), list):
        pattern = [kind not in ("dense", 0) for kind in config["mlp_layer_types"]]
    size = config.get("dense_intermediate_size") or config.get("intermediate_size") or 0
    feed_forwards = []
    for layer in range(layers):
        routed = layer >= first_dense and (layer + 1) % every == 0 and layer not in only
        if isinstance(frequency, int) and frequency > 1:
            routed = routed and layer % frequency == 0
        if pattern is not None:
            routed = bool(pattern[layer])
        feed_forwards.append(moe if routed else mlp(config["hidden_size"], size))
    return feed_forwards


def _moe_decoder(config: Config, name: str) -> Layers:
    require_fields(config, ("num_hidden_layers",), name)
    return _attentions_from_config(config, all_windowed=False), feed_forwards_from_config(config, name)


def _mla_decoder(config: Config, name: str) -> Layers:
    """Latent attention under a mixture of experts."""
    attentions, _ = _latent_layers(config, name)
    return attentions, feed_forwards_from_config(config, name)


def _latent_layers(config: Config, name: str) -> Layers:
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
    return [indexed if kind == "full" else reused for kind in kinds], []


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
            "Mistral3ForConditionalGeneration",
            "Qwen2ForCausalLM",
            "Qwen2_5_VLForConditionalGeneration",
            "Qwen2VLForConditionalGeneration",
            "Qwen3ForCausalLM",
            "Phi3ForCausalLM",
            "GemmaForCausalLM",
            "Gemma2ForCausalLM",
            "Gemma3ForCausalLM",
            "Gemma3ForConditionalGeneration",
            "GraniteForCausalLM",
            "SmolLM3ForCausalLM",
            "Olmo2ForCausalLM",
            "CohereForCausalLM",
            "Cohere2ForCausalLM",
            "SeedOssForCausalLM",
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
            "Glm4MoeForCausalLM",
            "Step3p7FlashForCausalLM",
        ),
        _moe_decoder,
    ),
    **dict.fromkeys(
        (
            "DeepseekV2ForCausalLM",
            "DeepseekV3ForCausalLM",
            "DeepseekV32ForCausalLM",
            "Glm4MoeLiteForCausalLM",
            "KimiK25ForConditionalGeneration",
            "GlmMoeDsaForCausalLM",
        ),
        _mla_decoder,
    ),
    **dict.fromkeys(
        ("Qwen3_5MoeForConditionalGeneration", "Qwen3_5ForConditionalGeneration", "Qwen3NextForCausalLM"), _qwen_hybrid
    ),
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
    """The value of the first of these fields that the config has; ConfigError if it has none."""
    for field in fields:
        if config.get(field) is not None:
            require_fields(config, (field,), name)
            return int(config[field])
    raise ConfigError(f"The config of '{name}' lacks: {fields[0]}.")


MODEL_TYPES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_vl_text": "Qwen2ForCausalLM",
    "qwen2_5_vl_text": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "granite": "GraniteForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "cohere": "CohereForCausalLM",
    "cohere2": "Cohere2ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "kimi_k2": "DeepseekV3ForCausalLM",
}
"""Architectures by the type of a language model, for wrappers around it and configurations without an architecture."""


def _first_architecture(config: Config) -> str | None:
    architectures = config.get("architectures")
    if isinstance(architectures, str):
        return architectures
    return str(architectures[0]) if isinstance(architectures, list) and architectures else None


def read_layers(config: Config, name: str) -> tuple[str, Layers, tuple[str, ...]]:
    """Architecture, attention and feed-forward layers of a configuration, and what of it is rough.

    Of an architecture that is not known, the language model within is read where that one is, else whatever has
    experts, a latent cache or neither as such.
    """
    from autotuner.predict.hybrids import HYBRID_LAYER_READERS  # builds on the functions above

    readers, notes = {**LAYER_READERS, **HYBRID_LAYER_READERS}, tuple[str, ...]()
    given = _first_architecture(config)
    inner = config.get("inner_architectures")
    known = (given, *(inner if isinstance(inner, list) else ()), MODEL_TYPES.get(str(config.get("model_type"))))
    architecture = next((candidate for candidate in known if candidate in readers), None)
    require_fields(config, REQUIRED_FIELDS, name)
    if isinstance(layers := config.get("num_hidden_layers"), int) and layers > MAX_LAYERS:
        raise ConfigError(f"The config of '{name}' has {layers} layers, which no model has.")
    if architecture is not None:
        attentions, feed_forwards = readers[architecture]({**config, "architectures": [architecture]}, name)
        return architecture, (attentions, feed_forwards), notes
    architecture = given or str(config.get("model_type") or "")
    kind, layers = _unknown_decoder(config, name)
    what = f"unknown architecture {architecture}" if architecture else "no architecture, its layers"
    return architecture or "unknown", layers, (f"rough: {what} read as {kind}",)


def _unknown_decoder(config: Config, name: str) -> tuple[str, Layers]:
    """Layers by the fields that there are, and what they are read as; a missing MLP width is four times the hidden."""
    if "intermediate_size" not in config:
        config = {**config, "intermediate_size": 4 * config["hidden_size"]}
    has_experts = any(isinstance(config.get(field), int) and config[field] > 1 for field in EXPERT_COUNT_FIELDS)
    if has_experts and not any(field in config for field in ACTIVE_EXPERTS_FIELDS):
        config = {**config, "num_experts_per_tok": 2}
    if all(isinstance(config.get(field), int) for field in ("kv_lora_rank", "qk_rope_head_dim", "v_head_dim")):
        attentions, _ = _mla_decoder(config, name) if has_experts else _latent_layers(config, name)
        feed_forwards = feed_forwards_from_config(config, name) if has_experts else dense_feed_forwards(config)
        return ("a mixture of experts with MLA" if has_experts else "dense with MLA"), (attentions, feed_forwards)
    if all(field in config for field in ("linear_num_key_heads", "linear_num_value_heads")):
        return "linear and full attention in turns", _qwen_hybrid(config, name)
    if has_experts:
        return "a mixture of experts", _moe_decoder(config, name)
    return "dense", _dense_decoder(config, name)


def count_attentions(layers: Sequence[Attention]) -> tuple[Attention, ...]:
    return tuple(replace(kind, layers=count) for kind, count in Counter(layers).items())


def count_feed_forwards(layers: Sequence[FeedForward]) -> tuple[FeedForward, ...]:
    return tuple(replace(kind, layers=count) for kind, count in Counter(layers).items())
