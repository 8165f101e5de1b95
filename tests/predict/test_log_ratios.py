"""Bayesian regression of measured over predicted times."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.predict.log_ratios import LAUNCH_SD, NOISE_SD, PRIOR_SDS, MeasuredRatio, posterior, regressors

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
    assert deviation == pytest.approx(math.hypot(NOISE_SD["ttft"], LAUNCH_SD), abs=0.1)


def drawn_ratios(rng, metric, launches, points):
    """Ratios of one deployment drawn from the prior, by launch; the last launch has one point."""
    coefficients = rng.normal(0, PRIOR_SDS[metric])
    ratios = []
    for launch, count in enumerate([*[points] * launches, 1]):
        shared = rng.normal(0, LAUNCH_SD)
        for _ in range(count):
            concurrency, isl, osl = (float(rng.choice(values)) for values in ((4, 64), (512, 8192), (256, 1024)))
            position = regressors(concurrency, isl, osl, tp=4)
            ratio = float(np.dot(coefficients, position)) + shared + rng.normal(0, NOISE_SD[metric])
            ratios.append(MeasuredRatio(str(launch), position, ratio, ratio))
    return ratios


@pytest.mark.parametrize("launches", [1, 3, 10])
def test_an_interval_of_80_percent_holds_80_percent_of_new_launches(launches):
    rng, inside = np.random.default_rng(7), []
    for _ in range(300):
        *measured, new = drawn_ratios(rng, "tpot", launches, points=4)
        mean, deviation = posterior(measured, "tpot").at(new.position)
        inside.append(abs(new.tpot - mean) <= 1.2816 * deviation)
    assert 0.75 <= np.mean(inside) <= 0.86


def dense_posterior(ratios, metric):
    """The same posterior by the covariance of all points."""
    prior = np.diag(np.square(PRIOR_SDS[metric]))
    phi = np.array([ratio.position for ratio in ratios])
    values = np.array([getattr(ratio, metric) for ratio in ratios])
    launches = np.array([ratio.launch for ratio in ratios])
    shared, weights = (launches[:, None] == launches[None, :]) * LAUNCH_SD**2, np.ones(len(ratios))
    for _ in range(3):
        noise = np.diag(NOISE_SD[metric] ** 2 * weights)
        gain = prior @ phi.T @ np.linalg.inv(phi @ prior @ phi.T + shared + noise)
        mean = gain @ values
        weights = np.maximum(1.0, np.abs(values - phi @ mean) / (2 * NOISE_SD[metric]))
    return mean, prior - gain @ phi @ prior


@pytest.mark.parametrize(("launches", "points"), [(0, 1), (1, 7), (9, 3)])
@pytest.mark.parametrize("metric", ["ttft", "tpot"])
def test_the_posterior_is_that_of_the_covariance_of_all_points(launches, points, metric):
    ratios = drawn_ratios(np.random.default_rng(1), metric, launches, points)
    ratios.append(ratios[0]._replace(ttft=3.0, tpot=3.0))
    mean, covariance = dense_posterior(ratios, metric)
    after = posterior(ratios, metric)
    assert after.mean == pytest.approx(mean, abs=1e-9)
    assert np.array(after.covariance) == pytest.approx(covariance, abs=1e-9)


def test_thousands_of_points_are_fitted_without_a_matrix_of_their_pairs():
    few = drawn_ratios(np.random.default_rng(2), "ttft", launches=10, points=3)
    many = [ratio._replace(launch=f"{ratio.launch} {copy}") for ratio in few for copy in range(1000)]
    assert posterior(many, "ttft").at(few[0].position)[1] < posterior(few, "ttft").at(few[0].position)[1]
