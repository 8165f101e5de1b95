"""The default load plan of a launch, and when a load point is measured again."""

from dataclasses import replace
from types import SimpleNamespace

from autotuner.core import Check, LoadPoint, LoadPointResult, Workload
from autotuner.search.launch import ListedLoads
from autotuner.search.margins import is_retryable
from tests.factories import load_point_result

POINTS = (LoadPoint("D(1,1)", concurrency=1), LoadPoint("D(1,1)", rate=2.0))


def test_listed_loads_take_every_load_point_in_order_and_then_end():
    load_plan = ListedLoads(Workload(POINTS, duration=7.0))
    steps = []
    while (step := load_plan.ask()) is not None:
        steps.append((step.load_point, step.workload.load_points, step.workload.duration))
        load_plan.tell(SimpleNamespace(load_point=step.load_point))  # type: ignore[arg-type]
    assert steps == [(point, (point,), 7.0) for point in POINTS]


def test_a_load_point_is_returned_until_its_result_is_told():
    load_plan = ListedLoads(Workload(POINTS))
    assert load_plan.ask() == load_plan.ask()


def test_it_knows_how_many_load_points_there_are():
    assert ListedLoads(Workload(POINTS)).max_load_points == 2


def result_at(point: LoadPoint, is_steady: bool) -> LoadPointResult:
    return load_point_result(point, littles_law=is_steady)


def test_an_invalid_load_point_is_measured_once_more_with_another_seed():
    load_plan, seeds = ListedLoads(Workload(POINTS), should_retry=is_retryable), []
    while (step := load_plan.ask()) is not None:
        seeds.append((step.load_point, step.workload.seed))
        load_plan.tell(result_at(step.load_point, is_steady=step.load_point.rate is not None))
    assert seeds == [(POINTS[0], 0), (POINTS[0], 1), (POINTS[1], 0)]


def test_a_check_that_would_fail_again_is_not_retried():
    failed_check = Check("output-length", 0.2, ">= 0.95", False)
    result = load_point_result(POINTS[0])
    assert not is_retryable(replace(result, validity=(failed_check,)))
    assert not is_retryable(replace(result, validity=(Check("rate-capped", 3, "0", False),)))
    assert is_retryable(replace(result, validity=(Check("loop-lag-p99", 0.3, "<= 0.01 s", False),)))
    assert not is_retryable(result)
