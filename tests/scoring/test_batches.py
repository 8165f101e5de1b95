import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.scoring.batches import MAX_BATCHES, BatchMeans


def correlated(n: int, correlation: float, seed: int) -> np.ndarray:
    """An AR(1) stream of mean 10 and variance 1."""
    noise = np.random.default_rng(seed).standard_normal(n)
    stream = np.empty(n)
    stream[0] = noise[0]
    for i in range(1, n):
        stream[i] = correlation * stream[i - 1] + np.sqrt(1 - correlation**2) * noise[i]
    return 10 + stream


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_an_interval_of_the_mean_holds_for_dependent_samples(correlation):
    held = 0
    for seed in range(300):
        mean = BatchMeans(800, in_flight=40).mean(correlated(800, correlation, seed))
        held += mean.lower <= 10 <= (mean.upper or 0)
    assert 0.90 <= held / 300 <= 0.99


def test_an_interval_for_independent_samples_would_be_far_too_narrow():
    stream = correlated(800, 0.9, 0)
    assert BatchMeans(800, 40).effective_sample_size(stream) < 200
    assert BatchMeans(800, 40).effective_sample_size(correlated(800, 0.0, 0)) > 400


@given(st.integers(1, 500), st.floats(1, 600))
def test_every_batch_holds_as_many_requests_as_are_in_flight(n, in_flight):
    batches = BatchMeans(n, in_flight)
    sizes = np.diff(np.append(batches.batch_starts, n))
    assert sizes.sum() == n
    assert 1 <= batches.batch_count <= MAX_BATCHES
    assert batches.batch_count == 1 or sizes.min() >= int(in_flight)


def test_one_batch_bounds_nothing():
    assert BatchMeans(10, 8).mean(np.arange(10.0)).interval == (0.0, None)


def test_a_ratio_of_sums_is_no_mean_of_ratios():
    """Long answers take long: tokens/s in flight is all tokens over all time."""
    tokens, seconds = [100.0, 300.0] * 20, [1.0, 5.0] * 20
    assert BatchMeans(40).ratio(tokens, seconds).value == pytest.approx(400 / 6)


def test_equal_samples_have_an_interval_of_no_width():
    mean = BatchMeans(40, 4).mean(np.full(40, 0.5))
    assert (mean.lower, mean.upper) == pytest.approx((0.5, 0.5))


def test_a_ratio_to_nothing_is_refused():
    with pytest.raises(ValueError, match="sum to 0"):
        BatchMeans(2).ratio([1.0, 2.0], [0.0, 0.0])
