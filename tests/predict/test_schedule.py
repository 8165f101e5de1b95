"""The simulated schedule of a closed loop, against sums that are known by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.predict.harness import Harness
from autotuner.predict.schedule import CacheLimit, StepCurves, simulate_schedule

MIXING = StepCurves((1.0, 256.0), (0.01, 0.02), 0.002, 2e-5, 8192.0, 1e-5, mixes_phases=True)
PREFILL_FIRST = replace(MIXING, mixes_phases=False)
FIXED = Harness("fixed", 1.0, 10.0, 0)
VARIED = Harness("varied", 0.8, 10.0, 0)
ROOM = CacheLimit()


def run(curves=MIXING, harness=FIXED, isl=1000, osl=201, in_flight=16, limit=ROOM, tokens_per_step=1.0):
    return simulate_schedule(
        curves, harness, isl=isl, osl=osl, in_flight=in_flight, limit=limit, tokens_per_step=tokens_per_step
    )


@pytest.mark.parametrize("curves", [MIXING, PREFILL_FIRST])
def test_one_request_waits_for_nobody(curves):
    times = run(curves, in_flight=1)
    assert times.queue == 0
    assert times.prefill == pytest.approx(0.002 + 1000 * 2e-5)
    assert times.decode == pytest.approx(0.01)
    assert times.stall == 0


def test_a_prompt_longer_than_a_step_takes_several():
    assert run(in_flight=1, isl=16384).prefill == pytest.approx(2 * 0.002 + 16384 * 2e-5)


def test_fixed_lengths_run_in_lockstep_where_prompts_go_first():
    """All 16 prompts arrive together in every wave: steps of 8 prompts, so half of them wait for one step."""
    times, step = run(PREFILL_FIRST), 0.002 + 8000 * 2e-5
    assert times.queue == pytest.approx(step / 2)
    assert times.prefill == pytest.approx(step)
    assert times.decode == pytest.approx(PREFILL_FIRST.decode_seconds(16))
    assert times.stall == pytest.approx(step / 200 / 2)


def test_varied_lengths_leave_the_lockstep():
    assert run(PREFILL_FIRST, VARIED).queue < 0.5 * run(PREFILL_FIRST, FIXED).queue


def test_the_initial_burst_counts_where_no_warmup_wave_is_left_out():
    warm = replace(VARIED, warmup_waves=3)
    assert run(harness=warm, in_flight=64).queue < run(harness=VARIED, in_flight=64).queue


def test_prompts_of_others_stall_decodes_where_prompts_go_first_and_where_they_mix():
    for curves in (MIXING, PREFILL_FIRST):
        assert run(curves, VARIED, isl=4000).stall > 3 * run(curves, VARIED, isl=1000).stall > 0


def test_a_full_cache_makes_requests_wait_for_others_to_end():
    """Of 16 requests 8 run: each waits about as long as it runs."""
    limit = CacheLimit(tokens=8 * 1201)
    times = run(limit=limit)
    assert times.queue == pytest.approx(200 * times.decode, rel=0.25)
    assert run(limit=CacheLimit(running=8)).queue == pytest.approx(times.queue, rel=0.05)


def test_an_engine_that_reserves_nothing_preempts_and_computes_again():
    """Prompts of 12 fit, whole answers of 10: what is admitted too much is preempted."""
    room = 10 * (100 + 800)
    growing = run(isl=100, osl=801, limit=CacheLimit(tokens=room, reserves=False))
    reserving = run(isl=100, osl=801, limit=CacheLimit(tokens=room, reserves=True))
    free = run(isl=100, osl=801)
    assert growing.queue < reserving.queue
    assert growing.decode + growing.stall > free.decode + free.stall


def test_accepted_drafts_shorten_the_time_per_token():
    assert run(in_flight=1, tokens_per_step=2.0).decode == pytest.approx(0.005)


# an answer of one step that ends amid a prompt of several is counted until the end of that prompt: from 3 tokens on
@given(
    st.floats(1, 600), st.integers(16, 20000), st.integers(3, 4000), st.floats(0.5, 1.0), st.booleans(), st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_any_load_ends_with_times_that_are_possible(in_flight, isl, osl, ratio, mixes, reserves):
    curves, harness = replace(MIXING, mixes_phases=mixes), Harness("any", ratio, 4.0, 1)
    limit = CacheLimit(tokens=4 * (isl + osl), running=64, reserves=reserves)
    times = run(curves, harness, isl, osl, in_flight, limit)
    assert all(math.isfinite(value) and value >= 0 for value in times)
    if reserves:  # a preempted request waits between its tokens
        assert times.decode <= MIXING.decode[-1] * 1.01
    assert times.prefill >= 0.002
