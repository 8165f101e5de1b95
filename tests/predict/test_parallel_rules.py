"""What each engine refuses of tensor, pipeline, data and expert parallel sizes."""

from __future__ import annotations

import pytest

from autotuner.errors import ConfigError
from autotuner.experiment import Model
from autotuner.predict.parallel_rules import ModelDimensions, ParallelSizes, model_dimensions, refusals
from autotuner.predict.predict import predict
from autotuner.predict.shape import model_shape

ENGINES = ("vllm", "sglang", "trtllm")
LLAMA = ModelDimensions(heads=32, kv_heads=(8,), layers=61, experts=None)
MIXTURE = ModelDimensions(heads=32, kv_heads=(4,), layers=48, experts=60)


def reasons(model: ModelDimensions, engine: str, **sizes: int) -> list[str]:
    return list(refusals(model, engine, ParallelSizes(**sizes)))


@pytest.mark.parametrize("engine", ENGINES)
def test_layers_need_not_divide_over_stages(engine):
    assert not reasons(LLAMA, engine, tp=8, pp=2)
    assert reasons(LLAMA, engine, pp=62) == ["61 layers are fewer than pp-size 62"]


@pytest.mark.parametrize("engine", ENGINES)
def test_key_value_heads_are_copied_a_whole_number_of_times(engine):
    assert not reasons(LLAMA, engine, tp=16)
    assert not reasons(LLAMA, engine, tp=4)
    grouped = ModelDimensions(heads=24, kv_heads=(3,))
    assert not reasons(grouped, engine, tp=6)
    assert reasons(grouped, engine, tp=2) == ["3 key-value heads and tp-size 2 do not divide one another"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_latent_cache_has_no_heads_to_divide(engine):
    model = model_dimensions(Model(id_or_path="deepseek-r1"))
    assert (model.heads, model.kv_heads) == (128, ())
    assert not reasons(model, engine, tp=16)
    assert reasons(model, engine, tp=12)


def test_attention_replicas_split_the_heads_over_the_rest_of_tp():
    model = ModelDimensions(heads=20, kv_heads=(4,))
    assert not reasons(model, "sglang", tp=8, attention_dp=2)
    assert reasons(model, "sglang", tp=8) == ["20 attention heads are not divisible by tp-size 8"]
    assert reasons(model, "sglang", tp=8, attention_dp=3) == [
        "tp-size 8 is not a multiple of dp-size 3, over which it is split"
    ]
    assert reasons(model, "sglang", tp=16, attention_dp=2) == [
        "20 attention heads are not divisible by tp-size 16 / dp-size 2"
    ]


@pytest.mark.parametrize(("engine", "is_refused"), [("vllm", False), ("sglang", True), ("trtllm", True)])
def test_experts_are_in_equal_parts_except_on_vllm(engine, is_refused):
    assert bool(reasons(MIXTURE, engine, tp=8, ep=8)) == is_refused
    assert not reasons(MIXTURE, engine, tp=4, ep=4)
    assert reasons(MIXTURE, engine, tp=64, ep=64)[-1] == "60 experts are fewer than ep-size 64"


@pytest.mark.parametrize("engine", ["sglang", "trtllm"])
def test_expert_groups_are_a_part_of_tp(engine):
    assert not reasons(MIXTURE, engine, tp=4, ep=2)
    assert reasons(MIXTURE, engine, tp=4, ep=3) == [
        "tp-size 4 is not a multiple of ep-size 3, over which its experts are split"
    ]


def test_every_number_of_key_value_heads_counts():
    shape = model_shape("gemma-4-26b-a4b")
    dimensions = ModelDimensions.from_shape(shape)
    assert dimensions.kv_heads == (8, 2)
    assert set(model_dimensions(Model(id_or_path="gemma-4-26b-a4b")).kv_heads) == {8, 2}


def test_dimensions_of_odd_configurations_are_read_as_far_as_they_go():
    assert ModelDimensions.from_config({"num_attention_heads": "x", "n_layer": "6"}).layers == 6
    assert ModelDimensions.from_config({"llm_config": {"n_head": 8, "kv_n_heads": 2}}).kv_heads == (2,)
    assert ModelDimensions.from_config({}) == ModelDimensions()
    assert model_dimensions(Model(id_or_path="acme/unheard-of")) == ModelDimensions()


def test_a_prediction_refuses_what_a_run_refuses():
    with pytest.raises(ConfigError, match="48 attention heads are not divisible by tp 5"):
        predict("minimax-m2.5", "h200", isl=512, osl=64, concurrency=4, tp=5)
    assert predict("deepseek-r1", "h200", isl=512, osl=64, concurrency=4, tp=8, pp=2).gpus == 16
