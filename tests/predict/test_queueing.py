from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.predict.calibration import Serving
from autotuner.predict.layout import Layout
from autotuner.predict.model_on_gpus import deployment
from autotuner.predict.predict import closed_loop
from autotuner.predict.queueing import Steps, loop_of, tpot_of, ttft_of

PLAIN = Serving(
    overhead=0.01, wait=2.0, gather=0.0, per_token=0.0, burst=0.05, replicas=0.0, saturation=1.0, mixes=True
)
LONG = Steps(decode=0.02, alone=0.5, mixed=0.52, batched=0.5, prompts=1.0)
SHORT = Steps(decode=0.02, alone=0.03, mixed=0.05, batched=0.06, prompts=16.0)


def loop(concurrency=32, *, osl=100, capacity=1000.0):
    return loop_of(1000, osl, concurrency, dp=1, capacity=capacity)


def test_a_token_of_a_single_request_takes_a_decode_iteration():
    assert tpot_of(loop(1), LONG, PLAIN) == LONG.decode


def test_every_long_prompt_of_others_interrupts_a_request_once():
    assert tpot_of(loop(32), LONG, PLAIN) == pytest.approx(0.02 + 31 / 100 * 0.5)


def test_short_prompts_that_arrive_together_share_their_fixed_costs():
    apart = 0.02 + 999 / 100 * (SHORT.mixed - SHORT.decode)
    assert tpot_of(loop(1000), SHORT, PLAIN) < 0.4 * apart


def test_the_first_token_waits_for_the_burst_at_the_start():
    first, second = (ttft_of(loop(n), LONG, PLAIN, 0.02) for n in (1, 101))
    assert second - first == pytest.approx(0.05 * 100 * 0.5)


def test_a_prompt_held_back_for_other_replicas_waits_until_each_has_one_and_no_longer():
    holding = replace(PLAIN, gather=40.0)
    rare, often = (
        ttft_of(loop(64, osl=osl), SHORT, holding, 0.02) - ttft_of(loop(64, osl=osl), SHORT, PLAIN, 0.02)
        for osl in (64_000, 64)
    )
    assert rare == pytest.approx(40 * 0.02, rel=0.05)
    assert often == pytest.approx(1 * 0.02, rel=0.05)


def test_what_the_cache_does_not_hold_waits_for_a_request_to_end():
    free, full = (ttft_of(loop(64, capacity=held), LONG, PLAIN, 0.02) for held in (64, 32))
    assert full - free == pytest.approx(100 * 0.02 - 0.05 * 32 * 0.5)


@given(
    few=st.integers(1, 500),
    more=st.integers(0, 500),
    osl=st.integers(1, 4000),
    steps=st.sampled_from([LONG, SHORT]),
)
def test_more_in_flight_never_makes_anything_faster(few, more, osl, steps):
    less, many = (loop(n, osl=osl) for n in (few, few + more))
    assert tpot_of(less, steps, PLAIN) <= tpot_of(many, steps, PLAIN) + 1e-12
    assert ttft_of(less, steps, PLAIN, 0.02) <= ttft_of(many, steps, PLAIN, 0.02) + 1e-12


def llama(engine):
    return deployment("llama-3.1-70b", "h200", Layout(), "fp8", None, "fp8", engine)


def test_an_engine_that_reserves_the_whole_answer_runs_fewer_requests_at_once():
    reserving, growing = (llama(engine).loop(1024, 8192, 64) for engine in ("trtllm", "vllm"))
    assert reserving.queued > growing.queued == 0
    assert reserving.batch < 64


def test_shorter_requests_than_told_leave_room_for_more():
    whole, shorter = (llama("trtllm").loop(1024, 8192, 64, lengths=share) for share in (1.0, 0.9))
    assert shorter.batch == pytest.approx(whole.batch / 0.9)


def test_prompts_on_other_workers_do_not_interrupt_decodes():
    load = {"isl": 8192, "osl": 512, "concurrency": 32}
    together, apart = (closed_loop(llama("trtllm"), **load, apart=split) for split in (False, True))
    assert apart.tpot < 0.8 * together.tpot


def test_prompts_that_find_no_room_wait_and_do_not_slow_tokens_further():
    free, tight = (loop_of(1000, 100, 400, dp=1, capacity=1000.0, room=room) for room in (8192.0, 2048.0))
    tokens = [tpot_of(of, LONG, PLAIN) for of in (free, tight)]
    assert tokens[0] > tokens[1]
    firsts = [ttft_of(of, LONG, PLAIN, tpot) for of, tpot in zip((free, tight), tokens, strict=True)]
    assert firsts[1] > firsts[0]


@given(st.integers(1, 4000), st.integers(50, 8000), st.integers(2, 2000))
def test_a_limit_on_prompt_tokens_takes_nothing_from_throughput(concurrency, isl, osl):
    """The same prompts are served, by longer iterations or after a longer wait."""
    took = []
    for room in (1e9, 2048.0):
        of = loop_of(isl, osl, concurrency, dp=1, capacity=1e9, room=room)
        tpot = tpot_of(of, LONG, PLAIN)
        took.append(ttft_of(of, LONG, PLAIN, 0.0) + osl * tpot)
    assert took[1] == pytest.approx(took[0], rel=0.15)
