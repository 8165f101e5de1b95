import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.scoring.distribution import request_distribution, token_distribution

SECONDS = st.floats(0, 1e4, allow_nan=False)


def test_four_samples_by_hand():
    distribution = request_distribution([0.4, 0.1, 0.2, 0.3])
    assert (distribution.n, distribution.min, distribution.max) == (4, 0.1, 0.4)
    assert (distribution.p25, distribution.p50, distribution.p75, distribution.p90) == (0.1, 0.2, 0.3, 0.4)
    assert distribution.mean == pytest.approx(0.25)
    # variance (0.15^2 + 0.05^2 + 0.05^2 + 0.15^2) / 3 = 0.05 / 3
    assert distribution.sd == pytest.approx((0.05 / 3) ** 0.5)
    # 0.25 +- 3.1824 x 0.1291 / 2
    assert distribution.intervals["mean"] == pytest.approx((0.25 - 0.20541, 0.25 + 0.20541), abs=1e-4)


def test_one_sample_has_no_upper_bound_anywhere():
    distribution = request_distribution([0.5])
    assert distribution.sd == 0
    assert all(interval == (0.0, None) for name, interval in distribution.intervals.items() if name != "p99")
    assert distribution.intervals["p99"] == (0.5, None)  # a p99 below the only sample: 1 chance in 100


def test_errors_push_the_adjusted_percentiles_up_and_beyond():
    distribution = request_distribution([float(i) for i in range(1, 91)], errors=10)
    assert distribution.p90 == 81  # of the 90 that answered
    assert distribution.adjusted["p50"] == 50  # of all 100
    assert distribution.adjusted["p90"] == 90
    assert distribution.adjusted["p95"] is None
    assert distribution.n == 90


def test_no_samples_give_no_distribution():
    assert request_distribution([]) is None
    assert token_distribution([]) is None
    assert token_distribution([np.array([])]) is None


@given(st.lists(SECONDS, min_size=1, max_size=200))
def test_intervals_hold_their_percentile_and_percentiles_ascend(samples):
    distribution = request_distribution(samples)
    names = ("p25", "p50", "p75", "p90", "p95", "p99")
    values = [distribution.min, *(getattr(distribution, name) for name in names), distribution.max]
    assert values == sorted(values)
    for name in names:
        low, high = distribution.intervals[name]
        assert low <= getattr(distribution, name)
        assert high is None or getattr(distribution, name) <= high
        assert distribution.adjusted[name] == getattr(distribution, name)


@given(st.lists(st.lists(SECONDS, max_size=20), min_size=1, max_size=20))
def test_pooling_tokens_counts_each_once(groups):
    distribution = token_distribution([np.array(group) for group in groups])
    pooled = [value for group in groups for value in group]
    if not pooled:
        assert distribution is None
        return
    assert distribution.n == len(pooled)
    assert distribution.mean == pytest.approx(sum(pooled) / len(pooled))
    for name in ("p25", "p50", "p75", "p90", "p95", "p99"):
        low, high = distribution.intervals[name]
        assert low <= getattr(distribution, name)
        assert high is None or getattr(distribution, name) <= high


def test_tokens_that_agree_within_a_request_count_as_one_draw():
    groups = [np.full(100, value) for value in (0.01, 0.02, 0.03, 0.04)]
    distribution = token_distribution(groups)
    # four requests, not 400 tokens: 0.025 +- 3.1824 x 0.01291 / 2
    assert distribution.intervals["mean"] == pytest.approx((0.025 - 0.020541, 0.025 + 0.020541), abs=1e-5)


def test_the_interval_of_a_p90_covers_it_in_95_of_100_draws():
    draw = random.Random(1)
    covered = 0
    for _ in range(400):
        low, high = request_distribution([draw.expovariate(1) for _ in range(60)]).intervals["p90"]
        covered += low <= 2.302585 <= (high or float("inf"))
    assert covered >= 0.93 * 400


def test_a_percentile_lies_in_its_interval_and_its_adjusted_form_in_the_adjusted_one():
    samples = [float(i) for i in range(1, 201)]
    random.Random(0).shuffle(samples)
    distribution = request_distribution(samples, errors=10)
    for name in ("p50", "p75", "p90"):
        low, high = distribution.intervals[name]
        assert low <= getattr(distribution, name) <= high
    low, high = distribution.adjusted_intervals["p90"]
    adjusted = distribution.adjusted["p90"]
    assert low is not None
    assert adjusted is not None
    assert high is not None
    assert low <= adjusted <= high
    assert distribution.adjusted["p99"] is None
    assert distribution.adjusted_intervals["p99"][1] is None
    assert request_distribution(samples).adjusted_intervals == {}
