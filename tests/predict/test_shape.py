from __future__ import annotations

import json

import pytest

from autotuner.errors import ConfigError
from autotuner.predict.shape import catalogue, model_shape, shape_from_config

LLAMA = dict(catalogue()["llama-3.1-8b"])


@pytest.mark.parametrize(
    ("name", "billions", "active"),
    [
        ("llama-3.1-8b", 8.03, 8.03),
        ("llama-3.1-70b", 70.55, 70.55),
        ("llama-3.2-1b", 1.236, 1.236),
        ("qwen3-0.6b", 0.596, 0.596),
        ("qwen3-8b", 8.19, 8.19),
        ("qwen3-32b", 32.76, 32.76),
        ("qwen3-30b-a3b", 30.53, 3.35),
        ("mixtral-8x7b", 46.70, 12.88),
    ],
)
def test_bundled_models_have_their_published_size(name, billions, active):
    shape = model_shape(name)
    assert shape.parameters / 1e9 == pytest.approx(billions, rel=0.002)
    assert shape.active_parameters / 1e9 == pytest.approx(active, rel=0.005)


@pytest.mark.parametrize(
    "spelling",
    [
        "llama-3-2-1b-instruct",
        "meta-llama/Llama-3.2-1B-Instruct",
        "meta-llama/Llama-3.2-1B",
        "Meta-Llama-3.2-1B",
    ],
)
def test_a_bundled_model_is_found_however_it_is_spelled(spelling):
    assert model_shape(spelling).name == "llama-3.2-1b"


def test_a_config_is_read_from_its_folder_or_its_file(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**LLAMA, "num_hidden_layers": 2}))
    assert model_shape(str(tmp_path)).layers == 2
    assert model_shape(str(config)).layers == 2


def test_fields_a_config_may_leave_out_follow_from_the_others():
    shape = shape_from_config(
        {key: LLAMA[key] for key in LLAMA if key not in ("head_dim", "num_key_value_heads")}, "mine"
    )
    assert (shape.head_dim, shape.kv_heads) == (128, 32)


def test_missing_fields_are_named_together():
    holes = {key: LLAMA[key] for key in LLAMA if key not in ("vocab_size", "hidden_size")}
    with pytest.raises(ConfigError, match="The config of 'mine' lacks: hidden_size, vocab_size"):
        shape_from_config(holes, "mine")


def test_a_mixture_without_its_expert_count_is_refused():
    config = dict(catalogue()["qwen3-30b-a3b"])
    del config["num_experts"]
    with pytest.raises(ConfigError, match="lacks: num_experts"):
        shape_from_config(config, "mine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": "wide"}, "positive whole numbers for: hidden_size"),
        ({"num_hidden_layers": 0}, "positive whole numbers for: num_hidden_layers"),
    ],
)
def test_a_size_that_is_none_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        shape_from_config({**LLAMA, **change}, "mine")


@pytest.mark.parametrize(
    ("quantization", "dtype"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_algo": "FP8", "producer": {"name": "modelopt"}}, "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "fp4"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
    ],
)
def test_the_weight_type_of_quantised_checkpoints_is_read(quantization, dtype):
    assert shape_from_config({**LLAMA, "quantization_config": quantization}, "mine").weight_dtype == dtype


def test_a_window_bounds_what_is_cached():
    (windowed,) = shape_from_config({**LLAMA, "sliding_window": 4096}, "mine").attentions
    assert windowed.cache_entries(100_000) == windowed.attended_entries(100_000) == 4096
    assert windowed.query_key_pairs(8192) == 4096 * 4097 / 2 + 4096 * 4096


def test_every_bundled_model_has_a_shape():
    for name in catalogue():
        shape = model_shape(name)
        assert 0.5e9 < shape.active_parameters <= shape.parameters < 3e12, name
        assert shape.attentions
        assert shape.feed_forwards


@pytest.mark.parametrize(
    ("name", "billions", "active"),
    [
        ("deepseek-r1", 671.0, 37.6),
        ("kimi-k2.5", 1026.4, 32.9),
        ("glm-5", 743.9, 41.8),
        ("gpt-oss-120b", 116.8, 5.7),
        ("qwen3.5-397b-a17b", 396.4, 17.4),
        ("minimax-m2.5", 228.7, 11.0),
        ("nvidia-nemotron-3-super-120b-a12b-fp8", 120.7, 12.8),
        ("llama-3_3-nemotron-super-49b-v1", 49.9, 49.9),
        ("llama-4-maverick-17b-128e-instruct", 400.7, 17.2),
        ("mimo-v2-flash", 308.8, 15.5),
    ],
)
def test_hybrids_and_mixtures_have_their_published_size(name, billions, active):
    shape = model_shape(name)
    assert shape.parameters / 1e9 == pytest.approx(billions, rel=0.005)
    assert shape.active_parameters / 1e9 == pytest.approx(active, rel=0.01)


def test_a_requantised_checkpoint_has_the_shape_of_its_base():
    shape = model_shape("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8")
    assert (shape.parameters, shape.weight_dtype) == (model_shape("llama-3.1-8b").parameters, "fp8")


def test_a_model_that_is_nowhere_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'qwen3-8b'"):
        model_shape("qwen3-9b")
    with pytest.raises(ConfigError, match="There is no model at"):
        model_shape(str(tmp_path / "missing"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="Cannot read"):
        model_shape(str(tmp_path))
