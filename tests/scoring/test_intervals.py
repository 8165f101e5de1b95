from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.scoring.intervals import percentile_interval_ranks, percentile_rank, t_quantile, wilson_share

PERCENTS = st.sampled_from([25, 50, 75, 90, 95, 99])


@pytest.mark.parametrize(
    ("n", "percent", "rank"),
    [(1, 99, 1), (20, 50, 10), (20, 90, 18), (20, 95, 19), (20, 99, 20), (21, 50, 11), (1000, 99, 990)],
)
def test_a_percentile_is_the_smallest_sample_that_enough_do_not_exceed(n, percent, rank):
    assert percentile_rank(n, percent) == rank


def test_the_median_of_twenty_lies_between_the_6th_and_the_15th():
    # B(20, 1/2): P(B <= 5) = 21700 / 2^20 = 0.0207, P(B <= 6) = 0.0577
    assert percentile_interval_ranks(20, 50) == (6, 15)


def test_twenty_samples_cannot_bound_a_p99_from_above():
    # P(all 20 lie below the p99) = 0.99^20 = 0.818; P(at most 18 do) = 0.017
    assert percentile_interval_ranks(20, 99) == (19, None)


def test_a_p90_is_bounded_from_36_samples_on():
    # 0.9^35 = 0.02503, 0.9^36 = 0.0225
    assert percentile_interval_ranks(35, 90)[1] is None
    assert percentile_interval_ranks(36, 90)[1] == 36


@given(st.integers(1, 300), PERCENTS)
def test_ranks_hold_the_percentile_with_at_least_95_percent_and_no_slack(n, percent):
    low, high = percentile_interval_ranks(n, percent)
    p = percent / 100
    pmf = [comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    # X_low <= q < X_high holds when at least `low` and fewer than `high` samples lie below q
    assert sum(pmf[low : n + 1 if high is None else high]) >= 0.95 - 1e-9
    assert sum(pmf[: low + 1]) > 0.025 - 1e-9
    assert sum(pmf[(n + 1 if high is None else high) - 1 :]) > 0.025 - 1e-9


def test_ranks_of_many_samples_follow_the_normal_approximation():
    low, high = percentile_interval_ranks(100_000, 50)
    assert low == pytest.approx(50_000 - 1.96 * 158.1, abs=2)
    assert high == pytest.approx(50_000 + 1.96 * 158.1, abs=2)


@pytest.mark.parametrize(
    ("degrees", "t"), [(1, 12.7062), (4, 2.7764), (10, 2.2281), (11, 2.2010), (30, 2.0423), (120, 1.9799)]
)
def test_students_t_agrees_with_the_tables(degrees, t):
    assert t_quantile(degrees) == pytest.approx(t, abs=2e-4)


def test_wilson_of_20_good_of_20_reaches_down_to_84_percent():
    interval = wilson_share(20, 20)
    assert (interval.value, interval.high, interval.n) == (1.0, 1.0, 20)
    assert interval.low == pytest.approx(1 / (1 + 1.959964**2 / 20), abs=1e-6)  # 0.8389


def test_wilson_of_18_good_of_20_agrees_with_the_tables():
    interval = wilson_share(18, 20)
    assert (interval.low, interval.high) == pytest.approx((0.6990, 0.9721), abs=1e-4)


@given(st.integers(1, 5000), st.data())
def test_wilson_holds_the_share_and_stays_in_the_unit_interval(n, data):
    good = data.draw(st.integers(0, n))
    interval = wilson_share(good, n)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.low < interval.high


def test_a_share_of_nothing_is_no_share():
    assert wilson_share(0, 0) is None
