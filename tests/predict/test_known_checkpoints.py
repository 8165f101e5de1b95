"""The sizes of published checkpoints, from their configurations, within 5%.

Sizes are in bytes: `total_size` in the model.safetensors.index.json of the repository named beside each, and for those
of a single file or marked with a tilde the size of the files on their page. Found again in other public texts were
those of Llama-3.1 (8B, 70B), Qwen3 (32B, 235B), Qwen2.5-7B, DeepSeek-V3, gpt-oss-120b and Mixtral.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from autotuner.predict.shape import catalogue, shape_from_config, stored_bytes

LLAMA_70B = dict(catalogue()["llama-3.1-70b"])
LLAMA_8B = {**catalogue()["llama-3.1-8b"], "model_type": "llama"}
QWEN_7B = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "sliding_window": 131072,
    "use_sliding_window": False,
    "vocab_size": 152064,
}
QWEN_72B = {
    **QWEN_7B,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
    "num_key_value_heads": 8,
}
MISTRAL_7B = {
    "architectures": ["MistralForCausalLM"],
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "sliding_window": None,
    "vocab_size": 32768,
}
MISTRAL_SMALL = {
    **MISTRAL_7B,
    "hidden_size": 5120,
    "intermediate_size": 32768,
    "num_hidden_layers": 40,
    "vocab_size": 131072,
}
PHI_4 = {
    "architectures": ["Phi3ForCausalLM"],
    "hidden_size": 5120,
    "intermediate_size": 17920,
    "max_position_embeddings": 16384,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "num_key_value_heads": 10,
    "sliding_window": None,
    "vocab_size": 100352,
}
GEMMA_3_27B = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "text_config": {
        "head_dim": 128,
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "model_type": "gemma3_text",
        "num_attention_heads": 32,
        "num_hidden_layers": 62,
        "num_key_value_heads": 16,
        "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27},
}
GEMMA_3_4B = {
    **GEMMA_3_27B,
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
}
GEMMA_2_9B = {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "head_dim": 256,
    "hidden_size": 3584,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "num_attention_heads": 16,
    "num_hidden_layers": 42,
    "num_key_value_heads": 8,
    "vocab_size": 256000,
}
FP8_BLOCKS = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}


def groups(**weights: object) -> dict[str, Any]:
    scheme = {"targets": ["Linear"], "weights": {"symmetric": True, **weights}}
    return {"quant_method": "compressed-tensors", "ignore": ["lm_head"], "config_groups": {"group_0": scheme}}


CHECKPOINTS: dict[str, tuple[Mapping[str, Any], float]] = {
    "meta-llama/Llama-3.1-8B": (LLAMA_8B, 16_060_522_496),
    "meta-llama/Llama-3.1-70B": (LLAMA_70B, 141_107_412_992),
    "meta-llama/Llama-3.2-1B (one file)": (catalogue()["llama-3.2-1b"], 2_471_645_608),
    "Qwen/Qwen3-8B": (catalogue()["qwen3-8b"], 16_381_470_720),
    "Qwen/Qwen3-32B": (catalogue()["qwen3-32b"], 65_524_246_528),
    "Qwen/Qwen3-30B-A3B": (catalogue()["qwen3-30b-a3b"], 61_064_245_248),
    "Qwen/Qwen3-235B-A22B": (catalogue()["qwen3-235b-a22b"], 470_187_269_120),
    "deepseek-ai/DeepSeek-V3": (
        {**catalogue()["deepseek-v3"], "quantization_config": FP8_BLOCKS},
        688_586_727_753,  # 2% of it the multi-token predictor
    ),
    "openai/gpt-oss-20b": (catalogue()["gpt-oss-20b"], 13_761_264_768),
    "openai/gpt-oss-120b": (
        {
            **catalogue()["gpt-oss-120b"],
            "quantization_config": {
                "quant_method": "mxfp4",
                "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
            },
        },
        65_248_815_744,
    ),
    "mistralai/Mixtral-8x7B-v0.1": (catalogue()["mixtral-8x7b"], 93_405_585_408),
    "mistralai/Mistral-7B-v0.3": (MISTRAL_7B, 14_496_047_104),
    "mistralai/Mistral-Small-24B-Instruct-2501": (MISTRAL_SMALL, 47_144_806_400),
    "microsoft/phi-4": (PHI_4, 29_319_014_400),
    "google/gemma-3-27b-it": (GEMMA_3_27B, 54_864_837_344),  # 1.5% of it the vision tower
    "google/gemma-2-9b": (GEMMA_2_9B, 18_483_411_968),
    "Qwen/Qwen2.5-7B-Instruct": (QWEN_7B, 15_231_233_024),
    "Qwen/Qwen2.5-72B-Instruct-AWQ (~)": (
        {**QWEN_72B, "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}},
        41.6e9,
    ),
    "Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4 (~)": (
        {**QWEN_72B, "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}},
        41.6e9,
    ),
    "RedHatAI/Llama-3.3-70B-Instruct-quantized.w4a16 (~)": (
        {**LLAMA_70B, "quantization_config": groups(num_bits=4, type="int", strategy="group", group_size=128)},
        39.8e9,
    ),
    "RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8-dynamic: vLLM logs 67.72 GiB": (
        {**LLAMA_70B, "quantization_config": groups(num_bits=8, type="float", strategy="channel")},
        67.72 * 2**30,
    ),
    "unsloth/Meta-Llama-3.1-8B-bnb-4bit (~)": (
        {
            **LLAMA_8B,
            "quantization_config": {
                "quant_method": "bitsandbytes",
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_use_double_quant": True,
            },
        },
        5.70e9,
    ),
    "nvidia/Llama-3.1-8B-Instruct-FP8 (~)": (
        {**LLAMA_8B, "quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"]}},
        9.08e9,
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_weights_are_what_was_published_to_five_percent(name):
    config, published = CHECKPOINTS[name]
    shape = shape_from_config(config, name)
    assert stored_bytes(shape) == pytest.approx(published, rel=0.05)
    assert not shape.notes


def test_a_small_gemma_has_the_heads_that_its_configuration_leaves_out():
    shape = shape_from_config(GEMMA_3_4B, "gemma-3-4b")
    assert (shape.heads, shape.kv_heads, shape.head_dim, shape.vocab_size) == (8, 4, 256, 262208)
    windows = {kind.window: kind.layers for kind in shape.attentions}
    assert windows == {1024: 29, 0: 5}
