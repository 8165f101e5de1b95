from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.predict.calibration import ServingConstants
from autotuner.predict.layout import Layout
from autotuner.predict.model_on_gpus import model_on_gpus
from autotuner.predict.predict import predict_closed_loop
from autotuner.predict.queueing import IterationSeconds, closed_loop_load, mean_tpot, mean_ttft

PLAIN = ServingConstants(
    overhead=0.01,
    wait_iterations=2.0,
    gather_iterations=0.0,
    host_per_token=0.0,
    burst_share=0.05,
    replica_interference=0.0,
    queue_scale=1.0,
    mixes_phases=True,
)
LONG = IterationSeconds(decode=0.02, single_prefill=0.5, mixed=0.52, batched_prefill=0.5, prompts=1.0)
SHORT = IterationSeconds(decode=0.02, single_prefill=0.03, mixed=0.05, batched_prefill=0.06, prompts=16.0)


def loop(concurrency=32, *, osl=100, capacity=1000.0):
    return closed_loop_load(1000, osl, concurrency, dp=1, capacity=capacity)


def test_a_token_of_a_single_request_takes_a_decode_iteration():
    assert mean_tpot(loop(1), LONG, PLAIN) == LONG.decode


def test_every_long_prompt_of_others_interrupts_a_request_once():
    assert mean_tpot(loop(32), LONG, PLAIN) == pytest.approx(0.02 + 31 / 100 * 0.5)


def test_short_prompts_that_arrive_together_share_their_fixed_costs():
    apart = 0.02 + 999 / 100 * (SHORT.mixed - SHORT.decode)
    assert mean_tpot(loop(1000), SHORT, PLAIN) < 0.4 * apart


def test_the_first_token_waits_for_the_burst_at_the_start():
    first, second = (mean_ttft(loop(n), LONG, PLAIN, 0.02) for n in (1, 101))
    wait = 2 * 0.02 * (1 - 1 / 101)  # the first waits for no other request
    assert second - first == pytest.approx(0.05 * 100 * 0.5 + wait)


def test_a_prompt_held_back_for_other_replicas_waits_until_each_has_one_and_no_longer():
    holding = replace(PLAIN, gather_iterations=40.0)
    rare, often = (
        mean_ttft(loop(64, osl=osl), SHORT, holding, 0.02) - mean_ttft(loop(64, osl=osl), SHORT, PLAIN, 0.02)
        for osl in (64_000, 64)
    )
    assert rare == pytest.approx(40 * 0.02, rel=0.06)
    assert often == pytest.approx(1 * 0.02, rel=0.06)


def test_what_the_cache_does_not_hold_waits_for_a_request_to_end():
    free, full = (mean_ttft(loop(64, capacity=capacity), LONG, PLAIN, 0.02) for capacity in (64, 32))
    assert full - free == pytest.approx(100 * 0.02 - 0.05 * 32 * 0.5, rel=0.01)


@given(
    few=st.integers(1, 500),
    more=st.integers(0, 500),
    osl=st.integers(1, 4000),
    steps=st.sampled_from([LONG, SHORT]),
)
def test_more_in_flight_never_makes_anything_faster(few, more, osl, steps):
    less, many = (loop(n, osl=osl) for n in (few, few + more))
    assert mean_tpot(less, steps, PLAIN) <= mean_tpot(many, steps, PLAIN) + 1e-12
    assert mean_ttft(less, steps, PLAIN, 0.02) <= mean_ttft(many, steps, PLAIN, 0.02) + 1e-12


def llama(engine):
    return model_on_gpus("llama-3.1-70b", "h200", Layout(), "fp8", None, "fp8", engine)


def test_an_engine_that_reserves_the_whole_answer_runs_fewer_requests_at_once():
    reserving, growing = (llama(engine).replica_load(1024, 8192, 64) for engine in ("trtllm", "vllm"))
    assert reserving.queue_ratio > growing.queue_ratio == 0
    assert reserving.batch < 64


def test_prompts_on_other_workers_do_not_interrupt_decodes():
    load: dict[str, Any] = {"isl": 8192, "osl": 512, "concurrency": 32}
    together, apart = (predict_closed_loop(llama("trtllm"), **load, separate_prefill=split) for split in (False, True))
    assert apart.tpot < 0.8 * together.tpot


def test_prompts_that_find_no_room_wait_and_do_not_slow_tokens_further():
    free, tight = (
        closed_loop_load(1000, 100, 400, dp=1, capacity=1000.0, prompt_token_limit=limit) for limit in (8192.0, 2048.0)
    )
    tokens = [mean_tpot(load, LONG, PLAIN) for load in (free, tight)]
    assert tokens[0] > tokens[1]
    firsts = [mean_ttft(load, LONG, PLAIN, tpot) for load, tpot in zip((free, tight), tokens, strict=True)]
    assert firsts[1] > firsts[0]


@given(st.integers(1, 4000), st.integers(50, 8000), st.integers(2, 2000))
def test_a_limit_on_prompt_tokens_takes_nothing_from_throughput(concurrency, isl, osl):
    """The same prompts are served, by longer iterations or after a longer wait."""
    durations = []
    for limit in (1e9, 2048.0):
        load = closed_loop_load(isl, osl, concurrency, dp=1, capacity=1e9, prompt_token_limit=limit)
        tpot = mean_tpot(load, LONG, PLAIN)
        durations.append(mean_ttft(load, LONG, PLAIN, 0.0) + osl * tpot)
    assert durations[1] == pytest.approx(durations[0], rel=0.15)
