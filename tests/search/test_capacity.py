"""The capacity search, on synthetic servers whose capacity is known."""

import random

import pytest

from autotuner.core import LoadPoint, LoadPointResult
from autotuner.errors import ConfigError
from autotuner.scoring.intervals import wilson_share
from autotuner.search.capacity import (
    MAX_UNDECIDED_WINDOWS,
    BracketStart,
    CapacitySearch,
    IncumbentUtility,
    check_capacity,
)
from tests.factories import experiment, load_point_result

SLO = {"ttft": 1.0, "attainment": 0.95}
SCENARIO = "D(100,100)"


def capacity_experiment(objective="maximize_throughput", slo=SLO, scenarios=(SCENARIO,), **load):
    return experiment(
        optimization={"objective": objective},
        benchmark={"traffic_scenarios": scenarios, **(load or {"num_concurrency": [1, 1024]})},
        slo=slo,
    )


def server(capacity: float, n: int = 100, seed: int | None = None, per_load: float = 10.0):
    """Attainment falls through 95% at load `capacity`; throughput grows with load up to twice that."""
    rng = random.Random(seed)

    def measure(point) -> LoadPointResult:
        load = point.concurrency or point.rate
        probability = 1 / (1 + (1 / 0.95 - 1) * (load / capacity) ** 12)
        good = round(n * probability) if seed is None else sum(rng.random() < probability for _ in range(n))
        throughput = per_load * min(load, 2 * capacity)
        return load_point_result(
            point, throughput=throughput, attainment=wilson_share(good, n), ttft=0.1, e2e=200 * load / throughput
        )

    return measure


def drive(search: CapacitySearch, measure) -> list[float]:
    loads: list[float] = []
    while (step := search.ask()) is not None:
        load = step.load_point.concurrency or step.load_point.rate
        assert load is not None
        loads.append(load)
        search.tell(measure(step.load_point))
        assert len(loads) < 80
    return loads


def test_from_the_lowest_load_it_finds_the_capacity_to_its_precision():
    search = CapacitySearch(capacity_experiment(), gpus=1)
    loads = drive(search, server(100))
    (capacity,) = search.outcome.capacities
    assert loads[:4] == [1, 4, 16, 64]
    assert capacity.value <= 100 * 1.01
    assert capacity.high is not None
    assert capacity.high / capacity.value <= 1.051
    assert (capacity.unit, capacity.scenario, capacity.load_points) == ("concurrency", SCENARIO, len(loads))


@pytest.mark.parametrize("seed", range(5))
def test_with_the_noise_of_single_requests_it_comes_close(seed):
    search = CapacitySearch(capacity_experiment(), 1, {SCENARIO: BracketStart(80, 1.3)})
    loads = drive(search, server(100, n=200, seed=seed))
    assert search.outcome.capacities[0].value == pytest.approx(100, rel=0.12)
    assert len(loads) <= 12


def test_a_candidate_that_misses_the_targets_at_the_load_to_beat_costs_one_load_point():
    incumbent = IncumbentUtility(3, {SCENARIO: 1020.0})
    search = CapacitySearch(capacity_experiment(), 1, {SCENARIO: BracketStart(105, 1.2)}, incumbent)
    assert drive(search, server(60, per_load=9.0)) == [105]
    assert search.outcome.gave_up == "cannot beat trial 3"


def test_a_candidate_that_is_faster_at_less_load_is_not_pruned():
    incumbent = IncumbentUtility(3, {SCENARIO: 1020.0})
    search = CapacitySearch(capacity_experiment(), 1, {SCENARIO: BracketStart(105, 1.2)}, incumbent)
    drive(search, server(60, per_load=40.0))
    assert search.outcome.gave_up is None
    assert search.outcome.capacities[0].value == pytest.approx(60, rel=0.06)


def test_goodput_beyond_the_capacity_is_no_upper_bound():
    incumbent = IncumbentUtility(1, {SCENARIO: 5.0})
    search = CapacitySearch(capacity_experiment("maximize_goodput"), 1, {SCENARIO: BracketStart(105, 1.2)}, incumbent)
    drive(search, server(60, per_load=40.0))
    assert search.outcome.gave_up is None


def test_rates_are_searched_where_rates_are_given():
    search = CapacitySearch(capacity_experiment(request_rates=[0.5, 64]), 1, {SCENARIO: BracketStart(4.0)})
    drive(search, server(10.0))
    (capacity,) = search.outcome.capacities
    assert capacity.unit == "rate"
    assert capacity.value == pytest.approx(10, rel=0.06)
    assert capacity.load_point is not None
    assert capacity.load_point.rate == capacity.value


def test_each_scenario_has_its_own_capacity():
    capacities = {SCENARIO: 100, "D(1000,100)": 20}
    search = CapacitySearch(capacity_experiment(scenarios=tuple(capacities)), 1)
    drive(search, lambda point: server(capacities[point.scenario])(point))
    assert [round(capacity.value / capacities[capacity.scenario], 1) for capacity in search.outcome.capacities] == [
        1.0,
        1.0,
    ]


def test_without_targets_it_finds_the_knee():
    search = CapacitySearch(capacity_experiment(slo={}), 1, {SCENARIO: BracketStart(4)})

    def measure(point) -> LoadPointResult:
        load = point.concurrency
        rate = load / (1 + (load / 16) ** 4) ** 0.25
        return load_point_result(point, throughput=200 * rate, e2e=load / rate, attainment=None)

    drive(search, measure)
    (capacity,) = search.outcome.capacities
    assert capacity.value == pytest.approx(16, rel=0.25)
    assert "more throughput" in capacity.reason


def test_where_throughput_falls_beyond_the_knee_the_reason_says_that_more_load_brings_none():
    search = CapacitySearch(capacity_experiment(slo={}), 1, {SCENARIO: BracketStart(4)})

    def measure(point) -> LoadPointResult:
        rate = min(point.concurrency, 16) - point.concurrency / 100
        return load_point_result(point, throughput=200 * rate, e2e=point.concurrency / rate, attainment=None)

    drive(search, measure)
    assert search.outcome.capacities[0].reason == "above it, more in flight brings no more throughput"


def test_results_that_violate_littles_law_end_a_knee_search():
    search = CapacitySearch(capacity_experiment(slo={}), 1, {SCENARIO: BracketStart(4)})
    assert drive(
        search, lambda point: load_point_result(point, throughput=1.0, attainment=None, littles_law=False)
    ) == [4, 4]
    assert search.outcome.capacities[0].reason == "the figures do not obey Little's law"


def test_each_load_point_has_a_stop_rule_and_a_second_measurement_has_another_seed():
    search = CapacitySearch(capacity_experiment(), 1, {SCENARIO: BracketStart(10, 1.2)})
    seeds: dict[LoadPoint, list[int]] = {}
    while (step := search.ask()) is not None:
        assert step.stop_rule is not None
        seeds.setdefault(step.load_point, []).append(step.workload.seed)
        assert step.load_point.concurrency is not None
        met = step.load_point.concurrency <= 10
        search.tell(load_point_result(step.load_point, throughput=1.0, attainment=wilson_share(20 if met else 5, 20)))
    assert next(iter(seeds.values())) == [0, 1]


def test_windows_grow_with_latency_and_an_unsteady_load_point_is_measured_again_for_longer():
    search = CapacitySearch(capacity_experiment(), 1, {SCENARIO: BracketStart(10, 1.2)})
    first = search.ask()
    assert first is not None
    search.tell(load_point_result(first.load_point, e2e=12.0, attainment=wilson_share(30, 30), littles_law=False))
    second = search.ask()
    assert second is not None
    assert second.load_point == first.load_point
    assert (second.workload.warmup, second.workload.duration, second.workload.window_limit) == (12.0, 36.0, 4 * 36.0)
    search.tell(load_point_result(second.load_point, e2e=12.0, attainment=wilson_share(90, 90), littles_law=False))
    third = search.ask()
    assert third is not None
    assert third.load_point != first.load_point


def test_a_traces_own_rate_is_no_range_to_search():
    one = capacity_experiment(
        request_rates=["trace"], arrival="trace", recorded=[{"requests": 3, "seconds": 1.0}], find_capacity=True
    )
    with pytest.raises(ConfigError, match="needs two rates"):
        check_capacity(one)


def test_with_stop_when_flat_it_ends_where_more_load_brings_no_more_throughput():
    def saturated(point) -> LoadPointResult:
        load = point.concurrency
        good = wilson_share(100 if load <= 90 else 50, 100)
        throughput = 10.0 * min(load, 50)
        return load_point_result(point, throughput=throughput, attainment=good, ttft=0.1, e2e=200 * load / throughput)

    by_load, by_utility = (
        CapacitySearch(capacity_experiment(), 1, {SCENARIO: BracketStart(60)}, stop_when_flat=only)
        for only in (False, True)
    )
    long, short = drive(by_load, saturated), drive(by_utility, saturated)
    assert len(short) < len(long)
    assert by_utility.outcome.capacities[0].reason == "more load brings no more throughput"
    assert by_load.outcome.capacities[0].value == pytest.approx(90, rel=0.06)
    rising = CapacitySearch(capacity_experiment(), 1, {SCENARIO: BracketStart(60)}, stop_when_flat=True)
    drive(rising, server(100, per_load=10.0))
    assert rising.outcome.capacities[0].value == pytest.approx(100, rel=0.06)


def test_a_candidate_that_can_only_gain_too_little_is_pruned():
    incumbent = IncumbentUtility(1, {SCENARIO: 1000.0})
    search = CapacitySearch(capacity_experiment(), 1, {SCENARIO: BracketStart(104)}, incumbent)
    assert drive(search, server(100, per_load=9.5, n=400)) == [104]
    assert search.outcome.gave_up == "cannot beat trial 1"


def test_with_few_requests_a_low_throughput_does_not_prune():
    incumbent = IncumbentUtility(1, {SCENARIO: 1000.0})
    search = CapacitySearch(capacity_experiment(), 1, {SCENARIO: BracketStart(104)}, incumbent)
    assert len(drive(search, server(90, n=20))) > 1


def test_the_window_limit_lies_beyond_the_latest_decision():
    search = CapacitySearch(
        capacity_experiment(duration=10.0, num_concurrency=[1, 64]), 1, {SCENARIO: BracketStart(10)}
    )
    step = search.ask()
    assert step is not None
    assert step.stop_rule is not None
    assert step.workload.window_limit > MAX_UNDECIDED_WINDOWS * 10.0
