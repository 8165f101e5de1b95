"""The default course of a launch."""

from dataclasses import replace
from types import SimpleNamespace

from autotuner.core import Check, LoadPoint, LoadPointResult, Workload
from autotuner.search.launch import FixedCourse
from autotuner.search.margins import may_be_chance
from tests.search.problems import figures

POINTS = (LoadPoint("D(1,1)", concurrency=1), LoadPoint("D(1,1)", rate=2.0))


def test_a_fixed_course_takes_every_load_point_in_order_and_then_ends():
    course = FixedCourse(Workload(POINTS, duration=7.0))
    seen = []
    while (step := course.ask()) is not None:
        seen.append((step.load_point, step.workload.load_points, step.workload.duration))
        course.tell(SimpleNamespace(load_point=step.load_point))
    assert seen == [(point, (point,), 7.0) for point in POINTS]


def test_a_load_point_is_asked_for_again_until_its_result_is_told():
    course = FixedCourse(Workload(POINTS))
    assert course.ask() == course.ask()


def test_it_says_how_many_load_points_there_are():
    assert FixedCourse(Workload(POINTS)).total == 2


def unsteady(point: LoadPoint, held: bool) -> LoadPointResult:
    return figures(point, littles_law=held)


def test_what_says_nothing_is_driven_once_more_with_other_requests():
    course, seeds = FixedCourse(Workload(POINTS), again=may_be_chance), []
    while (step := course.ask()) is not None:
        seeds.append((step.load_point, step.workload.seed))
        course.tell(unsteady(step.load_point, held=step.load_point.rate is not None))
    assert seeds == [(POINTS[0], 0), (POINTS[0], 1), (POINTS[1], 0)]


def test_what_another_try_cannot_mend_is_not_driven_again():
    wrong = Check("output-length", 0.2, ">= 0.95", False)
    result = figures(POINTS[0])
    assert not may_be_chance(replace(result, validity=(wrong,)))
    assert not may_be_chance(replace(result, validity=(Check("rate-capped", 3, "0", False),)))
    assert may_be_chance(replace(result, validity=(Check("loop-lag-p99", 0.3, "<= 0.01 s", False),)))
    assert not may_be_chance(result)
