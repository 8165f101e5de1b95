"""The memory plan beside what vLLM logged at start, as its users published it.

Each record is one start: what was asked for, and the lines "Model loading took" and "Available KV
cache memory" in GiB and "GPU KV cache size" in tokens, None where the source does not quote them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from autotuner.predict import memory
from autotuner.predict.hardware import find_gpu
from autotuner.predict.memory import GIB
from autotuner.predict.shape import model_shape


@dataclass(frozen=True)
class Start:
    source: str
    model: str
    gpu: str
    tp: int
    utilisation: float
    batched_tokens: int
    weights: float | None = None
    pool: float | None = None
    tokens: int | None = None


STARTS = [
    # vLLM 0.15.1, LLM(...) with --enforce-eager
    Start("github.com/ilseokoh/vllm-gce README", "llama-3.1-8b", "a100_sxm_40gb", 1, 0.9, 8192, 14.99, 19.28, 157_936),
    # vLLM 0.19.0, vllm serve openai/gpt-oss-20b --gpu-memory-utilization 0.65
    Start("myoceane.fr/index.php/ai-vllm-a100-gemma-4", "gpt-oss-20b", "a100", 1, 0.65, 2048, 13.72, 36.56),
    # vLLM 0.6, one prompt of max_model_len in an iteration
    Start("vllm-project/vllm#10517", "llama-3.1-8b", "rtx_3090", 1, 0.9, 20_000, 14.99, 3.81, 1952 * 16),
    Start("vllm-project/vllm#10517", "llama-3.1-8b", "rtx_3090", 1, 0.9, 29_000, 14.99, 2.89, 1478 * 16),
    Start("vllm-project/vllm#23278", "gpt-oss-120b", "h100", 1, 0.9, 8192, 65.97),
    Start("vllm-project/vllm#17327", "qwen3-30b-a3b", "a100", 4, 0.9, 8192, 14.25),
]


def planned(start: Start) -> memory.MemoryPlan:
    return memory.plan_memory(
        model_shape(start.model),
        find_gpu(start.gpu),
        fraction=start.utilisation,
        tp=start.tp,
        max_batched_tokens=start.batched_tokens,
    )


def having(field: str) -> list[Any]:
    kept = [start for start in STARTS if getattr(start, field) is not None]
    return [pytest.param(start, id=f"{start.model}-{start.gpu}-{start.batched_tokens}") for start in kept]


@pytest.mark.parametrize("start", having("weights"))
def test_weights_are_what_was_loaded_to_four_percent(start):
    assert planned(start).weights / GIB == pytest.approx(start.weights, rel=0.04)


@pytest.mark.parametrize("start", having("pool"))
def test_the_pool_is_what_was_available_to_three_percent_of_the_memory(start):
    plan = planned(start)
    assert plan.kv_pool / GIB == pytest.approx(start.pool, abs=0.03 * plan.memory / GIB)


@pytest.mark.parametrize("start", having("tokens"))
def test_a_pool_of_that_size_holds_the_tokens_that_were_logged_to_one_percent(start):
    """Bytes per token, whatever the pool: blocks are the only other thing in the count."""
    assert start.pool * GIB / planned(start).kv_bytes_per_token == pytest.approx(start.tokens, rel=0.01)


def test_a_cache_of_one_key_value_head_per_gpu_is_counted_in_full():
    """Qwen3-235B-A22B-FP8 on four H100: 178,880 tokens in 8.11 GiB (vllm-project/vllm#21348)."""
    per_token = memory.kv_bytes_per_token(model_shape("qwen3-235b-a22b-fp8"), tp=4)
    assert 8.11 * GIB / per_token == pytest.approx(178_880, rel=0.02)
