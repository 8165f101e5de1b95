"""What is believed of candidates, where the truth is known."""

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
    MeasuredFigure,
    PredictedFigure,
    Surrogate,
    covariance,
)
from autotuner.search.value_effects import RESIDUAL_CLIP_SDS

SIZES, BLOCKS = (1, 2, 4), (16, 32)


def figure(name="utility", value=0.0, doubt=1.0, slopes=None, **parameters) -> PredictedFigure:
    named = {key.replace("_", "-"): given for key, given in parameters.items()}
    steep = tuple((slopes or {}).get(kind, 0.0) for kind in COST_KINDS)
    return PredictedFigure(Candidate("sim", named), name, value, steep, doubt)


figures = st.builds(
    figure,
    name=st.sampled_from(["utility", "tpot", "requests"]),
    value=st.floats(-5, 5),
    doubt=st.floats(0.5, 5),
    slopes=st.dictionaries(st.sampled_from(list(COST_KINDS)), st.floats(-3, 3)),
    tp_size=st.sampled_from(SIZES),
    kv_block_size=st.sampled_from(BLOCKS),
)


def test_every_share_of_every_kind_adds_up_to_one():
    assert list(COST_VARIANCE_SHARES) == list(COST_KINDS)
    assert all(math.isclose(sum(shares), 1.0) for shares in [*COST_VARIANCE_SHARES.values(), MODEL_ERROR_SHARES])
    assert set(AFFECTED_KIND.values()) <= {*COST_KINDS, ""}


@given(st.lists(figures, min_size=1, max_size=12))
def test_a_covariance_is_symmetric_and_no_combination_has_a_negative_variance(some):
    found = covariance(some, some)
    np.testing.assert_allclose(found, found.T)
    assert np.linalg.eigvalsh(found).min() > -1e-8


@given(st.lists(figures, min_size=1, max_size=6), st.floats(-0.1, 0.1))
def test_what_was_measured_is_believed_and_narrows_everything(some, off):
    means, spread = Surrogate(0.2, (MeasuredFigure(some[0], some[0].value + off, 0.005),)).posterior(some)
    assert means[0] == pytest.approx(some[0].value + off, abs=0.15 * abs(off) + 1e-9)
    wider = (SCALE_PRIOR_WEIGHT + RESIDUAL_CLIP_SDS**2) / (SCALE_PRIOR_WEIGHT + 1)
    assert np.all(np.diag(spread) <= wider * np.diag(Surrogate(0.2).posterior(some)[1]) + 1e-9)


@given(st.floats(1.0, 20.0), st.floats(1.0, 20.0))
def test_how_far_off_something_is_does_not_matter_once_it_is_far_off(off, more):
    one, other = figure(tp_size=1, slopes={"weights": -1.0}), figure(tp_size=2, slopes={"weights": -1.0})
    found = [Surrogate(0.2, (MeasuredFigure(one, -far, 0.02),)).posterior([other]) for far in (off, off + more)]
    np.testing.assert_allclose(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1])


def test_slow_weights_on_one_layout_are_slow_weights_on_another_in_part():
    slow = {"weights": -1.0}
    one, two, other = (
        figure(tp_size=1, slopes=slow),
        figure(tp_size=2, slopes=slow),
        figure(tp_size=2, slopes={"collectives": -1.0}),
    )
    means, _ = Surrogate(0.2, (MeasuredFigure(one, -0.3, 0.01),)).posterior([one, two, other])
    assert means[0] < means[1] < means[2] < 0


def test_a_block_size_says_nothing_of_matrices_and_a_token_budget_nothing_of_attention():
    attention, matrices = {"attention": -1.0}, {"matrices": -1.0}
    by_block = covariance([figure(slopes=attention, kv_block_size=16)], [figure(slopes=attention, kv_block_size=32)])
    by_budget = covariance(
        [figure(slopes=attention, max_batched_tokens=1024)], [figure(slopes=attention, max_batched_tokens=8192)]
    )
    assert by_block < by_budget
    same = covariance([figure(slopes=matrices, kv_block_size=16)], [figure(slopes=matrices, kv_block_size=32)])
    assert same > by_block


def test_times_at_a_load_point_tell_of_the_utility():
    slow = {"weights": 1.0}
    seen = figure("tpot", slopes=slow, tp_size=2)
    utility = figure(slopes={"weights": -1.5}, tp_size=2)
    means, spread = Surrogate(0.2, (MeasuredFigure(seen, 0.4, 0.02),)).posterior([utility])
    assert -0.6 < means[0] < -0.3
    assert spread[0, 0] < Surrogate(0.2).posterior([utility])[1][0, 0]


def test_large_errors_widen_what_is_believed_of_the_rest():
    some = [figure(tp_size=size, slopes={"weights": -1.0}) for size in SIZES]
    calm = Surrogate(0.2, tuple(MeasuredFigure(one, 0.01, 0.02) for one in some[:2])).posterior(some[2:])[1][0, 0]
    wild = Surrogate(0.2, (MeasuredFigure(some[0], 1.0, 0.02), MeasuredFigure(some[1], -1.0, 0.02))).posterior(
        some[2:]
    )[1][0, 0]
    assert wild > 2 * calm
