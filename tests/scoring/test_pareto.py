import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.core import Check, Verdict
from autotuner.errors import UsageError
from autotuner.scoring.judge import judge
from autotuner.scoring.pareto import AXES, axes, frontier, points

SENSES = st.lists(st.sampled_from(["min", "max"]), min_size=2, max_size=4)


@st.composite
def clouds(draw):
    senses = draw(SENSES)
    value = st.integers(0, 6).map(float) if draw(st.booleans()) else st.floats(-1e6, 1e6)
    return senses, draw(st.lists(st.tuples(*[value] * len(senses)), max_size=40))


def dominates(one, other, senses):
    signed = [(a, b) if sense == "max" else (b, a) for a, b, sense in zip(one, other, senses, strict=True)]
    return all(a >= b for a, b in signed) and any(a > b for a, b in signed)


@given(clouds())
def test_no_member_is_dominated_and_every_other_point_is_dominated_by_a_member(cloud):
    senses, cloud = cloud
    members = frontier(cloud, senses)
    assert members == sorted(set(members))
    for index, point in enumerate(cloud):
        beaten = any(dominates(cloud[member], point, senses) for member in members)
        assert beaten is (index not in members)


def test_by_hand_throughput_against_interactivity():
    #                  best left   best right  inside      worse twin  equal twin
    cloud = [(10.0, 1.0), (1.0, 10.0), (5.0, 5.0), (5.0, 4.0), (5.0, 5.0)]
    assert frontier(cloud, ["max", "max"]) == [0, 1, 2, 4]
    assert frontier(cloud, ["max", "min"]) == [0]


def test_the_axes_are_the_five_and_two_are_needed():
    assert set(AXES) == {"throughput", "interactivity", "ttft", "latency", "cost"}
    assert [axis.sense for axis in axes(["throughput", "ttft"])] == ["max", "min"]
    with pytest.raises(UsageError, match="did you mean 'latency'"):
        axes(["throughput", "latncy"])
    with pytest.raises(UsageError, match="two axes"):
        axes(["throughput"])


def test_only_trusted_load_points_are_on_the_frontier(make):
    experiment = make.experiment("maximize_throughput", [1, 4, 16])
    chosen = axes(["throughput", "interactivity"])
    invalid = [Check("error-share", 0.5, "<= 0.01", False)]
    trials = [
        make.trial(1, make.result(1, throughput=100.0, tpot=0.01), make.result(16, throughput=900.0, tpot=0.04)),
        make.trial(2, make.result(4, throughput=9000.0, tpot=0.001, validity=invalid)),
        make.trial(3, make.result(1, throughput=8000.0, tpot=0.001), failure=make.OOM),
        make.trial(4, make.result(4, throughput=90.0, tpot=0.05)),
    ]
    found = points([judge(trial, experiment) for trial in trials], experiment, chosen)
    assert [point.trial.number for point in found if point.on_frontier] == [1, 1]
    assert [point.trial.number for point in found if not point.trusted] == [2, 3]
    assert found[0].at == (100.0, 100.0)


def test_load_points_beyond_the_targets_still_trade_off(make):
    experiment = make.experiment("maximize_throughput", [16], slo={"tpot": {"mean": 0.01}})
    judged = judge(make.trial(1, make.result(16, tpot=0.04)), experiment)
    assert judged.measurement.load_points[0].verdict is Verdict.INFEASIBLE
    (point,) = points([judged], experiment, axes(["throughput", "interactivity"]))
    assert point.on_frontier


def test_a_load_point_without_a_figure_is_no_point(make):
    experiment = make.experiment()
    trial = make.trial(1, make.result(1, interactivity=None))
    assert points([trial], experiment, axes(["throughput", "interactivity"])) == []
    assert len(points([trial], experiment, axes(["throughput", "cost", "ttft", "latency"]))) == 1
