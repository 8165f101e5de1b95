"""The default course of a launch."""

from types import SimpleNamespace

from autotuner.core import LoadPoint, Workload
from autotuner.search.launch import FixedCourse

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
