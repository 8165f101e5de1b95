import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.compare.changes import Change, Noise, Ratio, holm_rejections, paired_ratio, unpaired_ratio


def ratio(low: float, high: float) -> Ratio:
    """A ratio whose 90% interval is about this; so many degrees of freedom that Student's t is normal."""
    centre = (math.log(low) + math.log(high)) / 2
    return Ratio(centre, (math.log(high) - centre) / 1.6448536, 10**6, 3, 3)


@pytest.mark.parametrize(
    ("low", "high", "change"),
    [
        (0.90, 0.96, Change.WORSE),
        (0.90, 0.98, Change.UNCLEAR),
        (0.98, 1.02, Change.SAME),
        (0.98, 1.05, Change.UNCLEAR),
        (1.04, 1.10, Change.BETTER),
    ],
)
def test_a_change_is_where_its_whole_interval_lies(low, high, change):
    assert ratio(low, high).change(0.03, higher_is_better=True) is change


def test_of_a_latency_the_lower_value_is_the_better_one():
    assert ratio(0.90, 0.96).change(0.03, higher_is_better=False) is Change.BETTER
    assert ratio(1.04, 1.10).change(0.03, higher_is_better=False) is Change.WORSE


def test_one_launch_a_side_decides_nothing_without_noise_known_from_elsewhere():
    alone = unpaired_ratio([7.0], [6.0], Noise())
    assert (alone.interval, alone.change(0.03, higher_is_better=True)) == (None, Change.UNCLEAR)
    known = unpaired_ratio([7.0], [6.0], Noise(0.01, 3))
    assert known.change(0.03, higher_is_better=True) is Change.WORSE


def test_noise_is_pooled_over_repeated_launches_only():
    noise = Noise.of([[1.0, 1.2], [5.0], [2.0, 2.0, 2.0]])
    assert noise.degrees == 3
    assert noise.sd == pytest.approx(math.sqrt(0.02 / 3))


def test_the_interval_is_students():
    # t(0.95, 2) = 2.920; standard error 0.03 / sqrt(3)
    pairs = paired_ratio([0.0, 0.03, -0.03], Noise())
    assert pairs.interval is not None
    assert math.log(pairs.interval[1]) == pytest.approx(2.920 * 0.03 / math.sqrt(3), rel=1e-3)


def test_pairs_that_differ_alike_cancel_drift():
    drift = [0.0, 0.2, 0.4]
    baseline, new = [7 + d for d in drift], [7 - 0.1 + d for d in drift]
    pairs = paired_ratio([b - a for a, b in zip(baseline, new, strict=True)], Noise())
    assert pairs.change(0.03, higher_is_better=True) is Change.WORSE
    unpaired = unpaired_ratio(baseline, new, Noise.of([baseline, new]))
    assert unpaired.change(0.03, higher_is_better=True) is Change.UNCLEAR


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_rejects_no_more_than_each_alone_and_no_less_than_bonferroni(p_values):
    rejected = holm_rejections(p_values)
    for p_value, is_rejected in zip(p_values, rejected, strict=True):
        assert not is_rejected or p_value <= 0.05
        assert is_rejected or p_value > 0.05 / len(p_values)
