"""The fast scheduler against the one that steps request by request: equal to the last bit."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.predict.hardware import find_gpu
from autotuner.predict.shape import model_shape
from autotuner.predict.steps import StepTimes
from autotuner.simulate.fast_scheduler import FastScheduler
from autotuner.simulate.scheduler import ScheduledRequest, Scheduler, SchedulerLimits

TIMES = StepTimes(model_shape("qwen3-0.6b"), find_gpu("a100_sxm"))
BLOCK_SIZE = 4

RequestPlan = tuple[float, int, int, int]
"""(arrival time, shared prefix blocks, further prompt tokens, output tokens)"""

request_plans = st.lists(
    st.tuples(st.floats(0, 0.5), st.integers(0, 3), st.integers(1, 40), st.integers(1, 30)), min_size=1, max_size=25
)


@st.composite
def limits(draw):
    chunked = draw(st.booleans())
    return SchedulerLimits(
        max_running_requests=draw(st.integers(1, 12)),
        max_batched_tokens=draw(st.integers(1, 64)) if chunked else 84,
        max_model_len=84,
        block_size=BLOCK_SIZE,
        num_blocks=draw(st.integers(21, 90)),
        chunked_prefill=chunked,
        prefix_caching=draw(st.booleans()),
        policy=draw(st.sampled_from(["fcfs", "lpm"])),
    )


def build_requests(plans: list[RequestPlan]) -> list[ScheduledRequest]:
    requests = []
    for number, (arrival_time, shared_blocks, further_tokens, output_tokens) in enumerate(sorted(plans)):
        prompt_tokens = shared_blocks * BLOCK_SIZE + further_tokens
        unique_blocks = range(shared_blocks, prompt_tokens // BLOCK_SIZE)
        hashes = [*range(shared_blocks), *((number, block) for block in unique_blocks)]
        requests.append(ScheduledRequest(prompt_tokens, output_tokens, hashes, arrival_time))
    return requests


def run_one_by_one(scheduler: Scheduler, requests: list[ScheduledRequest]) -> list[list[float]]:
    times: dict[ScheduledRequest, list[float]] = {request: [] for request in requests}
    waiting, now = list(requests), 0.0
    while waiting or not scheduler.is_idle:
        if scheduler.is_idle:
            now = max(now, waiting[0].arrival_time)
        while waiting and waiting[0].arrival_time <= now:
            scheduler.add(waiting.pop(0))
        result = scheduler.step(now)
        now += result.duration
        for request, _ in result.emitted_tokens:
            times[request].append(now)
    return list(times.values())


def run_at_once(scheduler: FastScheduler, requests: list[ScheduledRequest]) -> list[list[float]]:
    times: dict[ScheduledRequest, list[float]] = {}
    waiting, now = list(requests), 0.0
    while waiting or not scheduler.is_idle:
        if scheduler.is_idle:
            now = max(now, waiting[0].arrival_time)
        while waiting and waiting[0].arrival_time <= now:
            scheduler.add(waiting.pop(0))
        now, finished = scheduler.run(now, waiting[0].arrival_time if waiting else math.inf)
        for request in finished:
            times[request] = list(scheduler.token_times(request))
    return [times[request] for request in requests]


def state(request: ScheduledRequest) -> tuple[object, ...]:
    progress = (
        request.generated_tokens,
        request.computed_tokens,
        request.cached_tokens,
        request.preemptions,
        request.blocks.total,
    )
    return *progress, request.first_scheduled_time, request.first_token_time, request.finish_time


@given(limits(), request_plans)
@settings(deadline=None, max_examples=300)
def test_every_token_is_emitted_at_the_same_time_as_request_by_request(limits, plans):
    slow, fast = Scheduler(limits, TIMES.step), FastScheduler(limits, TIMES.step, TIMES.decode_time)
    slow_requests, fast_requests = build_requests(plans), build_requests(plans)
    assert run_at_once(fast, fast_requests) == run_one_by_one(slow, slow_requests)
    assert [state(request) for request in fast_requests] == [state(request) for request in slow_requests]
    assert fast.counters == slow.counters
    assert (fast.block_pool.available_blocks, fast.block_pool.cached_blocks) == (
        slow.block_pool.available_blocks,
        slow.block_pool.cached_blocks,
    )


def test_an_aborted_request_frees_its_blocks_and_the_others_continue():
    limits = SchedulerLimits(8, 64, 84, BLOCK_SIZE, 40)
    fast = FastScheduler(limits, TIMES.step, TIMES.decode_time)
    aborted, remaining = ScheduledRequest(20, 30), ScheduledRequest(8, 30)
    fast.add(aborted)
    fast.add(remaining)
    now, finished = fast.run(0.0, 0.03)
    assert not finished
    assert fast.abort(aborted)
    assert 0 < len(fast.token_times(aborted)) == aborted.generated_tokens < 30
    _, finished = fast.run(now, math.inf)
    assert finished == [remaining]
    assert len(fast.token_times(remaining)) == 30
    assert fast.block_pool.used_blocks == 0


def test_an_idle_scheduler_does_not_advance_the_clock():
    assert FastScheduler(SchedulerLimits(8, 64, 84, BLOCK_SIZE, 40), TIMES.step, TIMES.decode_time).run(1.0, 2.0) == (
        1.0,
        [],
    )
