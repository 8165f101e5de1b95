from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.core import Check
from autotuner.errors import UsageError
from autotuner.scoring.judge import judge
from autotuner.scoring.pareto import AXES, frontier, pareto_points, select_axes

SENSES = st.lists(st.sampled_from(["min", "max"]), min_size=2, max_size=4)


@st.composite
def clouds(draw):
    directions = draw(SENSES)
    value = st.integers(0, 6).map(float) if draw(st.booleans()) else st.floats(-1e6, 1e6)
    return directions, draw(st.lists(st.tuples(*[value] * len(directions)), max_size=40))


def dominates(first, second, directions):
    signed = [
        (a, b) if direction == "max" else (b, a) for a, b, direction in zip(first, second, directions, strict=True)
    ]
    return all(a >= b for a, b in signed) and any(a > b for a, b in signed)


@given(clouds())
def test_no_member_is_dominated_and_every_other_point_is_dominated_by_a_member(cloud):
    directions, cloud = cloud
    members = frontier(cloud, directions)
    assert members == sorted(set(members))
    for index, point in enumerate(cloud):
        beaten = any(dominates(cloud[member], point, directions) for member in members)
        assert beaten is (index not in members)


def test_by_hand_throughput_against_interactivity():
    #                  best left   best right  inside      worse twin  equal twin
    cloud = [(10.0, 1.0), (1.0, 10.0), (5.0, 5.0), (5.0, 4.0), (5.0, 5.0)]
    assert frontier(cloud, ["max", "max"]) == [0, 1, 2, 4]
    assert frontier(cloud, ["max", "min"]) == [0]


def test_the_axes_are_the_five_and_two_are_needed():
    assert set(AXES) == {"throughput", "interactivity", "ttft", "latency", "cost"}
    assert [axis.direction for axis in select_axes(["throughput", "ttft"])] == ["max", "min"]
    with pytest.raises(UsageError, match="did you mean 'latency'"):
        select_axes(["throughput", "latncy"])
    with pytest.raises(UsageError, match="two axes"):
        select_axes(["throughput"])


def on_frontier(trials, experiment, names=("throughput", "interactivity")):
    all_points = pareto_points([judge(trial, experiment) for trial in trials], experiment, select_axes(names))
    return [(point.trial.number, point.result.load_point.concurrency) for point in all_points if point.on_frontier]


def test_only_trusted_load_points_are_on_the_frontier(make):
    experiment = make.experiment("maximize_throughput", [1, 4, 16])
    selected_axes = select_axes(["throughput", "interactivity"])
    invalid = [Check("error-share", 0.5, "<= 0.01", False)]
    trials = [
        make.trial(1, make.result(1, throughput=100.0, tpot=0.01), make.result(16, throughput=900.0, tpot=0.04)),
        make.trial(2, make.result(4, throughput=9000.0, tpot=0.001, validity=invalid), parameters={"tp-size": 2}),
        make.trial(3, make.result(1, throughput=8000.0, tpot=0.001), parameters={"x": 3}, failure=make.OOM),
        make.trial(4, make.result(4, throughput=90.0, tpot=0.05), parameters={"x": 4}),
    ]
    all_points = pareto_points([judge(trial, experiment) for trial in trials], experiment, selected_axes)
    assert [point.trial.number for point in all_points if point.on_frontier] == [1, 1]
    assert [point.trial.number for point in all_points if not point.is_trusted] == [2, 3]
    # half of the 100 tokens/s are output
    assert all_points[0].coordinates == (50.0, 100.0)


def test_throughput_on_the_frontier_is_that_of_output_tokens(make):
    experiment = make.experiment("maximize_throughput")
    long_prompts = make.result(1, throughput=9000.0, output_throughput=10.0)
    long_answers = make.result(1, throughput=1000.0, output_throughput=900.0)
    trials = [make.trial(1, long_prompts), make.trial(2, long_answers, parameters={"x": 2})]
    assert on_frontier(trials, experiment, ("throughput", "ttft")) == [(2, 1)]


@pytest.mark.parametrize(
    ("slo", "expected"),
    [
        (None, [(1, 1), (1, 4), (1, 16)]),
        ({"tpot": {"mean": 0.02}}, [(1, 1), (1, 4)]),
        ({"tpot": {"p99": 0.02}}, [(1, 1)]),
        ({"tpot": {"mean": 0.001}}, []),
    ],
)
def test_only_what_is_proven_to_meet_the_targets_is_on_the_frontier(make, slo, expected):
    experiment = make.experiment("maximize_throughput", [1, 4, 16], slo=slo)
    # at 4 in flight the interval of a percentile ends beyond the target
    unproven = make.constant(0.015, intervals={"mean": (0.015, 0.015), "p99": (0.015, 0.03)})
    results = (
        make.result(1, throughput=100.0, tpot=0.01),
        replace(made := make.result(4, throughput=300.0, tpot=0.015), metrics=replace(made.metrics, tpot=unproven)),
        make.result(16, throughput=900.0, tpot=0.04),
    )
    assert on_frontier([make.trial(1, *results)], experiment) == expected


def test_a_candidate_that_was_launched_again_is_on_the_frontier_once(make):
    experiment = make.experiment("maximize_throughput", [1, 4])
    first = make.trial(1, make.result(1), make.result(4, throughput=3000.0, tpot=0.02))
    again = replace(make.trial(2, make.result(1), make.result(4, throughput=3100.0)), purpose="confirmation")
    assert on_frontier([first, again], experiment) == [(1, 1), (1, 4)]


def test_a_load_point_that_was_driven_twice_counts_as_it_was_last(make):
    experiment = make.experiment("maximize_throughput", [4])
    twice = make.trial(1, make.result(4, throughput=3000.0), make.result(4, throughput=2000.0))
    (point,) = pareto_points([judge(twice, experiment)], experiment, select_axes(["throughput", "ttft"]))
    assert point.coordinates[0] == 1000.0
    unsteady = make.result(4, throughput=2000.0, validity=[Check("stationarity", 3.0, "within 2", False)])
    twice = make.trial(1, make.result(4, throughput=3000.0), unsteady)
    (point,) = pareto_points([judge(twice, experiment)], experiment, select_axes(["throughput", "ttft"]))
    assert (point.coordinates[0], point.on_frontier) == (1500.0, True)


def test_a_load_point_without_a_figure_is_no_point(make):
    experiment = make.experiment()
    trial = make.trial(1, make.result(1, interactivity=None))
    assert pareto_points([trial], experiment, select_axes(["throughput", "interactivity"])) == []
    assert len(pareto_points([trial], experiment, select_axes(["throughput", "cost", "ttft", "latency"]))) == 1
