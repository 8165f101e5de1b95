"""What quantization_config and the files beside config.json say of the weights."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autotuner.predict.hardware import find_gpu
from autotuner.predict.layout import Layout, resolve_dtypes
from autotuner.predict.memory import GIB, plan_memory, weights_text
from autotuner.predict.model_on_gpus import model_on_gpus
from autotuner.predict.shape import catalogue, model_shape, shape_from_config, stored_bytes

LLAMA = dict(catalogue()["llama-3.1-8b"])
LLAMA_70B = dict(catalogue()["llama-3.1-70b"])
QWEN_MOE = dict(catalogue()["qwen3-30b-a3b"])
DEEPSEEK = {key: value for key, value in catalogue()["deepseek-v3"].items() if key != "quantization_config"}
INT4_GROUP = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128}
FP8_CHANNEL = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}


def dtypes(config: dict[str, Any], quantization: object) -> tuple[str, str, str]:
    shape = shape_from_config({**config, "quantization_config": quantization}, "mine")
    return shape.attention_dtype, shape.weight_dtype, shape.expert_dtype


def compressed(
    *groups: tuple[list[str], dict[str, Any] | None], ignore: tuple[str, ...] = ("lm_head",)
) -> dict[str, Any]:
    schemes = {f"group_{n}": {"targets": targets, "weights": weights} for n, (targets, weights) in enumerate(groups)}
    return {"quant_method": "compressed-tensors", "config_groups": schemes, "ignore": list(ignore)}


@pytest.mark.parametrize(
    ("quantization", "dtype"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["lm_head"]}, "fp8"),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 128}, "int4"),
        ({"quant_method": "gptq_marlin", "bits": "8", "group_size": -1}, "int8"),
        ({"bits": 4, "group_size": 128}, "int4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
        ({"load_in_4bit": True}, "int4"),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"}, "int4"),
        ({"quant_method": "modelopt_fp4", "quant_algo": "NVFP4"}, "fp4"),
        ({"quant_method": "modelopt", "quant_algo": "MXFP8"}, "fp8"),
        ({"quant_method": "nvfp4"}, "fp4"),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 128, "data_type": "int"}, "int4"),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 32, "data_type": "mx_fp"}, "fp4"),
        ({"quant_method": "torchao", "quant_type": "int4wo-128"}, "int4"),
        ({"quant_method": "quanto", "weights": "int8"}, "int8"),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}}, "fp8"),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp4", "group_size": 32}}}, "fp4"),
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}}, "int4"),
        ("fp8", "fp8"),
    ],
)
def test_every_method_has_its_type(quantization, dtype):
    assert dtypes(LLAMA, quantization) == (dtype,) * 3


@pytest.mark.parametrize(
    "quantization",
    [{"quant_method": "novel"}, {"quant_method": "novel", "bits": 4}, {"quant_method": "aqlm", "x": [1]}, {"a": None}],
)
def test_an_unknown_method_is_read_roughly_with_a_note(quantization):
    shape = shape_from_config({**LLAMA, "quantization_config": quantization}, "mine")
    assert shape.weight_dtype == ("int4" if "bits" in quantization else "bf16")
    assert [note for note in shape.notes if note.startswith("rough: unknown quantisation")]


def test_a_dense_model_in_four_bits_fits_on_one_gpu_of_80_gib():
    quantization = compressed((["Linear"], INT4_GROUP)) | {"format": "pack-quantized"}
    shape = shape_from_config({**LLAMA_70B, "quantization_config": quantization}, "mine")
    assert plan_memory(shape, find_gpu("h100"), fraction=0.9).fits
    assert weights_text(shape, resolve_dtypes(shape)) == "4 bit (config_groups), 36.8 GiB"


def test_groups_with_a_zero_point_and_small_groups_are_larger():
    sizes = []
    for weights in (INT4_GROUP, {**INT4_GROUP, "symmetric": False}, {**INT4_GROUP, "group_size": 32}):
        config = {**LLAMA, "quantization_config": compressed((["Linear"], weights))}
        sizes.append(shape_from_config(config, "mine").formats.mlp.size)
    assert sizes == [0.515625, 0.51953125, 0.5625]


@pytest.mark.parametrize(
    ("ignore", "expected"),
    [
        (("lm_head",), ("fp8", "fp8", "fp8")),
        (("lm_head", "re:.*self_attn.*"), ("bf16", "fp8", "fp8")),
        (("re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"), ("fp8", "bf16", "fp8")),
        (("re:(", "re:.*mlp\\.experts.*"), ("fp8", "fp8", "bf16")),
    ],
)
def test_ignored_modules_stay_in_16_bit(ignore, expected):
    assert dtypes(DEEPSEEK, compressed((["Linear"], FP8_CHANNEL), ignore=ignore)) == expected


def test_each_group_has_its_own_scheme():
    quantization = compressed((["re:.*experts\\..*"], INT4_GROUP), (["re:.*self_attn.*"], FP8_CHANNEL))
    assert dtypes(QWEN_MOE, quantization) == ("fp8", "bf16", "int4")


def test_layers_that_are_left_out_weigh_more():
    left_out = [f"model.layers.{layer}" for layer in range(8)]
    shape = shape_from_config(
        {**LLAMA, "quantization_config": {"quant_method": "fp8", "ignored_layers": left_out}}, "x"
    )
    assert shape.weight_dtype == "fp8"
    assert shape.formats.mlp.size == pytest.approx(1.25)
    assert shape.formats.attention.size == pytest.approx(1.25)


def test_the_head_is_quantised_only_where_the_checkpoint_says_so():
    plain, with_head = (
        shape_from_config({**LLAMA, "quantization_config": {"quant_method": "gptq", "bits": 4, "lm_head": head}}, "x")
        for head in (False, True)
    )
    assert (plain.formats.head.bits, with_head.formats.head.bits) == (16, 4)
    assert stored_bytes(with_head) < stored_bytes(plain)


def test_mixed_precision_is_read_from_the_list_of_layers():
    layers = {}
    for n in range(QWEN_MOE["num_hidden_layers"]):
        layers[f"model.layers.{n}.mlp.experts"] = {"quant_algo": "W4A16_NVFP4", "group_size": 16}
        layers |= {f"model.layers.{n}.self_attn.{name}_proj": {"quant_algo": "FP8"} for name in "qkvo"}
    quantization = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    assert dtypes(QWEN_MOE, quantization) == ("fp8", "bf16", "fp4")


def test_exceptions_of_gptq_and_auto_round_are_read():
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"-:.*self_attn.*": {}}}
    assert dtypes(LLAMA, gptq) == ("bf16", "int4", "int4")
    exceptions = {f"model.layers.{n}.self_attn": {"bits": 16} for n in range(32)}
    auto_round = {"quant_method": "auto-round", "bits": 4, "group_size": 128, "extra_config": exceptions}
    assert dtypes(LLAMA, auto_round)[:2] == ("bf16", "int4")


def checkpoint(folder, config: dict[str, Any], **files: object) -> str:
    for name, content in {"config": config, **files}.items():
        path = {"config": "config.json", "sidecar": "hf_quant_config.json", "index": "model.safetensors.index.json"}[
            name
        ]
        (folder / path).write_text(json.dumps(content))
    return str(folder)


def test_a_file_beside_the_configuration_is_read(tmp_path):
    quantization = {
        "quant_algo": "NVFP4",
        "group_size": 16,
        "exclude_modules": ["lm_head", "model.layers.*.self_attn*"],
    }
    folder = checkpoint(tmp_path, LLAMA, sidecar={"producer": {"name": "modelopt"}, "quantization": quantization})
    shape = model_shape(folder)
    assert (shape.attention_dtype, shape.weight_dtype) == ("bf16", "fp4")
    assert "(hf_quant_config.json)" in weights_text(shape, resolve_dtypes(shape))


def test_the_index_is_compared_with_the_reading(tmp_path):
    bf16 = 16_060_522_496
    agreeing = model_shape(checkpoint(tmp_path, LLAMA, index={"metadata": {"total_size": bf16}, "weight_map": {}}))
    assert "as in its index" in agreeing.formats.source
    assert not agreeing.notes
    larger = model_shape(checkpoint(tmp_path, LLAMA, index={"metadata": {"total_size": str(bf16 + 3 * 10**9)}}))
    assert stored_bytes(larger) == pytest.approx(bf16 + 3 * 10**9, rel=1e-6)
    assert "that of the index is taken" in larger.notes[0]
    absurd = model_shape(checkpoint(tmp_path, LLAMA, index={"metadata": {"total_size": 1}}))
    assert stored_bytes(absurd) == pytest.approx(bf16, rel=0.01)
    assert "the index is not taken" in absurd.notes[0]


def test_an_unknown_method_has_the_bits_that_its_index_speaks_for(tmp_path):
    config = {**LLAMA_70B, "quantization_config": {"quant_method": "novel"}}
    shape = model_shape(checkpoint(tmp_path, config, index={"metadata": {"total_size": 39_700_000_000}}))
    assert shape.weight_dtype == "int4"
    assert stored_bytes(shape) == pytest.approx(39_700_000_000, rel=1e-6)
    assert shape.notes == ("rough: unknown quantisation novel read as 4 bit, by the size in its index",)
    assert not shape.is_rough


@pytest.mark.parametrize("index", [{}, [], {"metadata": None}, {"metadata": {"total_size": True}}, "x"])
def test_an_index_that_says_nothing_is_passed_over(tmp_path, index):
    shape = model_shape(checkpoint(tmp_path, LLAMA, index=index))
    assert (shape.stored_scale, shape.notes) == (1.0, ())


def test_weights_stored_in_32_bit_are_loaded_in_16(tmp_path):
    config = {**LLAMA, "torch_dtype": "float32"}
    shape = model_shape(checkpoint(tmp_path, config, index={"metadata": {"total_size": 32_121_044_992}}))
    assert weights_text(shape, resolve_dtypes(shape)).startswith("16 bit (float32 in its index, loaded in 16 bit)")


def test_a_given_type_replaces_the_checkpoints(tmp_path):
    folder = checkpoint(tmp_path, {**LLAMA_70B, "quantization_config": {"quant_method": "novel"}})
    stored = model_on_gpus(folder, "h200", Layout(tp=2))
    quantised = model_on_gpus(folder, "h200", Layout(tp=2), "int4")
    assert quantised.memory_plan.weights < 0.3 * stored.memory_plan.weights
    text = weights_text(quantised.shape, quantised.dtypes, "--dtype int4")
    assert text == f"4 bit (--dtype int4), {2 * quantised.memory_plan.weights / GIB:.1f} GiB"
