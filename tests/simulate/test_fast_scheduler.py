"""The fast scheduler against the one that moves request by request: equal to the last bit."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.predict.hardware import gpu
from autotuner.predict.shape import model_shape
from autotuner.predict.steps import StepTimes
from autotuner.simulate.fast_scheduler import FastScheduler
from autotuner.simulate.scheduler import Limits, Request, Scheduler

TIMES = StepTimes(model_shape("qwen3-0.6b"), gpu("a100_sxm"))
SIZE = 4

Asked = tuple[float, int, int, int]
"""(arrival, shared blocks, own prompt tokens, output tokens)"""

asked = st.lists(
    st.tuples(st.floats(0, 0.5), st.integers(0, 3), st.integers(1, 40), st.integers(1, 30)), min_size=1, max_size=25
)


@st.composite
def limits(draw):
    chunked = draw(st.booleans())
    return Limits(
        max_running_requests=draw(st.integers(1, 12)),
        max_batched_tokens=draw(st.integers(1, 64)) if chunked else 84,
        max_model_len=84,
        block_size=SIZE,
        blocks=draw(st.integers(21, 90)),
        chunked_prefill=chunked,
        prefix_caching=draw(st.booleans()),
        policy=draw(st.sampled_from(["fcfs", "lpm"])),
    )


def requests(wanted: list[Asked]) -> list[Request]:
    made = []
    for number, (arrived, shared, own, output) in enumerate(sorted(wanted)):
        prompt = shared * SIZE + own
        hashes = [*range(shared), *((number, block) for block in range(shared, prompt // SIZE))]
        made.append(Request(prompt, output, hashes, arrived))
    return made


def one_by_one(scheduler: Scheduler, coming: list[Request]) -> list[list[float]]:
    times: dict[Request, list[float]] = {request: [] for request in coming}
    waiting, now = list(coming), 0.0
    while waiting or not scheduler.idle:
        if scheduler.idle:
            now = max(now, waiting[0].arrived)
        while waiting and waiting[0].arrived <= now:
            scheduler.add(waiting.pop(0))
        result = scheduler.step(now)
        now += result.duration
        for request, _ in result.emitted:
            times[request].append(now)
    return list(times.values())


def at_once(scheduler: FastScheduler, coming: list[Request]) -> list[list[float]]:
    times: dict[Request, list[float]] = {}
    waiting, now = list(coming), 0.0
    while waiting or not scheduler.idle:
        if scheduler.idle:
            now = max(now, waiting[0].arrived)
        while waiting and waiting[0].arrived <= now:
            scheduler.add(waiting.pop(0))
        now, finished = scheduler.run(now, waiting[0].arrived if waiting else math.inf)
        for request in finished:
            times[request] = list(scheduler.token_times(request))
    return [times[request] for request in coming]


def state(request: Request) -> tuple[object, ...]:
    done = request.generated, request.computed, request.cached_tokens, request.preemptions, request.holding.blocks
    return *done, request.first_scheduled, request.first_token, request.finished


@given(limits(), asked)
@settings(deadline=None, max_examples=300)
def test_every_token_comes_when_it_does_request_by_request(limits, wanted):
    slow, fast = Scheduler(limits, TIMES.step), FastScheduler(limits, TIMES.step, TIMES.decoding)
    here, there = requests(wanted), requests(wanted)
    assert at_once(fast, there) == one_by_one(slow, here)
    assert [state(request) for request in there] == [state(request) for request in here]
    assert fast.counters == slow.counters
    assert (fast.pool.available, fast.pool.cached) == (slow.pool.available, slow.pool.cached)


def test_an_aborted_request_gives_back_what_it_held_and_the_others_go_on():
    limits = Limits(8, 64, 84, SIZE, 40)
    fast = FastScheduler(limits, TIMES.step, TIMES.decoding)
    gone, stays = Request(20, 30), Request(8, 30)
    fast.add(gone)
    fast.add(stays)
    now, finished = fast.run(0.0, 0.03)
    assert not finished
    assert fast.abort(gone)
    assert 0 < len(fast.token_times(gone)) == gone.generated < 30
    _, finished = fast.run(now, math.inf)
    assert finished == [stays]
    assert len(fast.token_times(stays)) == 30
    assert fast.pool.in_use == 0


def test_an_idle_scheduler_stands_still():
    assert FastScheduler(Limits(8, 64, 84, SIZE, 40), TIMES.step, TIMES.decoding).run(1.0, 2.0) == (1.0, [])
