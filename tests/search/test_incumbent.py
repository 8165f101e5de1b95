"""The load plan that races a candidate against the incumbent."""

import pytest

from autotuner.core import Candidate, LoadPoint, Measurement, Trial
from autotuner.scoring.judge import judge
from autotuner.search.incumbent import IncumbentRace
from tests.factories import experiment, load_point_result

LOADS = (1, 8, 64)


def fixed_load_experiment(objective):
    return experiment(
        optimization={"objective": objective},
        benchmark={"traffic_scenarios": ["D(100,100)"], "num_concurrency": LOADS},
    )


def incumbent_trial(experiment):
    points = tuple(load_point_result(LoadPoint("D(100,100)", concurrency=load), 100.0 * load, 1.0) for load in LOADS)
    return judge(Trial(1, Candidate("sim"), Measurement("simulated", points), 0.0, 1.0), experiment)


def drive(race, measure) -> list[int]:
    loads = []
    while (step := race.ask()) is not None:
        loads.append(step.load_point.concurrency)
        race.tell(measure(step.load_point, loads.count(step.load_point.concurrency)))
        assert len(loads) < 20
    return loads


@pytest.mark.parametrize("objective", ["minimize_latency", "maximize_throughput"])
def test_a_pruned_candidate_names_the_trial_it_cannot_beat(objective):
    experiment = fixed_load_experiment(objective)
    race = IncumbentRace(experiment, 1, incumbent_trial(experiment))
    loads = drive(race, lambda point, attempt: load_point_result(point, 10.0, 9.0))
    assert len(loads) < len(LOADS)
    assert race.outcome.gave_up == "cannot beat trial 1"


@pytest.mark.parametrize("objective", ["minimize_latency", "maximize_throughput"])
def test_an_invalid_load_point_prunes_nothing_and_is_measured_again(objective):
    experiment = fixed_load_experiment(objective)
    race = IncumbentRace(experiment, 1, incumbent_trial(experiment))

    def measure(point, attempt):
        is_invalid = point.concurrency == (1 if objective == "minimize_latency" else 64)
        return load_point_result(point, 120.0 * point.concurrency, 0.9, littles_law=not is_invalid or attempt == 2)

    loads = drive(race, measure)
    assert sorted(set(loads)) == list(LOADS)
    assert len(loads) == len(LOADS) + 1
    assert race.outcome.gave_up is None


def test_a_load_point_that_is_invalid_twice_is_left_open():
    experiment = fixed_load_experiment("minimize_latency")
    race = IncumbentRace(experiment, 1, incumbent_trial(experiment))
    loads = drive(race, lambda point, attempt: load_point_result(point, 1.0, 99.0, littles_law=point.concurrency != 1))
    assert loads[:3] == [1, 1, 8]
    assert race.outcome.gave_up == "cannot beat trial 1"
