"""The posterior of the additive model of parameter values."""

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
NOISE_SD = 0.02


def candidate(**parameters) -> Candidate:
    return Candidate("sim", {name.replace("_", "-"): value for name, value in parameters.items()})


def posterior(measurements: dict[Candidate, float], candidates):
    return value_effect_posterior(
        list(measurements),
        np.array(list(measurements.values())),
        np.full(len(measurements), NOISE_SD),
        list(candidates),
    )


measurements_of_space = st.dictionaries(st.sampled_from(SPACE), st.floats(-1, 1), max_size=8)


def test_without_measurements_all_candidates_have_equal_means_and_variances():
    means, covariance = posterior({}, SPACE)
    np.testing.assert_allclose(means, 0.0)
    np.testing.assert_allclose(np.diag(covariance), COMMON_SD**2 + 3 * VALUE_EFFECT_SD**2 + CANDIDATE_SD**2)


@given(measurements_of_space)
def test_the_covariance_is_symmetric_and_positive_semidefinite(measurements):
    _, covariance = posterior(measurements, SPACE)
    np.testing.assert_allclose(covariance, covariance.T, atol=1e-9)
    assert np.linalg.eigvalsh(covariance).min() > -1e-8


@given(measurements_of_space, st.permutations(list(range(len(SPACE)))))
def test_the_order_of_candidates_does_not_matter(measurements, order):
    means, covariance = posterior(measurements, SPACE)
    other_means, other_covariance = posterior(dict(reversed(measurements.items())), [SPACE[i] for i in order])
    np.testing.assert_allclose(other_means, means[order], atol=1e-7)
    np.testing.assert_allclose(other_covariance, covariance[np.ix_(order, order)], atol=1e-7)


def test_a_parameter_with_an_effect_is_told_from_those_without():
    half = [one for i, one in enumerate(SPACE) if (i + i // 2) % 2]
    measurements = {one: 0.5 if one.parameters["backend"] == "a" else -0.5 for one in half}
    means, covariance = posterior(measurements, SPACE)
    for one, mean in zip(SPACE, means, strict=True):
        assert mean == pytest.approx(0.5 if one.parameters["backend"] == "a" else -0.5, abs=0.1)
    unmeasured = [index for index, one in enumerate(SPACE) if one not in measurements]
    assert np.sqrt(np.diag(covariance)[unmeasured]).max() < VALUE_EFFECT_SD / 2


def test_effects_of_close_numbers_are_similar_and_those_of_names_are_not():
    means, _ = posterior(
        {candidate(size=16): 0.0, candidate(size=512): 0.4},
        [candidate(size=32), candidate(size=64), candidate(size=256)],
    )
    assert means[0] < means[1] < means[2]
    means, _ = posterior(
        {candidate(backend="a"): 0.0, candidate(backend="b"): 0.4}, [candidate(backend="c"), candidate(backend="d")]
    )
    assert means[0] == pytest.approx(means[1])


def test_an_absent_parallel_size_is_one():
    means, _ = posterior(
        {candidate(tp_size=1, x=1): 0.3, candidate(tp_size=4, x=1): -0.3}, [candidate(x=1), candidate(tp_size=1, x=1)]
    )
    assert means[0] == pytest.approx(means[1], abs=2 * CANDIDATE_SD)


def test_residuals_beyond_the_clip_have_the_same_effect():
    residual = 2 * RESIDUAL_CLIP_SDS * (COMMON_SD**2 + 3 * VALUE_EFFECT_SD**2) ** 0.5
    one, other = (posterior({SPACE[0]: -size, SPACE[1]: 0.0}, SPACE[2:]) for size in (residual, 10 * residual))
    np.testing.assert_allclose(one[0], other[0])
    np.testing.assert_allclose(one[1], other[1])
