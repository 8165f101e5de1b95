from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.predict.hardware import gpu
from autotuner.predict.shape import catalogue, model_shape
from autotuner.predict.steps import Efficiency, StepTimes

LLAMA_8B = model_shape("llama-3.1-8b")
H100 = gpu("h100")
IDEAL = Efficiency(1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0)


def test_one_decoding_sequence_is_bound_by_reading_the_weights():
    step = StepTimes(LLAMA_8B, H100, efficiency=IDEAL).step([], 1, 0)
    read = 2 * (LLAMA_8B.layer_weights + LLAMA_8B.vocabulary * LLAMA_8B.hidden) / H100.bandwidth
    assert step == pytest.approx(read, rel=0.001)


def test_a_long_prompt_is_bound_by_arithmetic():
    step = StepTimes(LLAMA_8B, H100, efficiency=IDEAL).parts([(4096, 0)]).layers
    linear = 2 * 4096 * LLAMA_8B.layer_weights / H100.flops["bf16"]
    attention = 4 * 32 * 32 * 128 * 4096 * 4097 / 2 / H100.flops["bf16"]
    assert step == pytest.approx(linear + attention, rel=0.02)


def test_chunks_of_a_prompt_do_the_attention_of_the_whole():
    times = StepTimes(LLAMA_8B, H100, efficiency=IDEAL)
    whole = times.parts([(8192, 0)]).layers
    chunked = sum(times.parts([(2048, start)]).layers for start in range(0, 8192, 2048))
    assert chunked == pytest.approx(whole, rel=0.03)


def test_figures_on_an_h100_are_near_what_is_measured_there():
    times = StepTimes(LLAMA_8B, H100)
    assert 0.005 < times.step([], 1, 1000) < 0.009
    assert 0.03 < times.step([(2048, 0)]) < 0.08


def test_two_gpus_are_faster_than_one_but_not_twice():
    shape = model_shape("llama-3.1-70b")
    one, two, four = (StepTimes(shape, gpu("h200"), tp=tp).step([], 8, 8000) for tp in (1, 2, 4))
    assert one / 2 < two < one
    assert two / 2 < four < two


def test_tensor_parallelism_over_pcie_costs_more_than_over_nvlink():
    nvlink = StepTimes(LLAMA_8B, gpu("h100_sxm"), tp=4).parts([(4096, 0)])
    pcie = StepTimes(LLAMA_8B, gpu("h100_pcie"), tp=4).parts([(4096, 0)])
    assert pcie.communication > 5 * nvlink.communication > 0


def test_an_all_reduce_sends_all_but_a_gpus_own_share_twice():
    parts = StepTimes(LLAMA_8B, H100, tp=4, efficiency=IDEAL).parts([(1000, 0)])
    data = 1000 * LLAMA_8B.hidden * 2
    assert parts.communication == pytest.approx(2 * 32 * data * 2 * 3 / 4 / H100.intra_node)


def test_a_pipeline_does_not_shorten_an_iteration():
    assert StepTimes(LLAMA_8B, H100, pp=2).step([], 1, 1000) > StepTimes(LLAMA_8B, H100).step([], 1, 1000)


def test_a_mixture_reads_more_experts_in_larger_batches():
    times = StepTimes(model_shape("mixtral-8x7b"), H100, efficiency=IDEAL)
    one, eight, many = (times.parts([], batch, 0).layers for batch in (1, 8, 64))
    assert one < 0.4 * eight
    assert eight < many


def test_smaller_types_are_faster_and_eager_launches_slower():
    plain = StepTimes(LLAMA_8B, H100).step([], 16, 32_000)
    assert StepTimes(LLAMA_8B, H100, weight_dtype="fp8").step([], 16, 32_000) < plain
    assert StepTimes(LLAMA_8B, H100, kv_dtype="fp8").step([], 16, 32_000) < plain
    small = model_shape("qwen3-0.6b")
    assert StepTimes(small, H100, cuda_graph=False).step([], 1, 100) > StepTimes(small, H100).step([], 1, 100)


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(sorted(catalogue())),
    chunks=st.lists(st.tuples(st.integers(1, 8192), st.integers(0, 32_768)), max_size=4),
    decodes=st.integers(0, 512),
    context=st.integers(0, 4096),
    tp=st.sampled_from([1, 2, 4, 8]),
)
def test_more_work_never_takes_less_time(name, chunks, decodes, context, tp):
    times = StepTimes(model_shape(name), H100, tp=tp)
    base = times.step(chunks, decodes, decodes * context)
    assert base > 0
    assert times.step([*chunks, (64, 0)], decodes, decodes * context) >= base
    assert times.step(chunks, decodes + 1, decodes * context + context) >= base
    assert times.step(chunks, decodes, decodes * context + 100) >= base
    assert sum(times.parts(chunks, decodes, decodes * context)) == pytest.approx(base)
