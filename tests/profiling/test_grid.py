import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.profiling.grid import (
    batch_sizes,
    decode_shape,
    geometric_lengths,
    refined_batch_sizes,
    requests_that_fit,
)
from tests.profiling.points import decode


@given(st.integers(2, 500), st.integers(501, 200_000), st.integers(2, 40), st.integers(2, 200_000))
def test_lengths_ascend_and_include_the_asked_one(shortest, longest, count, included):
    lengths = geometric_lengths(shortest, longest, count, included)
    assert lengths == sorted(set(lengths))
    assert included in lengths
    assert lengths[0] == min(shortest, included)
    assert lengths[-1] == max(longest, included)
    assert len(lengths) <= max(count, 3)


@given(st.integers(0, 2000), st.integers(2, 20), st.sampled_from([1, 2, 8]))
def test_batch_sizes_descend_from_the_most_to_one_of_each_replica(most, count, step):
    sizes = batch_sizes(most, count, step)
    assert sizes == sorted(set(sizes), reverse=True)
    assert all(size % step == 0 for size in sizes)
    assert len(sizes) <= count
    if most >= step:
        assert sizes[0] == most // step * step
        assert sizes[-1] == step
    else:
        assert not sizes


def test_the_kv_cache_and_the_limit_of_running_requests_bound_a_batch():
    assert requests_that_fit(10_000, 900, 100, None) == 10
    assert requests_that_fit(10_000, 900, 100, 4) == 4
    assert requests_that_fit(500, 900, 100, None) == 0
    assert requests_that_fit(10**9, 90, 10, None) == 2000


@pytest.mark.parametrize("context", [2, 100, 620, 3075, 131_000])
def test_decoding_requests_have_the_context_that_was_asked_for(context):
    prompt, output = decode_shape(context)
    assert prompt + output / 2 == context
    assert 2 <= output <= 128


def test_a_point_is_added_where_itl_crosses_its_target():
    points = [decode(1, 0.005), decode(40, 0.01), decode(80, 0.03)]
    sizes = refined_batch_sizes(points, itl_target=0.02)
    assert sizes[0] == 60


def test_a_straight_line_that_stays_within_the_target_needs_no_more_points():
    points = [decode(size, 0.005 + 0.0001 * size) for size in (1, 20, 40, 80)]
    assert refined_batch_sizes(points, itl_target=0.5) == []


def test_a_bend_is_measured_more_finely():
    points = [decode(1, 0.005), decode(64, 0.005), decode(100, 0.02)]
    assert refined_batch_sizes(points, itl_target=0.5) == [32]


def test_rejected_points_refine_nothing():
    points = [decode(1, 0.005), decode(40, 0.01), decode(80, 0.03, rejection="saturated")]
    assert refined_batch_sizes(points, itl_target=0.02) == []
