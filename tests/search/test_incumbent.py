"""The course of a candidate that has an incumbent to beat."""

import pytest

from autotuner.core import Candidate, LoadPoint, Measurement, Trial
from autotuner.scoring.judge import judge
from autotuner.search.incumbent import IncumbentRace
from tests.search.problems import experiment, load_point_result

LOADS = (1, 8, 64)


def asked(objective):
    return experiment(
        optimization={"objective": objective},
        benchmark={"traffic_scenarios": ["D(100,100)"], "num_concurrency": LOADS},
    )


def incumbent(what):
    points = tuple(load_point_result(LoadPoint("D(100,100)", concurrency=load), 100.0 * load, 1.0) for load in LOADS)
    return judge(Trial(1, Candidate("sim"), Measurement("simulated", points), 0.0, 1.0), what)


def drive(course, answer) -> list[int]:
    loads = []
    while (step := course.ask()) is not None:
        loads.append(step.load_point.concurrency)
        course.tell(answer(step.load_point, loads.count(step.load_point.concurrency)))
        assert len(loads) < 20
    return loads


@pytest.mark.parametrize("objective", ["minimize_latency", "maximize_throughput"])
def test_a_loser_is_pruned_and_says_against_whom(objective):
    what = asked(objective)
    course = IncumbentRace(what, 1, incumbent(what))
    loads = drive(course, lambda point, attempt: load_point_result(point, 10.0, 9.0))
    assert len(loads) < len(LOADS)
    assert course.outcome.gave_up == "cannot beat trial 1"


@pytest.mark.parametrize("objective", ["minimize_latency", "maximize_throughput"])
def test_an_invalid_load_point_prunes_nothing_and_is_driven_again(objective):
    what = asked(objective)
    course = IncumbentRace(what, 1, incumbent(what))

    def answer(point, attempt):
        bad = point.concurrency == (1 if objective == "minimize_latency" else 64)
        return load_point_result(point, 120.0 * point.concurrency, 0.9, littles_law=not bad or attempt == 2)

    loads = drive(course, answer)
    assert sorted(set(loads)) == list(LOADS)
    assert len(loads) == len(LOADS) + 1
    assert course.outcome.gave_up is None


def test_a_load_point_that_says_nothing_twice_is_left_open():
    what = asked("minimize_latency")
    course = IncumbentRace(what, 1, incumbent(what))
    loads = drive(
        course, lambda point, attempt: load_point_result(point, 1.0, 99.0, littles_law=point.concurrency != 1)
    )
    assert loads[:3] == [1, 1, 8]
    assert course.outcome.gave_up == "cannot beat trial 1"
