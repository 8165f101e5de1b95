"""The course that looks for a capacity, against servers whose capacity is known."""

import random

import pytest

from autotuner.core import LoadPointResult
from autotuner.errors import ConfigError
from autotuner.scoring.intervals import wilson_share
from autotuner.search.capacity import (
    MAX_UNDECIDED_WINDOWS,
    BracketStart,
    CapacitySearch,
    IncumbentUtility,
    check_capacity,
)
from tests.search.problems import experiment, figures

SLO = {"ttft": 1.0, "attainment": 0.95}
SCENARIO = "D(100,100)"


def asked(objective="maximize_throughput", slo=SLO, scenarios=(SCENARIO,), **load):
    return experiment(
        optimization={"objective": objective},
        benchmark={"traffic_scenarios": scenarios, **(load or {"num_concurrency": [1, 1024]})},
        slo=slo,
    )


def server(edge: float, n: int = 100, seed: int | None = None, per_load: float = 10.0):
    """Good requests fall through 95% at load `edge`; throughput grows with the load up to twice that."""
    draw = random.Random(seed)

    def answer(point) -> LoadPointResult:
        load = point.concurrency or point.rate
        chance = 1 / (1 + (1 / 0.95 - 1) * (load / edge) ** 12)
        good = round(n * chance) if seed is None else sum(draw.random() < chance for _ in range(n))
        flow = per_load * min(load, 2 * edge)
        return figures(point, throughput=flow, attainment=wilson_share(good, n), ttft=0.1, e2e=200 * load / flow)

    return answer


def drive(course: CapacitySearch, answer) -> list[float]:
    loads = []
    while (step := course.ask()) is not None:
        loads.append(step.load_point.concurrency or step.load_point.rate)
        course.tell(answer(step.load_point))
        assert len(loads) < 80
    return loads


def test_from_nothing_it_finds_the_capacity_to_its_precision():
    course = CapacitySearch(asked(), gpus=1)
    loads = drive(course, server(100))
    (found,) = course.outcome.capacities
    assert loads[:4] == [1, 4, 16, 64]
    assert found.value <= 100 * 1.01
    assert found.high is not None
    assert found.high / found.value <= 1.051
    assert (found.unit, found.scenario, found.load_points) == ("concurrency", SCENARIO, len(loads))


@pytest.mark.parametrize("seed", range(5))
def test_through_the_noise_of_single_requests_it_comes_close(seed):
    course = CapacitySearch(asked(), 1, {SCENARIO: BracketStart(80, 1.3)})
    loads = drive(course, server(100, n=200, seed=seed))
    assert course.outcome.capacities[0].value == pytest.approx(100, rel=0.12)
    assert len(loads) <= 12


def test_a_candidate_that_fails_at_what_it_has_to_beat_costs_one_load_point():
    floor = IncumbentUtility(3, {SCENARIO: 1020.0})
    course = CapacitySearch(asked(), 1, {SCENARIO: BracketStart(105, 1.2)}, floor)
    assert drive(course, server(60, per_load=9.0)) == [105]
    assert course.outcome.gave_up == "cannot beat trial 3"


def test_a_candidate_that_is_faster_at_less_load_is_not_given_up():
    floor = IncumbentUtility(3, {SCENARIO: 1020.0})
    course = CapacitySearch(asked(), 1, {SCENARIO: BracketStart(105, 1.2)}, floor)
    drive(course, server(60, per_load=40.0))
    assert course.outcome.gave_up is None
    assert course.outcome.capacities[0].value == pytest.approx(60, rel=0.06)


def test_goodput_at_a_load_that_is_too_high_does_not_bound_it():
    floor = IncumbentUtility(1, {SCENARIO: 5.0})
    course = CapacitySearch(asked("maximize_goodput"), 1, {SCENARIO: BracketStart(105, 1.2)}, floor)
    drive(course, server(60, per_load=40.0))
    assert course.outcome.gave_up is None


def test_rates_are_searched_where_rates_are_given():
    course = CapacitySearch(asked(request_rates=[0.5, 64]), 1, {SCENARIO: BracketStart(4.0)})
    drive(course, server(10.0))
    (found,) = course.outcome.capacities
    assert found.unit == "rate"
    assert found.value == pytest.approx(10, rel=0.06)
    assert found.load_point is not None
    assert found.load_point.rate == found.value


def test_each_scenario_has_its_own_capacity():
    edges = {SCENARIO: 100, "D(1000,100)": 20}
    course = CapacitySearch(asked(scenarios=tuple(edges)), 1)
    drive(course, lambda point: server(edges[point.scenario])(point))
    assert [round(found.value / edges[found.scenario], 1) for found in course.outcome.capacities] == [1.0, 1.0]


def test_without_targets_it_finds_the_knee():
    course = CapacitySearch(asked(slo={}), 1, {SCENARIO: BracketStart(4)})

    def answer(point) -> LoadPointResult:
        load = point.concurrency
        rate = load / (1 + (load / 16) ** 4) ** 0.25
        return figures(point, throughput=200 * rate, e2e=load / rate, attainment=None)

    drive(course, answer)
    (found,) = course.outcome.capacities
    assert found.value == pytest.approx(16, rel=0.25)
    assert "more throughput" in found.reason


def test_beyond_a_knee_where_throughput_falls_more_load_is_said_to_bring_none():
    course = CapacitySearch(asked(slo={}), 1, {SCENARIO: BracketStart(4)})

    def answer(point) -> LoadPointResult:
        rate = min(point.concurrency, 16) - point.concurrency / 100
        return figures(point, throughput=200 * rate, e2e=point.concurrency / rate, attainment=None)

    drive(course, answer)
    assert course.outcome.capacities[0].reason == "above it, more in flight brings no more throughput"


def test_figures_that_disobey_littles_law_end_the_search_of_a_knee():
    course = CapacitySearch(asked(slo={}), 1, {SCENARIO: BracketStart(4)})
    assert drive(course, lambda point: figures(point, throughput=1.0, attainment=None, littles_law=False)) == [4, 4]
    assert course.outcome.capacities[0].reason == "the figures do not obey Little's law"


def test_each_load_point_may_end_as_soon_as_its_answer_is_clear_and_a_second_look_has_other_draws():
    course = CapacitySearch(asked(), 1, {SCENARIO: BracketStart(10, 1.2)})
    seeds = {}
    while (step := course.ask()) is not None:
        assert step.stop_rule is not None
        seeds.setdefault(step.load_point, []).append(step.workload.seed)
        met = step.load_point.concurrency <= 10
        course.tell(figures(step.load_point, throughput=1.0, attainment=wilson_share(20 if met else 5, 20)))
    assert next(iter(seeds.values())) == [0, 1]


def test_windows_grow_with_the_requests_and_an_unsteady_load_point_is_driven_again_for_longer():
    course = CapacitySearch(asked(), 1, {SCENARIO: BracketStart(10, 1.2)})
    first = course.ask()
    assert first is not None
    course.tell(figures(first.load_point, e2e=12.0, attainment=wilson_share(30, 30), littles_law=False))
    second = course.ask()
    assert second is not None
    assert second.load_point == first.load_point
    assert (second.workload.warmup, second.workload.duration, second.workload.window_limit) == (12.0, 36.0, 4 * 36.0)
    course.tell(figures(second.load_point, e2e=12.0, attainment=wilson_share(90, 90), littles_law=False))
    third = course.ask()
    assert third is not None
    assert third.load_point != first.load_point


def test_a_traces_own_rate_is_no_range_to_look_in():
    one = asked(
        request_rates=["trace"], arrival="trace", recorded=[{"requests": 3, "seconds": 1.0}], find_capacity=True
    )
    with pytest.raises(ConfigError, match="between two rates"):
        check_capacity(one)


def test_by_utility_it_ends_where_more_load_brings_no_more_throughput():
    full = server(100, per_load=10.0)

    def saturated(point) -> LoadPointResult:
        load = point.concurrency
        good = wilson_share(100 if load <= 90 else 50, 100)
        flow = 10.0 * min(load, 50)
        return figures(point, throughput=flow, attainment=good, ttft=0.1, e2e=200 * load / flow)

    by_load, by_utility = (
        CapacitySearch(asked(), 1, {SCENARIO: BracketStart(60)}, stop_when_flat=only) for only in (False, True)
    )
    long, short = drive(by_load, saturated), drive(by_utility, saturated)
    assert len(short) < len(long)
    assert by_utility.outcome.capacities[0].reason == "more load brings no more throughput"
    assert by_load.outcome.capacities[0].value == pytest.approx(90, rel=0.06)
    rising = CapacitySearch(asked(), 1, {SCENARIO: BracketStart(60)}, stop_when_flat=True)
    drive(rising, full)
    assert rising.outcome.capacities[0].value == pytest.approx(100, rel=0.06)


def test_a_gain_too_small_to_matter_is_not_searched_for():
    floor = IncumbentUtility(1, {SCENARIO: 1000.0})
    course = CapacitySearch(asked(), 1, {SCENARIO: BracketStart(104)}, floor)
    assert drive(course, server(100, per_load=9.5, n=400)) == [104]
    assert course.outcome.gave_up == "cannot beat trial 1"


def test_few_requests_leave_room_for_a_throughput_that_looked_low():
    floor = IncumbentUtility(1, {SCENARIO: 1000.0})
    course = CapacitySearch(asked(), 1, {SCENARIO: BracketStart(104)}, floor)
    assert len(drive(course, server(90, n=20))) > 1


def test_requests_go_out_until_the_stop_rule_ends_the_load_point():
    course = CapacitySearch(asked(duration=10.0, num_concurrency=[1, 64]), 1, {SCENARIO: BracketStart(10)})
    step = course.ask()
    assert step is not None
    assert step.stop_rule is not None
    assert step.workload.window_limit > MAX_UNDECIDED_WINDOWS * 10.0
