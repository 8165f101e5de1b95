"""Bayesian regression of measured over predicted times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.predict.log_ratios import NOISE_SD, MeasuredRatio, posterior, regressors

RATIOS = st.floats(-1.5, 1.5)


def point(ratio, concurrency=16, isl=2048, osl=1024, tp=4, launch="one"):
    return MeasuredRatio(launch, regressors(concurrency, isl, osl, tp), ratio, ratio)


def test_without_points_nothing_is_corrected():
    mean, deviation = posterior([], "ttft").at(regressors(64, 4096, 512, 8))
    assert mean == 0
    assert deviation > 0.5


@given(RATIOS)
def test_one_point_moves_its_own_load_towards_it_and_never_beyond(ratio):
    for metric in ("ttft", "tpot"):
        mean, _ = posterior([point(ratio)], metric).at(point(ratio).position)
        assert min(0.0, ratio) - 1e-9 <= mean <= max(0.0, ratio) + 1e-9


def test_more_points_narrow_it_and_points_of_other_launches_more():
    position = regressors(64, 2048, 1024, 4)

    def width(*launches):
        points = [point(0.3, load, launch=launch) for load, launch in zip((4, 16, 64), launches, strict=False)]
        return posterior(points, "tpot").at(position)[1]

    assert width("a", "b", "c") < width("a", "a", "a") < width("a") < posterior([], "tpot").at(position)[1]


def test_a_trend_over_load_is_learnt():
    points = [point(0.1 * step, 4 * 4**step) for step in range(4)]
    after = posterior(points, "ttft")
    assert after.at(regressors(256, 2048, 1024, 4))[0] > after.at(regressors(4, 2048, 1024, 4))[0] + 0.1


def test_an_outlier_counts_for_less():
    usual = [point(0.1, load) for load in (4, 8, 16, 32, 64)]
    mean, deviation = posterior([*usual, point(3.0, 16)], "ttft").at(point(0.1).position)
    assert mean < 0.35
    assert deviation == pytest.approx(NOISE_SD["ttft"], abs=0.1)
