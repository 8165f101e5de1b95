"""Rates and replicas equal those that the planner of ai-dynamo 1.6.1 computed from the same points."""

from math import sin

import numpy as np
import pytest

from autotuner.errors import ConfigError, NoFeasibleError
from autotuner.profiling.planner_model import PlannerLoad
from autotuner.profiling.planner_profile import PlannerProfile
from autotuner.profiling.planner_regression import PlannerRegression, regression_replicas


def regression(lengths, ttft, decode_points, itl, kv_tokens):
    """The planner's view of TTFT(prompt tokens) and ITL(requests, context), in milliseconds."""
    isl = np.array(lengths, dtype=float)
    requests, contexts = np.array(decode_points, dtype=float).T
    times = np.array([itl(*point) for point in decode_points])
    profile = PlannerProfile(
        isl,
        np.array([ttft(length) for length in lengths]),
        isl,
        requests * contexts / kv_tokens,
        contexts,
        times,
        1000 * requests / times,
        kv_tokens,
    )
    return PlannerRegression(profile)


def points_of(contexts, sizes):
    return [(size, context) for context in contexts for size in sizes]


FEW = points_of((300, 900, 2700), (1, 4, 16, 40))
MANY = points_of((250, 500, 1000, 2000, 4000, 8000), (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192))


def noisy_itl(n, context):
    return 5 + 0.03 * n + 4e-5 * n * context + 0.4 * sin(n + context)


@pytest.fixture(scope="module")
def small():
    return regression(
        (100, 200, 400, 800, 1600, 3200), lambda n: 20 + 0.02 * n + 1e-6 * n * n + 3 * sin(n), FEW, noisy_itl, 200_000
    )


@pytest.fixture(scope="module")
def large():
    """More points than the planner keeps."""
    lengths = [100 * number for number in range(1, 81)]
    return regression(lengths, lambda n: 15 + 0.018 * n + 6 * sin(n), MANY, noisy_itl, 1_000_000)


@pytest.fixture(scope="module")
def falling():
    """ITL that falls with the number of requests: the planner takes that slope for 0."""
    return regression(
        (100, 200, 400, 800, 1600),
        lambda n: 30 + 0.03 * n,
        FEW,
        lambda n, context: 8 - 0.02 * n + 6e-5 * n * context + 0.1 * sin(n + context),
        200_000,
    )


@pytest.mark.parametrize(
    ("name", "isl", "osl", "itl", "expected"),
    [
        ("small", 600, 40, 8, (31.64778081597527, 31.597792142671082, 166.23519702458242, 7.970634520943616)),
        ("small", 3000, 150, 20, (11.0214382048208, 90.7322602927264, 28.28139844622915, 15.3222031844437)),
        ("small", 150, 300, 6.5, (48.756515380877325, 20.510079364535713, 17.549877776987373, 6.457784764857106)),
        ("small", 2000, 500, 3, (15.130218551977658, 66.09289856353668, 0.38867402855525124, 5.14570013189264)),
        ("large", 600, 40, 8, (38.98957300931694, 25.64788282654545, 169.9046034672186, 7.945635212058683)),
        ("large", 3000, 150, 20, (14.497571755425842, 68.97706849602186, 32.750517191379586, 19.948794381338814)),
        ("large", 150, 300, 6.5, (57.06570263835858, 17.523660513518628, 18.478901468378286, 6.493892518738087)),
        ("large", 2000, 500, 3, (19.637398911308374, 50.92324113374002, 0.39324359308516577, 5.085906128334187)),
        ("falling", 600, 40, 8, (20.833333333333332, 48.0, 3.108316403827378, 8.042939248146242)),
        ("falling", 3000, 150, 20, (8.333333333333336, 120.0, 21.433834682663377, 19.9062217742947)),
    ],
)
def test_rates_are_those_of_the_real_planner(request, name, isl, osl, itl, expected):
    planner = request.getfixturevalue(name)
    rates = (*planner.prefill_rate(isl), *planner.decode_rate(itl, isl, osl)[:2])
    assert rates == pytest.approx(expected, rel=1e-6)


def load(rate, max_gpus=None):
    return PlannerLoad(rate, 600, 40, 8, prefill_gpus=2, decode_gpus=4, max_gpus=max_gpus)


def test_replicas_are_the_rate_over_that_of_a_worker(small):
    # 31.6 and 166.2 requests/s
    assert regression_replicas(small, load(100)) == (4, 1)
    assert regression_replicas(small, load(1000)) == (32, 7)
    assert regression_replicas(small, load(0.1)) == (1, 1)


@pytest.mark.parametrize("max_gpus", [6, 7, 20, 50, 91, 92])
def test_a_budget_shrinks_both_and_is_never_exceeded(small, max_gpus):
    prefill, decode = regression_replicas(small, load(1000, max_gpus))
    assert min(prefill, decode) >= 1
    assert 2 * prefill + 4 * decode <= max_gpus


def test_a_budget_without_room_for_one_of_each_is_an_error(small):
    with pytest.raises(NoFeasibleError, match="at least --total-gpus 6"):
        regression_replicas(small, load(1000, 5))


def test_a_profile_that_the_planner_refuses_is_named():
    shrinking = regression((100, 200, 400, 800, 1600), lambda n: 90 - 0.01 * n, FEW, noisy_itl, 200_000)
    with pytest.raises(ConfigError, match="TTFT falls with the load"):
        shrinking.prefill_rate(600)
    short = regression((100, 200, 400, 800), lambda n: n, FEW, noisy_itl, 200_000)
    with pytest.raises(ConfigError, match="no TTFT to 4 points"):
        short.prefill_rate(600)
