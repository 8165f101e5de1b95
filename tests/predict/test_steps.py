from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.predict.efficiencies import Efficiencies
from autotuner.predict.hardware import find_gpu
from autotuner.predict.shape import model_shape
from autotuner.predict.steps import StepTimes

LLAMA_8B = model_shape("llama-3.1-8b")
H100 = find_gpu("h100")
IDEAL = Efficiencies(elementwise=0.0, permute=0.0)
KINDS = (
    "llama-3.1-8b",
    "qwen3-30b-a3b",
    "deepseek-r1",
    "glm-5",
    "gpt-oss-120b",
    "qwen3.5-397b-a17b",
    "deepseek-v4-flash",
    "nvidia-nemotron-3-super-120b-a12b-fp8",
)


def test_one_decoding_sequence_is_bound_by_reading_the_weights():
    step = StepTimes(LLAMA_8B, H100, efficiencies=IDEAL).step([], 1, 0)
    read = 2 * (LLAMA_8B.layer_weights + LLAMA_8B.vocab_size * LLAMA_8B.hidden_size) / H100.bandwidth
    assert step == pytest.approx(read, rel=0.02)


def test_a_long_prompt_is_bound_by_arithmetic():
    step = StepTimes(LLAMA_8B, H100, efficiencies=IDEAL).parts([(4096, 0)])
    linear = 2 * 4096 * LLAMA_8B.layer_weights / H100.flops["bf16"]
    attention = 4 * 32 * 32 * 128 * 4096 * 4097 / 2 / H100.flops["bf16"]
    assert step.attention_proj + step.mlp == pytest.approx(linear, rel=0.02)
    assert step.attention == pytest.approx(attention, rel=0.02)


def test_chunks_of_a_prompt_do_the_attention_of_the_whole():
    times = StepTimes(LLAMA_8B, H100, efficiencies=IDEAL)
    whole = times.parts([(8192, 0)]).attention
    assert sum(times.parts([(2048, start)]).attention for start in range(0, 8192, 2048)) == pytest.approx(whole)


def test_figures_on_an_h100_are_near_what_is_measured_there():
    times = StepTimes(LLAMA_8B, H100)
    assert 0.005 < times.step([], 1, 1000) < 0.010
    assert 0.03 < times.step([(2048, 0)]) < 0.10


def test_two_gpus_are_faster_than_one_but_not_twice():
    shape = model_shape("llama-3.1-70b")
    one, two, four = (StepTimes(shape, find_gpu("h200"), tp=tp).step([], 8, 8000) for tp in (1, 2, 4))
    assert one / 2 < two < one
    assert two / 2 < four < two


def test_small_reductions_cost_more_per_token_on_more_gpus():
    shape = model_shape("llama-3.1-70b")
    parts = [StepTimes(shape, find_gpu("h200"), tp=tp, efficiencies=IDEAL) for tp in (2, 8)]
    two, eight = (times.parts([], 64, 0).collectives - times.parts([], 1, 0).collectives for times in parts)
    assert eight > 3 * two > 0


def test_a_batch_picks_fewer_experts_than_tokens_that_choose_alone():
    expert = [StepTimes(model_shape("qwen3-30b-a3b"), H100, efficiencies=IDEAL).parts([], n, 0).expert for n in (1, 16)]
    assert 3 < expert[1] / expert[0] < 16 * 0.7


def test_tensor_parallelism_over_pcie_costs_more_than_over_nvlink():
    nvlink = StepTimes(LLAMA_8B, find_gpu("h100_sxm"), tp=4).parts([(4096, 0)])
    pcie = StepTimes(LLAMA_8B, find_gpu("h100_pcie"), tp=4).parts([(4096, 0)])
    assert pcie.collectives > 4 * nvlink.collectives > 0


def test_a_pipeline_does_not_shorten_an_iteration():
    assert StepTimes(LLAMA_8B, H100, pp=2).step([], 1, 1000) > StepTimes(LLAMA_8B, H100).step([], 1, 1000)


def test_a_mixture_reads_more_experts_in_larger_batches():
    times = StepTimes(model_shape("mixtral-8x7b"), H100, efficiencies=IDEAL)
    one, eight, many = (times.parts([], batch, 0).expert for batch in (1, 8, 64))
    assert one < 0.4 * eight
    assert eight < many


def test_sparse_attention_stops_growing_where_it_stops_selecting():
    times = StepTimes(model_shape("glm-5"), H100, tp=8, efficiencies=IDEAL)
    short, long = (times.parts([], 8, 8 * context).attention for context in (4096, 65_536))
    assert long < 3 * short


def test_a_recurrent_state_costs_the_same_at_any_length():
    times = StepTimes(model_shape("qwen3.5-27b"), H100, efficiencies=IDEAL)
    assert times.parts([], 8, 8 * 100).state == times.parts([], 8, 8 * 100_000).state > 0


def test_smaller_types_are_faster_and_eager_launches_slower():
    plain = StepTimes(LLAMA_8B, H100).step([], 16, 32_000)
    assert StepTimes(LLAMA_8B, H100, weight_dtype="fp8").step([], 16, 32_000) < plain
    assert StepTimes(LLAMA_8B, H100, kv_dtype="fp8").step([], 16, 32_000) < plain
    small = model_shape("qwen3-0.6b")
    assert StepTimes(small, H100, cuda_graph=False).step([], 1, 100) > StepTimes(small, H100).step([], 1, 100)


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(KINDS),
    chunks=st.lists(st.tuples(st.integers(1, 8192), st.integers(0, 32_768)), max_size=4),
    decodes=st.integers(0, 512),
    context=st.integers(0, 4096),
    tp=st.sampled_from([1, 2, 4, 8]),
)
def test_more_work_never_takes_less_time(name, chunks, decodes, context, tp):
    times = StepTimes(model_shape(name), H100, tp=tp)
    base = times.step(chunks, decodes, decodes * context)
    slack = 1e-12
    assert base > 0
    assert times.step([*chunks, (64, 0)], decodes, decodes * context) >= base - slack
    assert times.step(chunks, decodes + 1, decodes * context + context) >= base - slack
    assert times.step(chunks, decodes, decodes * context + 100) >= base - slack
    assert sum(times.parts(chunks, decodes, decodes * context)) == pytest.approx(base)


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_an_iteration_without_prompts_takes_the_sum_of_its_parts(kind, cuda_graph):
    times = StepTimes(model_shape(kind), find_gpu("h200"), tp=8, cuda_graph=cuda_graph)
    for decodes, context in ((1, 0), (1, 1), (3, 700), (64, 64 * 5000), (256, 1_000_000)):
        assert times.step([], decodes, context) == pytest.approx(times.parts([], decodes, context).total, rel=1e-12)
