"""The fields of a config.json under one name and of one type each, whoever wrote it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

LANGUAGE_MODEL_KEYS = (
    "text_config",
    "llm_config",
    "language_config",
    "language_model_config",
    "text_model_config",
    "thinker_config",
    "attn_config",
    "ffn_config",
)
"""Where multimodal configurations keep the language model's fields; the last two are DBRX's and MPT's."""
MAX_NESTING = 3
PER_LAYER_FIELDS = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "head_dim")
ASSUMED_POSITIONS = 32768
"""Context length of a model whose config.json gives none; chosen by hand, and said to be rough."""

ALIASES: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "d_model", "n_embed", "model_dim", "dim"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers", "num_transformer_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads", "num_query_heads"),
    "num_key_value_heads": (
        "multi_query_group_num",
        "num_kv_heads",
        "n_kv_heads",
        "kv_n_heads",
        "n_head_kv",
        "num_key_value_heads_per_layer",
    ),
    "head_dim": ("kv_channels", "attention_head_dim", "d_kv"),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size", "inner_hidden_size", "d_ff"),
    "vocab_size": ("padded_vocab_size", "n_vocab"),
    "max_position_embeddings": (
        "n_positions",
        "max_seq_len",
        "seq_length",
        "max_sequence_length",
        "model_max_length",
        "n_ctx",
    ),
    "num_experts": ("moe_num_experts", "num_moe_experts", "num_routed_experts", "num_experts_per_layer"),
    "num_experts_per_tok": ("moe_topk", "moe_top_k", "moe_k", "num_selected_experts"),
    "moe_intermediate_size": ("expert_ffn_hidden_size", "moe_ffn_hidden_size", "expert_intermediate_size"),
    "num_shared_experts": ("moe_num_shared_experts", "num_shared_expert"),
    "sliding_window": ("sliding_window_size", "window_size"),
    "sliding_window_pattern": ("_sliding_window_pattern",),
    "moe_layer_start_index": ("moe_start_layer_index",),
}
"""Other names of a field; the first that a configuration has counts where the field itself is missing."""

_GEMMA = {"tie_word_embeddings": True}
_GEMMA3 = {**_GEMMA, "sliding_window_pattern": 6, "max_position_embeddings": 131072, "vocab_size": 262208}
_GEMMA3 |= {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096}
_LLAMA = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
_LLAMA |= {"vocab_size": 32000, "max_position_embeddings": 2048}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma": _GEMMA,
    "gemma2": {**_GEMMA, "sliding_window": 4096, "sliding_window_pattern": 2},
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "cohere": {"tie_word_embeddings": True},
    "cohere2": {"tie_word_embeddings": True, "sliding_window": 4096, "sliding_window_pattern": 4},
    "gpt2": {"tie_word_embeddings": True, "vocab_size": 50257, "max_position_embeddings": 1024},
    "gpt_bigcode": {"tie_word_embeddings": True},
    "opt": {"tie_word_embeddings": True},
    "bloom": {"tie_word_embeddings": True},
    "mpt": {"tie_word_embeddings": True},
    "falcon": {"tie_word_embeddings": True},
    "starcoder2": {"tie_word_embeddings": True},
    "gpt_oss": {"sliding_window": 128, "sliding_window_pattern": 2},
}
"""Fields that these model types leave out where they have the library's default value."""
NESTED_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072},
}
"""The same for a language model within a multimodal configuration, which holds only what differs from the default."""


def config_fields(config: Config) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The language model's fields, and what was assumed for missing ones.

    Those of a nested configuration come before those around it. Nulls are left out, texts that are numbers become
    numbers, and of lists with a value for each layer the largest stands under the field's own name and the list under
    `per_layer`.
    """
    fields, is_nested = _merge(config)
    if config.get("architectures"):
        fields["architectures"] = config["architectures"]
    fields = {name: _plain(value) for name, value in fields.items() if value is not None}
    for name, others in ALIASES.items():
        if name not in fields:
            other = next((other for other in others if other in fields), None)
            if other is not None:
                fields[name] = fields[other]
    model_type = str(fields.get("model_type", ""))
    nested_defaults = NESTED_DEFAULTS.get(model_type, {}) if is_nested else {}
    fields = {**nested_defaults, **DEFAULTS.get(model_type, {}), **fields}
    if fields.get("multi_query") is True and not fields.get("new_decoder_architecture"):
        fields["num_key_value_heads"] = 1
    per_layer = {}
    for name in PER_LAYER_FIELDS:
        value = fields.get(name)
        if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
            per_layer[name], fields[name] = value, max(value)
    if per_layer:
        fields["per_layer"] = per_layer
    for name in ("num_experts", "num_experts_per_tok", "num_shared_experts", "moe_intermediate_size"):
        value = fields.get(name)
        if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
            fields[name] = max(value)
    if "num_hidden_layers" not in fields and isinstance(fields.get("layer_types"), list):
        fields["num_hidden_layers"] = len(fields["layer_types"])
    return _with_positions(fields)


def _with_positions(fields: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    if "max_position_embeddings" in fields or not {"hidden_size", "vocab_size"} <= fields.keys():
        return fields, ()
    note = f"rough: no max_position_embeddings, so {ASSUMED_POSITIONS} tokens are assumed"
    return {**fields, "max_position_embeddings": ASSUMED_POSITIONS}, (note,)


def _merge(config: Config) -> tuple[dict[str, Any], bool]:
    """The fields with those of nested language models laid over them, and whether there was one."""
    fields, is_nested = dict(config), False
    for _ in range(MAX_NESTING):
        nested = [fields.pop(key) for key in LANGUAGE_MODEL_KEYS if isinstance(fields.get(key), Mapping)]
        if not nested:
            break
        is_nested = True
        for inner in reversed(nested):
            if inner.get("architectures"):
                fields["inner_architectures"] = inner["architectures"]
            fields |= {key: value for key, value in inner.items() if value is not None}
    return fields, is_nested


def _plain(value: Any) -> Any:
    """The value as JSON should have had it: a whole number for `"4096"` and 4096.0, a truth value for `"true"`."""
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"-?\d{1,18}(\.0+)?", text):
            return int(text.partition(".")[0])
        return {"true": True, "false": False, "none": None, "null": None}.get(text.lower(), value)
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, list):
        return [_plain(item) if isinstance(item, str | float) else item for item in value]
    return value
