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


def service(model="qwen3-32b", tp=2, isl=4000, osl=300) -> OpenLoopModel:
    return OpenLoopModel(LoadCurve(Software("vllm").deploy(model, "h100", Layout(tp=tp)), Traffic(isl, osl)))


def test_few_requests_see_what_one_request_sees():
    asked = service()
    found = asked.at_rate(asked.max_rate / 1000)
    assert found.ttft == pytest.approx(asked.load_curve.single_request.ttft, rel=0.02)
    assert found.tpot == pytest.approx(asked.load_curve.single_request.tpot, rel=0.02)


def test_requests_in_flight_are_what_littles_law_says():
    found = service().at_rate(1.5)
    assert found.in_flight == pytest.approx(1.5 * (found.ttft + 299 * found.tpot))


def test_a_rate_beyond_the_highest_says_that_it_saturates_and_what_is_sustained():
    asked = service()
    with pytest.raises(SaturatedError, match=r"saturates: .* it sustains .* at most") as raised:
        asked.at_rate(1.01 * asked.max_rate)
    assert raised.value.max_rate == asked.max_rate
    assert raised.value.exit_code == 1


def test_intervals_widen_towards_saturation_and_end_open():
    asked = service()
    widths = [
        (found := asked.at_rate(share * asked.max_rate)).tpot_interval.upper / found.tpot for share in (0.1, 0.4, 0.6)
    ]
    assert widths == sorted(widths)
    assert math.isinf(asked.at_rate(0.97 * asked.max_rate).ttft_interval.upper)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 0.98), st.floats(0.01, 0.98))
def test_more_arrivals_never_make_anything_faster(one, other):
    asked = service(model="qwen3-8b", tp=1, isl=1000, osl=200)
    less, more = sorted((one, other))
    few, many = asked.at_rate(less * asked.max_rate), asked.at_rate(more * asked.max_rate)
    assert few.ttft <= many.ttft * 1.0001
    assert few.tpot <= many.tpot * 1.0001
    assert few.wait <= many.wait * 1.0001


def simulated(asked: OpenLoopModel, rate: float, count: int = 500) -> tuple[float, float]:
    """Mean TTFT and TPOT of Poisson arrivals in the scheduler, in virtual time, on the same step times."""
    of, traffic = asked.load_curve.deployment, asked.load_curve.traffic
    times = StepTimes(of.shape, of.gpu, tp=of.layout.tp, engine=of.engine)
    limits = SchedulerLimits(512, 8192, traffic.isl + traffic.osl, 16, of.memory_plan.kv_tokens // 16)
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
    first = [r.first_token_time - r.arrival_time for r in kept]
    each = [(r.finish_time - r.first_token_time) / (traffic.osl - 1) for r in kept]
    return sum(first) / len(kept), sum(each) / len(kept)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_closed_form_agrees_with_the_simulated_scheduler(share):
    """On the same step times; what an engine spends around them is left out of the comparison."""
    asked = service()
    found = asked.at_rate(share * asked.max_rate)
    ttft, tpot = simulated(asked, share * asked.max_rate)
    assert found.tpot == pytest.approx(tpot, rel=0.08)
    assert found.ttft - asked.load_curve.ttft_overhead == pytest.approx(ttft, rel=0.2)
