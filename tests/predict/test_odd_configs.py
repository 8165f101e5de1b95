"""Configurations as they are found in the wild: nested, renamed, half empty, of architectures nobody knows."""

from __future__ import annotations

from typing import Any

import pytest

from autotuner.predict.memory import kv_bytes_per_token
from autotuner.predict.shape import ModelShape, catalogue, shape_from_config

SIZES = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 12,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 65536,
}
LLAMA = {"architectures": ["LlamaForCausalLM"], **SIZES}
UNKNOWN = {"architectures": ["NobodyForCausalLM"], **SIZES}
MOE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 512}
MLA = {"kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64, "q_lora_rank": None}
GUESSED = "rough: unknown architecture NobodyForCausalLM read as"
PLAIN = shape_from_config(LLAMA, "plain")


def read(config: dict[str, Any]) -> ModelShape:
    return shape_from_config(config, "mine")


def without(*fields: str, **changes: object) -> dict[str, Any]:
    return {**{key: value for key, value in LLAMA.items() if key not in fields}, **changes}


def layers_by_window(shape: ModelShape) -> dict[int, int]:
    return {kind.window: kind.layers for kind in shape.attentions}


@pytest.mark.parametrize(
    "config",
    [
        {**LLAMA, "hidden_size": "1024", "num_hidden_layers": "12"},
        {**LLAMA, "vocab_size": 32000.0, "intermediate_size": "4096.0"},
        {**LLAMA, "head_dim": None, "sliding_window": None, "layer_types": None, "quantization_config": None},
        {"architectures": "LlamaForCausalLM", **SIZES},
        {"architectures": None, "model_type": "llama", **SIZES},
        {"architectures": ["WrapperForConditionalGeneration"], "text_config": LLAMA},
        {"architectures": ["ChatModel"], "llm_config": LLAMA, "vision_config": {"hidden_size": 9}},
        {"architectures": ["WrapperForCausalLM"], "language_config": {**SIZES, "model_type": "llama"}},
        {"architectures": ["OmniModel"], "thinker_config": {"text_config": {**SIZES, "model_type": "qwen3"}}},
        {**LLAMA, "text_config": None},
        {**LLAMA, "text_config": {}, "num_experts": None},
        {**LLAMA, "text_config": {"hidden_size": None}},
        {**LLAMA, "use_sliding_window": "false", "sliding_window": 128},
        without("hidden_size", "num_hidden_layers", n_embd=1024, n_layer=12),
        without("num_key_value_heads", "max_position_embeddings", multi_query_group_num=4, seq_length=65536),
        {**LLAMA, "num_key_value_heads": [4] * 12},
        {**LLAMA, "intermediate_size": [4096] * 12},
        {**LLAMA, "layer_types": ["full_attention"] * 12},
        without("num_hidden_layers", layer_types=["full_attention"] * 12),
        {**LLAMA, "sliding_window": 70000},
        {**LLAMA, "sliding_window": -1},
    ],
)
def test_odd_spellings_of_one_model_are_read_as_that_model(config):
    shape = read(config)
    assert (shape.parameters, shape.attentions, shape.feed_forwards) == (
        PLAIN.parameters,
        PLAIN.attentions,
        PLAIN.feed_forwards,
    )
    assert (shape.max_model_len, shape.notes) == (65536, ())


@pytest.mark.parametrize(
    ("config", "note"),
    [
        (UNKNOWN, f"{GUESSED} dense"),
        ({**UNKNOWN, **MOE}, f"{GUESSED} a mixture of experts"),
        (
            {**UNKNOWN, **MOE, **MLA},
            f"{GUESSED} a mixture of experts with MLA",
        ),
        ({**UNKNOWN, **MLA}, f"{GUESSED} dense with MLA"),
        ({**SIZES, "model_type": "nobody"}, "rough: unknown architecture nobody read as dense"),
        (SIZES, "rough: no architecture, its layers read as dense"),
        (without("max_position_embeddings"), "rough: no max_position_embeddings, so 32768 tokens are assumed"),
    ],
)
def test_what_is_guessed_is_said_to_be_rough(config, note):
    assert read(config).notes == (note,)


def test_an_unknown_mixture_has_experts_and_an_unknown_latent_cache_one_entry():
    mixture, latent = read({**UNKNOWN, **MOE}), read({**UNKNOWN, **MLA})
    assert (mixture.experts, mixture.moe_layers) == (8, 12)
    assert kv_bytes_per_token(latent) == 12 * 2 * (128 + 32)


def test_a_model_without_a_gate_has_two_matrices():
    sizes = {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None, "n_positions": 1024, "vocab_size": 50257}
    gpt2 = read({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", **sizes})
    assert gpt2.parameters == pytest.approx(124e6, rel=0.01)
    assert gpt2.notes == ("rough: unknown architecture GPT2LMHeadModel read as dense",)


@pytest.mark.parametrize(
    ("first_windowed", "expected"),
    [(12, {0: 12}), (0, {4096: 12}), (8, {0: 8, 4096: 4})],
)
def test_windows_begin_at_the_first_windowed_layer(first_windowed, expected):
    window = {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": first_windowed}
    assert layers_by_window(read({**LLAMA, "architectures": ["Qwen2ForCausalLM"], **window})) == expected


def test_a_qwen_has_windows_only_where_it_says_so():
    window = {"sliding_window": 4096, "max_window_layers": 0}
    assert layers_by_window(read({**LLAMA, "architectures": ["Qwen2ForCausalLM"], **window})) == {0: 12}
    assert layers_by_window(read({**LLAMA, "sliding_window": 4096})) == {4096: 12}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"layer_types": ["sliding_attention", "full_attention"] * 6}, {128: 6, 0: 6}),
        ({"sliding_window_pattern": 6}, {128: 10, 0: 2}),
        ({"sliding_window_pattern": "LLLG"}, {128: 9, 0: 3}),
        (
            {"layer_types": ["chunked_attention"] * 9 + ["full_attention"] * 3, "attention_chunk_size": 64},
            {64: 9, 0: 3},
        ),
    ],
)
def test_layers_with_and_without_a_window_are_told_apart(fields, expected):
    assert layers_by_window(read({**LLAMA, "sliding_window": 128, **fields})) == expected


def test_sizes_by_layer_are_read_layer_by_layer():
    shape = read({**LLAMA, "num_key_value_heads": [2, 4] * 6, "intermediate_size": [1000] * 6 + [3000] * 6})
    assert {kind.kv_heads: kind.layers for kind in shape.attentions} == {2: 6, 4: 6}
    assert sorted(kind.weights for kind in shape.feed_forwards) == [3 * 1024 * 1000, 3 * 1024 * 3000]


def test_one_key_value_head_is_shared_where_the_config_says_multi_query():
    assert read(without("num_key_value_heads", multi_query=True)).kv_heads == 1


def test_dense_layers_of_a_mixture_are_found_by_every_name_of_theirs():
    config = {**SIZES, **MOE, "architectures": ["Qwen3MoeForCausalLM"]}
    for fields in (
        {"first_k_dense_replace": 3},
        {"moe_layer_start_index": 3},
        {"mlp_layer_types": ["dense"] * 3 + ["sparse"] * 9},
        {"mlp_only_layers": [0, 1, 2]},
        {"moe_layer_freq": [0] * 3 + [1] * 9},
    ):
        assert read({**config, **fields}).moe_layers == 9, fields


def test_a_nested_language_model_has_the_defaults_of_its_type():
    text_config = {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096}
    shape = read({"architectures": ["LlavaForConditionalGeneration"], "text_config": text_config})
    assert shape.parameters == pytest.approx(6.74e9, rel=0.01)
    assert not shape.notes


def test_the_reading_of_the_bundled_models_is_not_rough():
    notes = {name: shape_from_config(config, name).notes for name, config in catalogue().items()}
    assert not {name for name in notes if notes[name]}
