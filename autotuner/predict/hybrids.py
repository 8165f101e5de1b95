"""Architectures whose layers are of several kinds: windows, linear attention, state space, searched blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from autotuner.errors import ConfigError
from autotuner.predict.architectures import (
    Layers,
    feed_forwards_from_config,
    first_field,
    gated_delta_net,
    grouped_attention,
    latent_attention,
    mamba2,
    mixture_of_experts,
    mlp,
    require_fields,
)
from autotuner.predict.config_fields import Config
from autotuner.predict.geometry import Attention, FeedForward


def _llama4(config: Config, name: str) -> Layers:
    require_fields(config, ("num_hidden_layers", "intermediate_size", "intermediate_size_mlp", "head_dim"), name)
    hidden, layers, every = config["hidden_size"], config["num_hidden_layers"], config["interleave_moe_layer_step"]
    moe = mixture_of_experts(
        hidden,
        config["num_local_experts"],
        config["num_experts_per_tok"],
        config["intermediate_size"],
        shared_size=config["intermediate_size"],
    )
    full = grouped_attention(hidden, config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"])
    local = replace(full, window=config.get("attention_chunk_size") or 0)
    attentions = [full if (layer + 1) % 4 == 0 else local for layer in range(layers)]
    dense = mlp(hidden, config["intermediate_size_mlp"])
    return attentions, [moe if (layer + 1) % every == 0 else dense for layer in range(layers)]


def _gemma4(config: Config, name: str) -> Layers:
    require_fields(config, ("num_hidden_layers", "intermediate_size", "head_dim", "num_key_value_heads"), name)
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    local = grouped_attention(
        hidden, heads, config["num_key_value_heads"], config["head_dim"], window=config.get("sliding_window") or 0
    )
    full = grouped_attention(
        hidden,
        heads,
        config.get("num_global_key_value_heads") or config["num_key_value_heads"],
        config.get("global_head_dim") or config["head_dim"],
        shared_kv=bool(config.get("attention_k_eq_v")),
    )
    attentions = [full if kind == "full_attention" else local for kind in config["layer_types"]]
    feed_forward = mlp(hidden, config["intermediate_size"])
    if config.get("enable_moe_block"):
        active, size = (
            first_field(config, ("top_k_experts",), name),
            first_field(config, ("moe_intermediate_size",), name),
        )
        # The dense MLP runs beside the experts and so counts as a shared one.
        feed_forward = mixture_of_experts(
            hidden, config["num_experts"], active, size, shared_size=config["intermediate_size"]
        )
    return attentions, [feed_forward] * len(attentions)


def _mimo_v2(config: Config, name: str) -> Layers:
    require_fields(config, ("num_hidden_layers", "head_dim", "v_head_dim", "swa_num_key_value_heads"), name)
    hidden = config["hidden_size"]
    full = grouped_attention(
        hidden,
        config["num_attention_heads"],
        config["num_key_value_heads"],
        config["head_dim"],
        value_dim=config["v_head_dim"],
    )
    local = grouped_attention(
        hidden,
        config["swa_num_attention_heads"],
        config["swa_num_key_value_heads"],
        config["swa_head_dim"],
        value_dim=config["swa_v_head_dim"],
        window=config["sliding_window"],
    )
    return [local if windowed else full for windowed in config["hybrid_layer_pattern"]], feed_forwards_from_config(
        config, name
    )


def _minimax_m3(config: Config, name: str) -> Layers:
    require_fields(config, ("num_hidden_layers", "head_dim", "num_key_value_heads", "dense_intermediate_size"), name)
    hidden, heads, kv_heads, dim = (
        config["hidden_size"],
        config["num_attention_heads"],
        config["num_key_value_heads"],
        config["head_dim"],
    )
    full, sparse = grouped_attention(hidden, heads, kv_heads, dim), config.get("sparse_attention_config") or {}
    if not sparse:
        return [full] * config["num_hidden_layers"], feed_forwards_from_config(config, name)
    index_dim, index_heads = sparse["sparse_index_dim"], sparse["sparse_num_index_heads"]
    sparse_attention = grouped_attention(
        hidden,
        heads,
        kv_heads,
        dim,
        sparse_top_k=sparse["sparse_topk_blocks"] * sparse["sparse_block_size"],
        indexer_ops=2 * index_heads * index_dim,
        indexer_key_dim=index_dim,
    )
    return [
        sparse_attention if is_sparse else full for is_sparse in sparse["sparse_attention_freq"]
    ], feed_forwards_from_config(config, name)


def _deepseek_v4(config: Config, name: str) -> Layers:
    """Keys and values share one latent head; by layer the cache has a window, or every 4th or 128th entry."""
    require_fields(
        config, ("num_hidden_layers", "head_dim", "q_lora_rank", "o_lora_rank", "o_groups", "index_topk"), name
    )
    hidden, heads, dim = config["hidden_size"], config["num_attention_heads"], config["head_dim"]
    queries, rank = config["q_lora_rank"], config["o_lora_rank"] * config["o_groups"]
    weights = hidden * queries + queries * heads * dim + 2 * hidden * dim
    weights += heads * dim * config["o_lora_rank"] + rank * hidden
    base = Attention(
        layers=1,
        weights=weights,
        heads=heads,
        key_dim=dim,
        value_dim=dim,
        decode_dim=2 * dim,
        cache_elements=dim,
        is_latent=True,
    )
    index = config["index_n_heads"] * config["index_head_dim"]
    kinds = {
        0: replace(base, window=config["sliding_window"]),
        4: replace(
            base,
            weights=weights + queries * index + hidden * config["index_head_dim"],
            stride=4,
            sparse_top_k=config["index_topk"],
            indexer_ops=2 * index,
            cache_elements=dim + config["index_head_dim"] // 2,
        ),
    }
    ratios = config["compress_ratios"][: config["num_hidden_layers"]]
    attentions = [kinds.get(ratio) or replace(base, stride=ratio) for ratio in ratios]
    return attentions, feed_forwards_from_config(config, name)


def _kimi_k3(config: Config, name: str) -> Layers:
    require_fields(config, ("num_hidden_layers", "kv_lora_rank", "moe_intermediate_size", "intermediate_size"), name)
    linear, hidden = config["linear_attn_config"], config["hidden_size"]
    heads, dim = linear["num_heads"], linear["head_dim"]
    recurrent = gated_delta_net(hidden, heads, heads, dim, dim, linear["short_conv_kernel_size"])
    full, full_layers = latent_attention(config), set(linear["full_attn_layers"])
    attentions = [full if layer + 1 in full_layers else recurrent for layer in range(config["num_hidden_layers"])]
    size = config["moe_intermediate_size"]
    moe = mixture_of_experts(
        hidden,
        config["num_experts"],
        config["num_experts_per_token"],
        size,
        shared_size=config["num_shared_experts"] * size,
        expert_hidden_size=config.get("routed_expert_hidden_size") or 0,
    )
    first_dense = config.get("first_k_dense_replace") or 0
    dense = mlp(hidden, config["intermediate_size"])
    return attentions, [dense if layer < first_dense else moe for layer in range(len(attentions))]


def _nemotron_h(config: Config, name: str) -> Layers:
    """Each layer is one of Mamba-2, attention, an MLP or a mixture of experts."""
    letters = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
    kinds = config.get("layers_block_type") or [letters[c] for c in config.get("hybrid_override_pattern") or ""]
    if not kinds:
        raise ConfigError(f"The config of '{name}' lacks: layers_block_type.")
    hidden = config["hidden_size"]
    dim = first_field(config, ("head_dim", "attention_head_dim"), name)
    attentions: list[Attention] = []
    feed_forwards: list[FeedForward] = []
    for kind in kinds:
        if kind == "mamba":
            attentions.append(mamba2(config))
        elif kind == "attention":
            attentions.append(
                grouped_attention(hidden, config["num_attention_heads"], config["num_key_value_heads"], dim)
            )
        elif kind == "mlp":
            feed_forwards.append(mlp(hidden, config["intermediate_size"], matrices=2))
        else:
            feed_forwards.append(
                mixture_of_experts(
                    hidden,
                    config["n_routed_experts"],
                    config["num_experts_per_tok"],
                    config["moe_intermediate_size"],
                    shared_size=config["moe_shared_expert_intermediate_size"],
                    matrices=2,
                    expert_hidden_size=config.get("moe_latent_size") or 0,
                )
            )
    return attentions, feed_forwards


def _nemotron_nas(config: Config, name: str) -> Layers:
    """Blocks from an architecture search: some have no attention, and each MLP has its own width."""
    require_fields(config, ("num_hidden_layers",), name)
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    attentions: list[Attention] = []
    feed_forwards: list[FeedForward] = []
    for block in config["block_configs"]:
        group = block["attention"]["n_heads_in_group"]
        if group:
            attentions.append(grouped_attention(hidden, heads, heads // group, hidden // heads))
        elif block["attention"].get("replace_with_linear"):
            attentions.append(Attention(layers=1, weights=hidden * hidden))
        multiple = block["ffn"]["ffn_mult"]
        if multiple:
            feed_forwards.append(mlp(hidden, -(-int(2 * multiple * hidden / 3) // 256) * 256))
        elif block["ffn"].get("replace_with_linear"):
            feed_forwards.append(FeedForward(layers=1, weights=hidden * hidden))
    return attentions, feed_forwards


HYBRID_LAYER_READERS: dict[str, Callable[[Config, str], Layers]] = {
    "Llama4ForConditionalGeneration": _llama4,
    "Gemma4ForConditionalGeneration": _gemma4,
    "MiMoV2FlashForCausalLM": _mimo_v2,
    "MiniMaxM3ForCausalLM": _minimax_m3,
    "DeepseekV4ForCausalLM": _deepseek_v4,
    "KimiK3ForConditionalGeneration": _kimi_k3,
    "NemotronHForCausalLM": _nemotron_h,
    "DeciLMForCausalLM": _nemotron_nas,
}
