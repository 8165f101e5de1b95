import math

import pytest

from autotuner.errors import NoFeasibleError
from autotuner.profiling.plan import PlannedLoad, WorkerCurves, plan_workers, queue_seconds, rate_of_concurrency
from autotuner.profiling.planner_profile import PlannerProfile
from tests.profiling.points import decode, prefill


@pytest.fixture(scope="module")
def curves():
    """20 prompts/s of 600 tokens; ITL 5 ms and 0.1 ms more per request."""
    points = [decode(size, 0.005 + size * 1e-4, context) for context in (100, 580, 1900) for size in (1, 10, 40)]
    lengths = (100, 300, 600, 1200, 2400)
    return WorkerCurves(PlannerProfile.from_points([prefill(n, n / 12_000) for n in lengths], points, 100_000), 1, 2)


def load(rate, **more):
    return PlannedLoad(**{"rate": rate, "isl": 600, "osl": 40, "ttft": 0.2, "itl": 0.008, **more})


def test_the_fewest_workers_that_meet_both_targets(curves):
    plan = plan_workers(curves, load(30))
    assert plan.prefill_workers == 2
    # 30 requests in flight take 8 ms: 30 / (40 x 8 ms) is 93.75 requests/s
    assert plan.decode_rate_per_worker == pytest.approx(93.75, rel=0.05)
    assert plan.decode_workers == 1
    assert plan.gpus == 4
    assert plan.ttft + plan.prefill_wait <= 0.2
    assert plan.itl <= 0.008
    assert plan.missed_targets == ()


def test_a_tight_ttft_needs_more_workers_than_throughput_alone(curves):
    loose, tight = plan_workers(curves, load(36, ttft=1.0)), plan_workers(curves, load(36, ttft=0.06))
    assert loose.prefill_workers == 2
    assert tight.prefill_workers > 2


def test_requests_in_flight_follow_from_rate_and_itl(curves):
    plan = plan_workers(curves, load(50))
    assert plan.requests_per_worker == pytest.approx(50 * 40 * plan.itl, rel=0.02)


def test_a_budget_is_never_exceeded_and_the_plan_says_what_it_serves(curves):
    plan = plan_workers(curves, load(1000, max_gpus=9))
    assert plan.gpus <= 9
    assert plan.is_short
    assert 60 < plan.served_rate < 1000
    enough = plan_workers(curves, load(30, max_gpus=4))
    assert not enough.is_short


def test_a_budget_that_holds_no_worker_of_each_kind_is_an_error(curves):
    with pytest.raises(NoFeasibleError, match="at least --total-gpus 3"):
        plan_workers(curves, load(1, max_gpus=2))


def test_a_target_that_one_idle_worker_misses_is_named(curves):
    plan = plan_workers(curves, load(1, ttft=0.01, itl=0.004))
    assert plan.missed_targets == ("TTFT", "ITL")


def test_waiting_is_that_of_an_m_d_c_queue():
    # M/D/1 at 50%: half a service time
    assert queue_seconds(1, 1.0, 0.5) == pytest.approx(0.5)
    assert queue_seconds(4, 1.0, 2.0) < 0.2
    assert queue_seconds(1, 1.0, 1.0) == math.inf


def test_a_concurrency_is_a_rate_by_littles_law(curves):
    rate = rate_of_concurrency(curves, load(0), 37)
    assert rate == pytest.approx(37 / (0.05 + 40 * 0.008), rel=0.05)
