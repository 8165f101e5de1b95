"""The default course of a launch."""

from dataclasses import replace
from types import SimpleNamespace

from autotuner.core import Check, LoadPoint, LoadPointResult, Workload
from autotuner.search.launch import ListedLoads
from autotuner.search.margins import is_retryable
from tests.search.problems import load_point_result

POINTS = (LoadPoint("D(1,1)", concurrency=1), LoadPoint("D(1,1)", rate=2.0))


def test_a_fixed_course_takes_every_load_point_in_order_and_then_ends():
    course = ListedLoads(Workload(POINTS, duration=7.0))
    seen = []
    while (step := course.ask()) is not None:
        seen.append((step.load_point, step.workload.load_points, step.workload.duration))
        course.tell(SimpleNamespace(load_point=step.load_point))
    assert seen == [(point, (point,), 7.0) for point in POINTS]


def test_a_load_point_is_asked_for_again_until_its_result_is_told():
    course = ListedLoads(Workload(POINTS))
    assert course.ask() == course.ask()


def test_it_says_how_many_load_points_there_are():
    assert ListedLoads(Workload(POINTS)).max_load_points == 2


def unsteady(point: LoadPoint, held: bool) -> LoadPointResult:
    return load_point_result(point, littles_law=held)


def test_what_says_nothing_is_driven_once_more_with_other_requests():
    course, seeds = ListedLoads(Workload(POINTS), should_retry=is_retryable), []
    while (step := course.ask()) is not None:
        seeds.append((step.load_point, step.workload.seed))
        course.tell(unsteady(step.load_point, held=step.load_point.rate is not None))
    assert seeds == [(POINTS[0], 0), (POINTS[0], 1), (POINTS[1], 0)]


def test_what_another_try_cannot_mend_is_not_driven_again():
    wrong = Check("output-length", 0.2, ">= 0.95", False)
    result = load_point_result(POINTS[0])
    assert not is_retryable(replace(result, validity=(wrong,)))
    assert not is_retryable(replace(result, validity=(Check("rate-capped", 3, "0", False),)))
    assert is_retryable(replace(result, validity=(Check("loop-lag-p99", 0.3, "<= 0.01 s", False),)))
    assert not is_retryable(result)
