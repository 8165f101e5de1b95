from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.predict.hardware import find_gpu
from autotuner.predict.shape import model_shape
from autotuner.predict.steps import StepTimes
from autotuner.simulate.blocks import block_hashes
from autotuner.simulate.scheduler import ScheduledRequest, Scheduler, SchedulerLimits

BASE = SchedulerLimits(
    max_running_requests=8, max_batched_tokens=64, max_model_len=256, block_size=4, num_blocks=200, prefix_caching=False
)


def cost(prefill, decodes, context):
    return 0.001 + 0.0001 * sum(new for new, _ in prefill) + 0.00001 * decodes


def drain(scheduler: Scheduler, now: float = 0.0):
    results = []
    while not scheduler.is_idle:
        result = scheduler.step(now)
        assert result is not None, "requests remain but nothing was scheduled"
        now += result.duration
        results.append(result)
    return results


def test_a_request_gets_its_first_token_from_its_prefill_and_one_per_iteration_then():
    scheduler = Scheduler(BASE, cost)
    request = ScheduledRequest(10, 5)
    scheduler.add(request)
    results = drain(scheduler)
    assert [result.prefill_tokens for result in results] == [10, 0, 0, 0, 0]
    assert [result.emitted_tokens for result in results] == [[(request, 1)]] * 5
    assert request.first_token_time == pytest.approx(0.002)
    assert request.finish_time == pytest.approx(0.002 + 4 * 0.00101)


def test_an_idle_scheduler_has_no_iteration():
    assert Scheduler(BASE, cost).step(0.0) is None


def test_a_long_prompt_is_computed_in_chunks_beside_decoding_ones():
    scheduler = Scheduler(replace(BASE, max_batched_tokens=16), cost)
    first, second = ScheduledRequest(4, 20), ScheduledRequest(40, 2)
    scheduler.add(first)
    scheduler.step(0.0)
    scheduler.add(second)
    results = drain(scheduler)
    assert [(result.prefill_tokens, result.decode_tokens) for result in results[:4]] == [
        (15, 1),
        (15, 1),
        (10, 1),
        (0, 2),
    ]


def test_whole_prompts_interrupt_decoding():
    scheduler = Scheduler(replace(BASE, chunked_prefill=False, max_batched_tokens=256), cost)
    first, second = ScheduledRequest(4, 20), ScheduledRequest(40, 2)
    scheduler.add(first)
    scheduler.step(0.0)
    scheduler.add(second)
    results = drain(scheduler)
    assert [(result.prefill_tokens, result.decode_tokens) for result in results[:2]] == [(40, 0), (0, 2)]


def test_a_shared_prefix_is_computed_once():
    scheduler = Scheduler(replace(BASE, prefix_caching=True), cost)
    prompt = list(range(32))
    for _ in range(2):
        scheduler.add(ScheduledRequest(32, 1, block_hashes(prompt, 4)))
        drain(scheduler)
    # The last block is computed again: its last token's output is the first new token.
    assert (scheduler.counters.prefix_query_tokens, scheduler.counters.prefix_hit_tokens) == (64, 28)
    assert scheduler.counters.prefill_tokens == 32 + 4


def test_the_newest_request_is_preempted_and_recomputed():
    scheduler = Scheduler(replace(BASE, num_blocks=16, max_model_len=64), cost)
    old, new = ScheduledRequest(30, 30), ScheduledRequest(20, 12)
    scheduler.add(old)
    scheduler.add(new)
    results = drain(scheduler)
    assert (old.preemptions, new.preemptions >= 1) == (0, True)
    assert scheduler.counters.preemptions == sum(len(result.preempted_requests) for result in results)
    assert (old.generated_tokens, new.generated_tokens) == (30, 12)


def test_a_preempted_request_is_first_in_the_queue():
    scheduler = Scheduler(replace(BASE, num_blocks=16, max_model_len=64, max_running_requests=2), cost)
    old, preempted, later = ScheduledRequest(30, 30), ScheduledRequest(24, 12), ScheduledRequest(4, 4)
    for request in (old, preempted, later):
        scheduler.add(request)
    drain(scheduler)
    assert preempted.preemptions == 1
    # It needs the blocks of the old one, and the small one behind it must not overtake it.
    assert later.first_scheduled_time is not None
    assert old.finish_time is not None
    assert later.first_scheduled_time >= old.finish_time


def test_admission_leaves_blocks_for_running_requests_to_grow():
    scheduler = Scheduler(replace(BASE, max_model_len=800, max_batched_tokens=800), cost)
    large, small = ScheduledRequest(796, 3), ScheduledRequest(4, 1)
    scheduler.add(large)
    scheduler.add(small)
    result = scheduler.step(0.0)
    assert [request for request, _ in result.emitted_tokens] == [large]
    drain(scheduler, result.duration)
    assert (small.finish_time is not None, scheduler.counters.preemptions) == (True, 0)


def test_longest_prefix_match_goes_first_under_lpm():
    limits = replace(BASE, prefix_caching=True, max_running_requests=1, policy="lpm")
    scheduler = Scheduler(limits, cost)
    cached_hashes = block_hashes(list(range(32)), 4)
    scheduler.add(ScheduledRequest(32, 1, cached_hashes))
    drain(scheduler)
    uncached, cached = (
        ScheduledRequest(32, 1, block_hashes(list(range(50, 82)), 4)),
        ScheduledRequest(32, 1, cached_hashes),
    )
    scheduler.add(uncached)
    scheduler.add(cached)
    drain(scheduler)
    assert cached.finish_time is not None
    assert uncached.finish_time is not None
    assert cached.finish_time < uncached.finish_time


@pytest.mark.parametrize(("prompt", "output"), [(0, 1), (1, 0), (200, 57)])
def test_a_request_that_can_never_be_served_is_rejected(prompt, output):
    with pytest.raises(ValueError):
        Scheduler(BASE, cost).add(ScheduledRequest(prompt, output))


@pytest.mark.parametrize(
    "changes", [{"num_blocks": 63}, {"max_batched_tokens": 255, "chunked_prefill": False}, {"block_size": 0}]
)
def test_limits_that_could_block_a_request_forever_are_rejected(changes):
    with pytest.raises(ValueError):
        replace(BASE, **changes)


def test_an_aborted_request_frees_its_blocks_whether_waiting_or_running():
    scheduler = Scheduler(replace(BASE, max_running_requests=1), cost)
    running, waiting = ScheduledRequest(10, 5), ScheduledRequest(10, 5)
    scheduler.add(running)
    scheduler.add(waiting)
    scheduler.step(0.0)
    assert scheduler.abort(running)
    assert scheduler.abort(waiting)
    assert not scheduler.abort(waiting)
    assert (scheduler.is_idle, scheduler.block_pool.used_blocks) == (True, 0)


@st.composite
def workloads(draw):
    """Limits that can all bind, and requests with shared prefixes that fit in them."""
    block_size = draw(st.sampled_from([1, 4, 16]))
    model_len = draw(st.integers(8, 96))
    min_blocks = -(-model_len // block_size)
    chunked = draw(st.booleans())
    limits = SchedulerLimits(
        max_running_requests=draw(st.integers(1, 6)),
        max_batched_tokens=draw(st.integers(1, 64)) if chunked else draw(st.integers(model_len, 2 * model_len)),
        max_model_len=model_len,
        block_size=block_size,
        num_blocks=draw(st.integers(min_blocks, 3 * min_blocks)),
        chunked_prefill=chunked,
        prefix_caching=draw(st.booleans()),
        policy=draw(st.sampled_from(["fcfs", "lpm"])),
    )
    plans = []
    for _ in range(draw(st.integers(1, 12))):
        prompt = draw(st.integers(1, model_len - 1))
        output = draw(st.integers(1, model_len - prompt))
        plans.append((prompt, output, draw(st.integers(0, 2)), draw(st.integers(0, 5)), draw(st.booleans())))
    return limits, plans


def play(limits, plans, check=lambda scheduler, result: None):
    """Run requests of (prompt, output, prefix family, iterations to wait before, aborted half-way)."""
    scheduler = Scheduler(limits, cost)
    requests, now, history, pending = [], 0.0, [], list(plans)
    delay = pending[0][3]
    while pending or not scheduler.is_idle:
        while pending and delay <= 0:
            prompt, output, family, _, aborted = pending.pop(0)
            request = ScheduledRequest(
                prompt, output, block_hashes([family] * prompt, limits.block_size), arrival_time=now
            )
            scheduler.add(request)
            requests.append((request, aborted))
            delay = pending[0][3] if pending else 0
        delay -= 1
        result = scheduler.step(now)
        assert result is not None or scheduler.is_idle
        if result is None:
            continue
        now += result.duration
        check(scheduler, result)
        history.append((result.duration, [(requests_index(requests, r), n) for r, n in result.emitted_tokens]))
        for request, aborted in requests:
            if aborted and request.generated_tokens > request.output_tokens // 2:
                scheduler.abort(request)
    return scheduler, requests, history


def requests_index(requests, request):
    return next(index for index, (other, _) in enumerate(requests) if other is request)


@settings(max_examples=150, deadline=None)
@given(workloads())
def test_limits_hold_in_every_iteration_and_no_token_or_block_is_lost(workload):
    limits, plans = workload
    emitted = prefilled = 0

    def check(scheduler, result):
        nonlocal emitted, prefilled
        assert result.prefill_tokens + result.decode_tokens <= limits.max_batched_tokens
        assert len(scheduler.running) <= limits.max_running_requests
        assert 0 <= scheduler.block_pool.used_blocks <= limits.num_blocks
        assert scheduler.block_pool.used_blocks <= sum(request.blocks.total for request in scheduler.running)
        assert result.duration > 0
        assert all((request.computed_tokens, request.blocks.total) == (0, 0) for request in result.preempted_requests)
        emitted += sum(tokens for _, tokens in result.emitted_tokens)
        prefilled += result.prefill_tokens

    scheduler, requests, _ = play(limits, plans, check)
    for request, aborted in requests:
        if request.finish_time is None:
            assert aborted
        else:
            assert request.generated_tokens == request.output_tokens
            assert request.first_scheduled_time <= request.first_token_time <= request.finish_time
    assert emitted == sum(request.generated_tokens for request, _ in requests) == scheduler.counters.generated_tokens
    assert prefilled == scheduler.counters.prefill_tokens
    finished = sum(request.finish_time is not None for request, _ in requests)
    assert finished + scheduler.counters.aborted_requests == len(requests)
    if not scheduler.counters.preemptions and not any(aborted for *_, aborted in plans):
        prompts = sum(request.prompt_tokens for request, _ in requests)
        assert (
            prefilled + scheduler.counters.prefix_hit_tokens == prompts
            if limits.prefix_caching
            else prefilled == prompts
        )
    assert scheduler.block_pool.used_blocks == 0


@settings(max_examples=60, deadline=None)
@given(workloads())
def test_requests_start_in_the_order_they_came(workload):
    limits, plans = workload
    _, requests, _ = play(replace(limits, policy="fcfs"), plans)
    starts = [request.first_scheduled_time for request, _ in requests if request.first_scheduled_time is not None]
    assert starts == sorted(starts)


@settings(max_examples=40, deadline=None)
@given(workloads())
def test_the_same_workload_gives_the_same_history(workload):
    assert play(*workload)[2] == play(*workload)[2]


def test_a_day_of_work_is_simulated_in_virtual_time_on_real_step_times():
    times = StepTimes(model_shape("llama-3.1-8b"), find_gpu("h100"))
    limits = SchedulerLimits(64, 2048, 8192, 16, 20_000, prefix_caching=False)
    scheduler = Scheduler(limits, times.step)
    for _ in range(300):
        scheduler.add(ScheduledRequest(500, 100))
    results = drain(scheduler)
    assert scheduler.counters.generated_tokens == 30_000
    seconds = sum(result.duration for result in results)
    assert 2_000 < 30_000 / seconds < 10_000, "output tokens per second of a busy H100"
