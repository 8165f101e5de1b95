"""What is guessed of candidates of which nothing is predicted."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.core import Candidate
from autotuner.search.value_effects import (
    CANDIDATE_SD,
    COMMON_SD,
    RESIDUAL_CLIP_SDS,
    VALUE_EFFECT_SD,
    value_effect_posterior,
)

VALUES = {"backend": ("a", "b"), "kv-block-size": (16, 32, 128), "chunked": (True, False)}
SPACE = [Candidate("sim", dict(zip(VALUES, values, strict=True))) for values in itertools.product(*VALUES.values())]
NOISE = 0.02


def at(**parameters) -> Candidate:
    return Candidate("sim", {name.replace("_", "-"): value for name, value in parameters.items()})


def guessed(seen: dict[Candidate, float], wanted):
    return value_effect_posterior(list(seen), np.array(list(seen.values())), np.full(len(seen), NOISE), list(wanted))


measured = st.dictionaries(st.sampled_from(SPACE), st.floats(-1, 1), max_size=8)


def test_with_nothing_seen_all_candidates_are_as_good_and_as_uncertain():
    means, shared = guessed({}, SPACE)
    np.testing.assert_allclose(means, 0.0)
    np.testing.assert_allclose(np.diag(shared), COMMON_SD**2 + 3 * VALUE_EFFECT_SD**2 + CANDIDATE_SD**2)


@given(measured)
def test_a_covariance_is_symmetric_and_no_combination_has_a_negative_variance(seen):
    _, shared = guessed(seen, SPACE)
    np.testing.assert_allclose(shared, shared.T, atol=1e-9)
    assert np.linalg.eigvalsh(shared).min() > -1e-8


@given(measured, st.permutations(list(range(len(SPACE)))))
def test_the_order_of_candidates_does_not_matter(seen, order):
    means, shared = guessed(seen, SPACE)
    other_means, other_shared = guessed(dict(reversed(seen.items())), [SPACE[i] for i in order])
    np.testing.assert_allclose(other_means, means[order], atol=1e-7)
    np.testing.assert_allclose(other_shared, shared[np.ix_(order, order)], atol=1e-7)


def test_a_parameter_that_counts_is_told_from_those_that_do_not():
    half = [one for i, one in enumerate(SPACE) if (i + i // 2) % 2]
    seen = {one: 0.5 if one.parameters["backend"] == "a" else -0.5 for one in half}
    means, shared = guessed(seen, SPACE)
    for candidate, mean in zip(SPACE, means, strict=True):
        assert mean == pytest.approx(0.5 if candidate.parameters["backend"] == "a" else -0.5, abs=0.1)
    left = [position for position, one in enumerate(SPACE) if one not in seen]
    assert np.sqrt(np.diag(shared)[left]).max() < VALUE_EFFECT_SD / 2


def test_numbers_are_alike_the_closer_they_are_and_names_are_not():
    means, _ = guessed({at(size=16): 0.0, at(size=512): 0.4}, [at(size=32), at(size=64), at(size=256)])
    assert means[0] < means[1] < means[2]
    means, _ = guessed({at(backend="a"): 0.0, at(backend="b"): 0.4}, [at(backend="c"), at(backend="d")])
    assert means[0] == pytest.approx(means[1])


def test_a_size_that_is_not_given_is_one():
    means, _ = guessed({at(tp_size=1, x=1): 0.3, at(tp_size=4, x=1): -0.3}, [at(x=1), at(tp_size=1, x=1)])
    assert means[0] == pytest.approx(means[1], abs=2 * CANDIDATE_SD)


def test_how_far_off_something_is_does_not_matter_once_it_is_far_off():
    far = 2 * RESIDUAL_CLIP_SDS * (COMMON_SD**2 + 3 * VALUE_EFFECT_SD**2) ** 0.5
    one, other = (guessed({SPACE[0]: -off, SPACE[1]: 0.0}, SPACE[2:]) for off in (far, 10 * far))
    np.testing.assert_allclose(one[0], other[0])
    np.testing.assert_allclose(one[1], other[1])
