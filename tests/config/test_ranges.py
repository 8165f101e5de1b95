import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.config.ranges import MAX_VALUES, expand_values


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (1, [1]),
        ("lpm", ["lpm"]),
        ([1, "a", None], [1, "a", None]),
        ([], []),
        ({"from": 2048, "to": 16384, "factor": 2}, [2048, 4096, 8192, 16384]),
        ({"from": 0.80, "to": 0.95, "step": 0.05}, [0.8, 0.85, 0.9, 0.95]),
        ({"from": 0, "to": 7, "step": 3}, [0, 3, 6]),
        ({"from": 1, "to": 2, "step": 0.5}, [1.0, 1.5, 2.0]),
        ({"from": 0.1, "to": 1, "factor": 3}, [0.1, 0.3, 0.9]),
        ({"from": 100, "to": 400, "factor": 1.5}, [100, 150, 225, 338]),
        ({"from": 1, "to": 2, "factor": 1.2}, [1, 2]),
        ({"from": 4, "to": 4, "step": 1}, [4]),
        ([1, {"from": 8, "to": 32, "factor": 2}, 100], [1, 8, 16, 32, 100]),
    ],
)
def test_a_value_a_list_and_a_range_become_a_list(values, expected):
    assert json.dumps(expand_values(values)) == json.dumps(expected)


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        ({}, "needs 'from'"),
        ({"from": 1, "step": 1}, "needs 'to'"),
        ({"from": 1, "to": 2}, "needs either 'step' or 'factor'"),
        ({"from": 1, "to": 2, "step": 1, "factor": 2}, "needs either 'step' or 'factor'"),
        ({"from": 1, "to": 2, "stp": 1}, "Unknown key of a range 'stp'; did you mean 'step'?"),
        ({"from": 1, "to": "2", "step": 1}, "'to' of a range is a number, not '2'"),
        ({"from": True, "to": 2, "step": 1}, "'from' of a range is a number, not True"),
        ({"from": 3, "to": 2, "step": 1}, "'from' of a range is above 'to'"),
        ({"from": 1, "to": 2, "step": 0}, "'step' of a range must be above 0"),
        ({"from": 1, "to": 2, "factor": 1}, "'factor' of a range must be above 1"),
        ({"from": 0, "to": 2, "factor": 2}, "'from' above 0"),
        ({"from": 1, "to": 10**9, "step": 1}, f"more than {MAX_VALUES} values"),
        ({"from": 1e-300, "to": 1e300, "factor": 1.001}, f"more than {MAX_VALUES} values"),
        ({"from": 1, "to": 2, "step": 1e-300}, f"more than {MAX_VALUES} values"),
        ([1, {"from": 1}], "needs 'to'"),
    ],
)
def test_a_range_that_is_none_is_refused_in_words(invalid, message):
    with pytest.raises(ValueError) as caught:
        expand_values(invalid)
    assert message in str(caught.value)


decimals = st.decimals(0, 100, places=3).map(float)


@given(decimals, st.integers(0, 40), st.decimals("0.001", 10, places=3).map(float), st.booleans())
def test_a_linear_range_has_every_step_as_it_would_be_written(start, count, step, beyond):
    exact = [Decimal(repr(start)) + index * Decimal(repr(step)) for index in range(count + 1)]
    end = float(exact[-1] + (Decimal(repr(step)) / 2 if beyond else 0))
    assert expand_values({"from": start, "to": end, "step": step}) == [float(value) for value in exact]


@given(st.integers(1, 64), st.integers(2, 5), st.integers(0, 8))
def test_a_geometric_range_of_whole_numbers_stays_whole(start, factor, count):
    values = expand_values({"from": start, "to": start * factor**count, "factor": factor})
    assert values == [start * factor**index for index in range(count + 1)]
    assert all(type(value) is int for value in values)


@given(
    st.floats(0.001, 1e3) | st.integers(1, 1000),
    st.floats(0.001, 1e4) | st.integers(1, 10_000),
    st.sampled_from(["step", "factor"]),
    st.floats(0.01, 100) | st.integers(1, 100),
)
def test_any_range_rises_within_its_ends_or_is_refused(start, end, kind, by):
    try:
        values = expand_values({"from": start, "to": end, kind: by})
    except ValueError:
        return
    assert values[0] == start
    assert values == sorted(set(values))
    assert all(start <= value <= end for value in values)


@pytest.mark.parametrize("more", [{"factor": 1}, {"factor": 0.5}, {"step": 0}, {"step": -1}, {"step": 1e-300}])
def test_a_range_without_end_is_refused_at_once(more):
    with pytest.raises(ValueError, match=r"must be above|has more than 1000 values"):
        expand_values({"from": 1, "to": 1e300, **more})
