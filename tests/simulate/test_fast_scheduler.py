"""The fast scheduler against the one that moves request by request: equal to the last bit."""

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
SIZE = 4

Asked = tuple[float, int, int, int]
"""(arrival, shared blocks, own prompt tokens, output tokens)"""

asked = st.lists(
    st.tuples(st.floats(0, 0.5), st.integers(0, 3), st.integers(1, 40), st.integers(1, 30)), min_size=1, max_size=25
)


@st.composite
def limits(draw):
    chunked = draw(st.booleans())
    return SchedulerLimits(
        max_running_requests=draw(st.integers(1, 12)),
        max_batched_tokens=draw(st.integers(1, 64)) if chunked else 84,
        max_model_len=84,
        block_size=SIZE,
        num_blocks=draw(st.integers(21, 90)),
        chunked_prefill=chunked,
        prefix_caching=draw(st.booleans()),
        policy=draw(st.sampled_from(["fcfs", "lpm"])),
    )


def requests(wanted: list[Asked]) -> list[ScheduledRequest]:
    made = []
    for number, (arrived, shared, own, output) in enumerate(sorted(wanted)):
        prompt = shared * SIZE + own
        hashes = [*range(shared), *((number, block) for block in range(shared, prompt // SIZE))]
        made.append(ScheduledRequest(prompt, output, hashes, arrived))
    return made


def one_by_one(scheduler: Scheduler, coming: list[ScheduledRequest]) -> list[list[float]]:
    times: dict[ScheduledRequest, list[float]] = {request: [] for request in coming}
    waiting, now = list(coming), 0.0
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


def at_once(scheduler: FastScheduler, coming: list[ScheduledRequest]) -> list[list[float]]:
    times: dict[ScheduledRequest, list[float]] = {}
    waiting, now = list(coming), 0.0
    while waiting or not scheduler.is_idle:
        if scheduler.is_idle:
            now = max(now, waiting[0].arrival_time)
        while waiting and waiting[0].arrival_time <= now:
            scheduler.add(waiting.pop(0))
        now, finished = scheduler.run(now, waiting[0].arrival_time if waiting else math.inf)
        for request in finished:
            times[request] = list(scheduler.token_times(request))
    return [times[request] for request in coming]


def state(request: ScheduledRequest) -> tuple[object, ...]:
    done = (
        request.generated_tokens,
        request.computed_tokens,
        request.cached_tokens,
        request.preemptions,
        request.blocks.total,
    )
    return *done, request.first_scheduled_time, request.first_token_time, request.finish_time


@given(limits(), asked)
@settings(deadline=None, max_examples=300)
def test_every_token_comes_when_it_does_request_by_request(limits, wanted):
    slow, fast = Scheduler(limits, TIMES.step), FastScheduler(limits, TIMES.step, TIMES.decode_time)
    here, there = requests(wanted), requests(wanted)
    assert at_once(fast, there) == one_by_one(slow, here)
    assert [state(request) for request in there] == [state(request) for request in here]
    assert fast.counters == slow.counters
    assert (fast.block_pool.available_blocks, fast.block_pool.cached_blocks) == (
        slow.block_pool.available_blocks,
        slow.block_pool.cached_blocks,
    )


def test_an_aborted_request_gives_back_what_it_held_and_the_others_go_on():
    limits = SchedulerLimits(8, 64, 84, SIZE, 40)
    fast = FastScheduler(limits, TIMES.step, TIMES.decode_time)
    gone, stays = ScheduledRequest(20, 30), ScheduledRequest(8, 30)
    fast.add(gone)
    fast.add(stays)
    now, finished = fast.run(0.0, 0.03)
    assert not finished
    assert fast.abort(gone)
    assert 0 < len(fast.token_times(gone)) == gone.generated_tokens < 30
    _, finished = fast.run(now, math.inf)
    assert finished == [stays]
    assert len(fast.token_times(stays)) == 30
    assert fast.block_pool.used_blocks == 0


def test_an_idle_scheduler_stands_still():
    assert FastScheduler(SchedulerLimits(8, 64, 84, SIZE, 40), TIMES.step, TIMES.decode_time).run(1.0, 2.0) == (1.0, [])
