from __future__ import annotations

import pytest

from autotuner.predict.hardware import find_gpu
from autotuner.predict.memory import GIB, kv_bytes_per_token, plan_memory, weight_bytes
from autotuner.predict.shape import model_shape

LLAMA_8B = model_shape("llama-3.1-8b")
LLAMA_70B = model_shape("llama-3.1-70b")


def test_weights_are_two_bytes_a_parameter_in_bf16_and_divide_over_gpus():
    assert weight_bytes(LLAMA_8B) == pytest.approx(2 * LLAMA_8B.parameters, rel=0.001)
    assert weight_bytes(LLAMA_70B, tp=4) == pytest.approx(2 * LLAMA_70B.parameters / 4, rel=0.001)
    assert weight_bytes(LLAMA_70B, pp=2) < 0.52 * weight_bytes(LLAMA_70B)


def test_quantising_leaves_the_embeddings_in_bf16():
    embeddings = 2 * LLAMA_8B.embedding_weights
    assert weight_bytes(LLAMA_8B, dtype="fp8") == LLAMA_8B.layer_weights + embeddings


def test_kv_bytes_per_token_are_those_engines_state():
    assert kv_bytes_per_token(LLAMA_8B) == 128 * 1024
    assert kv_bytes_per_token(LLAMA_70B) == 320 * 1024
    assert kv_bytes_per_token(LLAMA_70B, dtype="fp8", tp=4) == 40 * 1024


def test_kv_heads_are_copied_when_there_are_more_gpus_than_heads():
    assert kv_bytes_per_token(LLAMA_70B, tp=16) == kv_bytes_per_token(LLAMA_70B, tp=8)


def test_the_pool_of_an_8b_model_on_an_h100_is_about_what_engines_log():
    memory_plan = plan_memory(LLAMA_8B, find_gpu("h100"), fraction=0.9)
    assert memory_plan.fits
    assert 420_000 < memory_plan.kv_tokens < 480_000


def test_what_does_not_fit_says_so_in_figures():
    memory_plan = plan_memory(LLAMA_70B, find_gpu("h100"), fraction=0.85)
    assert not memory_plan.fits
    assert "weights need 131.4 GiB" in memory_plan.shortage
    assert "80.0 GiB x 0.85 = 68.0 GiB" in memory_plan.shortage


def test_the_pool_grows_with_the_fraction_and_with_gpus():
    pools = [plan_memory(LLAMA_8B, find_gpu("a100"), fraction=fraction).kv_tokens for fraction in (0.5, 0.7, 0.9)]
    assert pools == sorted(pools)
    assert plan_memory(LLAMA_70B, find_gpu("h100"), fraction=0.9, tp=4).fits


def test_the_parts_add_up_to_the_budget():
    memory_plan = plan_memory(LLAMA_8B, find_gpu("h100"), fraction=0.8)
    used = (
        memory_plan.weights
        + memory_plan.activations
        + memory_plan.overhead
        + memory_plan.kv_tokens * memory_plan.kv_bytes_per_token
    )
    assert 0 <= memory_plan.budget - used < memory_plan.kv_bytes_per_token
    assert memory_plan.budget == int(80 * GIB * 0.8)
