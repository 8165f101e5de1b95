from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.predict.layout import Layout
from autotuner.predict.load_curve import Served
from autotuner.predict.open_loop import OpenService, SaturatedError
from autotuner.predict.steps import StepTimes
from autotuner.predict.traffic import Software, Traffic
from autotuner.simulate.scheduler import Limits, Request, Scheduler


def service(model="qwen3-32b", tp=2, isl=4000, osl=300) -> OpenService:
    return OpenService(Served(Software("vllm").on(model, "h100", Layout(tp=tp)), Traffic(isl, osl)))


def test_few_requests_see_what_one_request_sees():
    asked = service()
    found = asked.at(asked.highest / 1000)
    assert found.ttft == pytest.approx(asked.served.alone.ttft, rel=0.02)
    assert found.tpot == pytest.approx(asked.served.alone.tpot, rel=0.02)


def test_requests_in_flight_are_what_littles_law_says():
    found = service().at(1.5)
    assert found.in_flight == pytest.approx(1.5 * (found.ttft + 299 * found.tpot))


def test_a_rate_beyond_the_highest_says_that_it_saturates_and_what_is_sustained():
    asked = service()
    with pytest.raises(SaturatedError, match=r"saturates: .* it sustains .* at most") as raised:
        asked.at(1.01 * asked.highest)
    assert raised.value.highest == asked.highest
    assert raised.value.exit_code == 1


def test_intervals_widen_towards_saturation_and_end_open():
    asked = service()
    widths = [(found := asked.at(share * asked.highest)).tpot_interval.high / found.tpot for share in (0.1, 0.4, 0.6)]
    assert widths == sorted(widths)
    assert math.isinf(asked.at(0.97 * asked.highest).ttft_interval.high)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 0.98), st.floats(0.01, 0.98))
def test_more_arrivals_never_make_anything_faster(one, other):
    asked = service(model="qwen3-8b", tp=1, isl=1000, osl=200)
    less, more = sorted((one, other))
    few, many = asked.at(less * asked.highest), asked.at(more * asked.highest)
    assert few.ttft <= many.ttft * 1.0001
    assert few.tpot <= many.tpot * 1.0001
    assert few.wait <= many.wait * 1.0001


def simulated(asked: OpenService, rate: float, count: int = 500) -> tuple[float, float]:
    """Mean TTFT and TPOT of Poisson arrivals in the scheduler, in virtual time, on the same step times."""
    of, traffic = asked.served.of, asked.served.traffic
    times = StepTimes(of.shape, of.gpu, tp=of.layout.tp, engine=of.engine)
    limits = Limits(512, 8192, traffic.isl + traffic.osl, 16, of.plan.kv_tokens // 16)
    scheduler, chance, now = Scheduler(limits, times.step), random.Random(1), 0.0
    due = [now := now + chance.expovariate(rate) for _ in range(count)]
    requests: list[Request] = []
    now = 0.0
    while len(requests) < count or not scheduler.idle:
        while len(requests) < count and due[len(requests)] <= now:
            requests.append(Request(traffic.isl, traffic.osl, arrived=due[len(requests)]))
            scheduler.add(requests[-1])
        step = scheduler.step(now)
        now = due[len(requests)] if step is None else now + step.duration
    kept = requests[100:-50]
    first = [r.first_token - r.arrived for r in kept]
    each = [(r.finished - r.first_token) / (traffic.osl - 1) for r in kept]
    return sum(first) / len(kept), sum(each) / len(kept)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_closed_form_agrees_with_the_simulated_scheduler(share):
    """On the same step times; what an engine spends around them is left out of the comparison."""
    asked = service()
    found = asked.at(share * asked.highest)
    ttft, tpot = simulated(asked, share * asked.highest)
    assert found.tpot == pytest.approx(tpot, rel=0.08)
    assert found.ttft - asked.served.overhead == pytest.approx(ttft, rel=0.2)
