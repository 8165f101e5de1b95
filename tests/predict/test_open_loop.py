from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.predict.layout import Layout
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.open_loop import OpenLoopModel, SaturatedError
from autotuner.predict.steps import StepTimes
from autotuner.predict.traffic import Software, Traffic
from autotuner.simulate.scheduler import ScheduledRequest, Scheduler, SchedulerLimits


def open_loop_model(model="qwen3-32b", tp=2, isl=4000, osl=300) -> OpenLoopModel:
    return OpenLoopModel(LoadCurve(Software("vllm").deploy(model, "h100", Layout(tp=tp)), Traffic(isl, osl)))


def test_few_requests_see_what_one_request_sees():
    open_loop = open_loop_model()
    prediction = open_loop.at_rate(open_loop.max_rate / 1000)
    assert prediction.ttft == pytest.approx(open_loop.load_curve.single_request.ttft, rel=0.02)
    assert prediction.tpot == pytest.approx(open_loop.load_curve.single_request.tpot, rel=0.02)


def test_requests_in_flight_are_what_littles_law_says():
    prediction = open_loop_model().at_rate(1.5)
    assert prediction.in_flight == pytest.approx(1.5 * (prediction.ttft + 299 * prediction.tpot))


def test_a_rate_beyond_the_highest_says_that_it_saturates_and_what_is_sustained():
    open_loop = open_loop_model()
    with pytest.raises(SaturatedError, match=r"saturates: .* it sustains .* at most") as raised:
        open_loop.at_rate(1.01 * open_loop.max_rate)
    assert raised.value.max_rate == open_loop.max_rate
    assert raised.value.exit_code == 1


def test_intervals_widen_towards_saturation_and_end_open():
    open_loop = open_loop_model()
    widths = [
        (prediction := open_loop.at_rate(share * open_loop.max_rate)).tpot_interval.upper / prediction.tpot
        for share in (0.1, 0.4, 0.6)
    ]
    assert widths == sorted(widths)
    assert math.isinf(open_loop.at_rate(0.97 * open_loop.max_rate).ttft_interval.upper)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 0.98), st.floats(0.01, 0.98))
def test_more_arrivals_never_make_anything_faster(one, other):
    open_loop = open_loop_model(model="qwen3-8b", tp=1, isl=1000, osl=200)
    less, more = sorted((one, other))
    few, many = open_loop.at_rate(less * open_loop.max_rate), open_loop.at_rate(more * open_loop.max_rate)
    assert few.ttft <= many.ttft * 1.0001
    assert few.tpot <= many.tpot * 1.0001
    assert few.wait <= many.wait * 1.0001


def simulated(open_loop: OpenLoopModel, rate: float, count: int = 500) -> tuple[float, float]:
    """Mean TTFT and TPOT of Poisson arrivals in the scheduler, in virtual time, on the same step times."""
    deployment, traffic = open_loop.load_curve.deployment, open_loop.load_curve.traffic
    times = StepTimes(deployment.shape, deployment.gpu, tp=deployment.layout.tp, engine=deployment.engine)
    limits = SchedulerLimits(512, 8192, traffic.isl + traffic.osl, 16, deployment.memory_plan.kv_tokens // 16)
    scheduler, chance, now = Scheduler(limits, times.step), random.Random(1), 0.0
    due = [now := now + chance.expovariate(rate) for _ in range(count)]
    requests: list[ScheduledRequest] = []
    now = 0.0
    while len(requests) < count or not scheduler.is_idle:
        while len(requests) < count and due[len(requests)] <= now:
            requests.append(ScheduledRequest(traffic.isl, traffic.osl, arrival_time=due[len(requests)]))
            scheduler.add(requests[-1])
        step = scheduler.step(now)
        now = due[len(requests)] if step is None else now + step.duration
    kept = requests[100:-50]
    first, each = [], []
    for request in kept:
        assert request.first_token_time is not None
        assert request.finish_time is not None
        first.append(request.first_token_time - request.arrival_time)
        each.append((request.finish_time - request.first_token_time) / (traffic.osl - 1))
    return sum(first) / len(kept), sum(each) / len(kept)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_closed_form_agrees_with_the_simulated_scheduler(share):
    """On the same step times; what an engine spends around them is left out of the comparison."""
    open_loop = open_loop_model()
    prediction = open_loop.at_rate(share * open_loop.max_rate)
    ttft, tpot = simulated(open_loop, share * open_loop.max_rate)
    assert prediction.tpot == pytest.approx(tpot, rel=0.08)
    assert prediction.ttft - open_loop.load_curve.ttft_overhead == pytest.approx(ttft, rel=0.2)
