"""The posterior of the surrogate, and its prior covariance."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.core import Candidate
from autotuner.predict.efficiencies import COST_KINDS
from autotuner.search.surrogate import (
    AFFECTED_KIND,
    COST_VARIANCE_SHARES,
    MODEL_ERROR_SHARES,
    SCALE_PRIOR_WEIGHT,
    MeasuredMetric,
    PredictedMetric,
    Surrogate,
    covariance,
)
from autotuner.search.value_effects import RESIDUAL_CLIP_SDS

SIZES, BLOCKS = (1, 2, 4), (16, 32)


def figure(metric="utility", log_value=0.0, model_error_scale=1.0, slopes=None, **parameters) -> PredictedMetric:
    values = {name.replace("_", "-"): value for name, value in parameters.items()}
    cost_slopes = tuple((slopes or {}).get(kind, 0.0) for kind in COST_KINDS)
    return PredictedMetric(Candidate("sim", values), metric, log_value, cost_slopes, model_error_scale)


figures = st.builds(
    figure,
    metric=st.sampled_from(["utility", "tpot", "requests"]),
    log_value=st.floats(-5, 5),
    model_error_scale=st.floats(0.5, 5),
    slopes=st.dictionaries(st.sampled_from(list(COST_KINDS)), st.floats(-3, 3)),
    tp_size=st.sampled_from(SIZES),
    kv_block_size=st.sampled_from(BLOCKS),
)


def test_the_variance_shares_of_every_kind_add_up_to_one():
    assert list(COST_VARIANCE_SHARES) == list(COST_KINDS)
    assert all(math.isclose(sum(shares), 1.0) for shares in [*COST_VARIANCE_SHARES.values(), MODEL_ERROR_SHARES])
    assert set(AFFECTED_KIND.values()) <= {*COST_KINDS, ""}


@given(st.lists(figures, min_size=1, max_size=12))
def test_the_prior_covariance_is_symmetric_and_positive_semidefinite(some):
    matrix = covariance(some, some)
    np.testing.assert_allclose(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > -1e-8


@given(st.lists(figures, min_size=1, max_size=6), st.floats(-0.1, 0.1))
def test_the_posterior_follows_a_measurement_and_bounds_every_variance(some, residual):
    means, posterior = Surrogate(0.2, (MeasuredMetric(some[0], some[0].log_value + residual, 0.005),)).posterior(some)
    assert means[0] == pytest.approx(some[0].log_value + residual, abs=0.15 * abs(residual) + 1e-9)
    max_ratio = (SCALE_PRIOR_WEIGHT + RESIDUAL_CLIP_SDS**2) / (SCALE_PRIOR_WEIGHT + 1)
    assert np.all(np.diag(posterior) <= max_ratio * np.diag(Surrogate(0.2).posterior(some)[1]) + 1e-9)


@given(st.floats(1.0, 20.0), st.floats(1.0, 20.0))
def test_residuals_beyond_the_clip_have_the_same_effect(residual, increase):
    one, other = figure(tp_size=1, slopes={"weights": -1.0}), figure(tp_size=2, slopes={"weights": -1.0})
    posteriors = [
        Surrogate(0.2, (MeasuredMetric(one, -size, 0.02),)).posterior([other])
        for size in (residual, residual + increase)
    ]
    np.testing.assert_allclose(posteriors[0][0], posteriors[1][0])
    np.testing.assert_allclose(posteriors[0][1], posteriors[1][1])


def test_an_error_in_reading_weights_carries_over_to_another_layout_in_part():
    slow = {"weights": -1.0}
    one, two, other = (
        figure(tp_size=1, slopes=slow),
        figure(tp_size=2, slopes=slow),
        figure(tp_size=2, slopes={"collectives": -1.0}),
    )
    means, _ = Surrogate(0.2, (MeasuredMetric(one, -0.3, 0.01),)).posterior([one, two, other])
    assert means[0] < means[1] < means[2] < 0


def test_a_block_size_does_not_affect_matrices_nor_a_token_budget_attention():
    attention, matrices = {"attention": -1.0}, {"matrices": -1.0}
    by_block = covariance([figure(slopes=attention, kv_block_size=16)], [figure(slopes=attention, kv_block_size=32)])
    by_budget = covariance(
        [figure(slopes=attention, max_batched_tokens=1024)], [figure(slopes=attention, max_batched_tokens=8192)]
    )
    assert by_block < by_budget
    same = covariance([figure(slopes=matrices, kv_block_size=16)], [figure(slopes=matrices, kv_block_size=32)])
    assert same > by_block


def test_tpot_at_a_load_point_informs_about_the_utility():
    slow = {"weights": 1.0}
    tpot = figure("tpot", slopes=slow, tp_size=2)
    utility = figure(slopes={"weights": -1.5}, tp_size=2)
    means, posterior = Surrogate(0.2, (MeasuredMetric(tpot, 0.4, 0.02),)).posterior([utility])
    assert -0.6 < means[0] < -0.3
    assert posterior[0, 0] < Surrogate(0.2).posterior([utility])[1][0, 0]


def test_large_residuals_widen_the_posterior_of_other_candidates():
    some = [figure(tp_size=size, slopes={"weights": -1.0}) for size in SIZES]
    variances = []
    for residuals in ((0.01, 0.01), (1.0, -1.0)):
        measurements = tuple(MeasuredMetric(some[i], residual, 0.02) for i, residual in enumerate(residuals))
        _, posterior = Surrogate(0.2, measurements).posterior(some[2:])
        variances.append(posterior[0, 0])
    assert variances[1] > 2 * variances[0]
