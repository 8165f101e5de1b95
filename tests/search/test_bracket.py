import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.search.bracket import MAX_LOAD_POINTS, Bracket, decreasing_fit


def find(bracket: Bracket, margin) -> list[float]:
    """The loads that a finished search loads for, where `margin(load)` is measured."""
    loads = []
    while (load := bracket.ask()) is not None:
        loads.append(load)
        bracket.tell(load, margin(load))
        assert len(loads) <= MAX_LOAD_POINTS
    return loads


@given(st.integers(1, 2000), st.integers(1, 2000), st.sampled_from([1.1, 1.25, 2.0]))
def test_without_noise_it_ends_within_its_precision_of_the_capacity(capacity, start, step):
    bracket = Bracket(1, 4096, start, step)
    loads = find(bracket, lambda load: 1.0 if load <= capacity else -1.0)
    low, high = bracket.limits()
    assert low is not None
    assert high is not None
    assert low <= capacity < high
    assert high <= 1.05 * low or high == low + 1
    assert len(loads) <= 18


@given(st.floats(0.02, 900), st.floats(0.01, 1000))
def test_rates_need_not_be_integers(capacity, start):
    bracket = Bracket(0.01, 1000, start, is_integer=False)
    find(bracket, lambda load: 1.0 if load <= capacity else -1.0)
    low, high = bracket.limits()
    assert low is not None
    assert high is not None
    assert low <= capacity < high <= 1.05 * low * 1.001


def test_from_the_lowest_load_it_doubles_and_then_bisects():
    loads = find(Bracket(1, 1024, 1), lambda load: 100.5 - load)
    assert loads[:8] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert loads[8] == round(math.sqrt(64 * 128))
    assert len(loads) == 12


def test_a_good_first_guess_and_a_short_step_need_few_loads():
    assert len(find(Bracket(1, 1024, 95, step=1.1), lambda load: 100.5 - load)) <= 4


def test_the_end_reason_names_targets_that_no_load_meets_or_every_load_meets():
    infeasible, feasible = Bracket(1, 64, 16), Bracket(1, 64, 16)
    find(infeasible, lambda load: -1.0)
    find(feasible, lambda load: 1.0)
    assert (infeasible.limits(), infeasible.end_reason) == ((None, 1), "even the lowest load misses the targets")
    assert (feasible.limits(), feasible.end_reason) == ((64, None), "the highest load allowed meets the targets")


def test_an_inconclusive_capacity_is_measured_once_more():
    bracket = Bracket(1, 64, 10, step=1.5)
    loads = []
    while (load := bracket.ask()) is not None:
        loads.append(load)
        bracket.tell(load, 0.01 if load <= 10 else -1.0, is_conclusive=load != 10)
    assert loads.count(10) == 2


def test_a_metric_far_beyond_its_target_is_called_a_cliff():
    """The metric at the lowest infeasible load decides, not the share of requests that miss their targets."""
    reasons = {}
    for ratio in (3.0, 1.6, 1.4, 1.01):
        bracket = Bracket(1, 64, 16)
        while (load := bracket.ask()) is not None:
            is_feasible = load <= 20
            bracket.tell(load, 0.05 if is_feasible else -0.9, slack=0.01 if is_feasible else -math.log(ratio))
        reasons[ratio] = bracket.end_reason
    assert reasons == {
        3.0: "a cliff: at 21 a metric is 3x its target",
        1.6: "a cliff: at 21 a metric is 1.6x its target",
        1.4: "bracketed",
        1.01: "bracketed",
    }


@pytest.mark.parametrize("capacity", [12, 90, 500])
def test_with_the_noise_of_a_hundred_requests_it_is_mostly_within_a_tenth(capacity):
    """Attainment falls through 95% at the capacity, as in a queue that fills."""
    rng = random.Random(7)

    def noisy_margin(load: float) -> float:
        share: float = 1 / (1 + (1 / 0.95 - 1) * (load / capacity) ** 12)
        return sum(rng.random() < share for _ in range(100)) / 100 - 0.95

    close_count = 0
    for _ in range(200):
        bracket = Bracket(1, 4096, capacity / 3)
        find(bracket, noisy_margin)
        close_count += abs((bracket.limits()[0] or 0) / capacity - 1) <= 0.1
    assert close_count >= 170


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(1, 100)), min_size=1, max_size=20))
def test_the_isotonic_fit_never_rises_keeps_the_mean_and_keeps_decreasing_values(pairs):
    values, weights = [v for v, _ in pairs], [w for _, w in pairs]
    fit = decreasing_fit(values, weights)
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(fit))
    assert sum(map(math.prod, zip(fit, weights, strict=True))) == pytest.approx(sum(map(math.prod, pairs)), abs=1e-6)
    if values == sorted(values, reverse=True):
        assert fit == values


def power_law_slack(capacity: float, slope: float):
    """Log slack of metrics that reach their targets at `capacity` and grow with load to the power `slope`."""
    return lambda load: slope * math.log(capacity / load)


@given(st.integers(1, 2000), st.integers(1, 2000), st.floats(0.2, 6.0))
def test_slack_leads_to_the_capacity_in_few_loads(capacity, start, slope):
    bracket, count = Bracket(1, 4096, start), 0
    slack = power_law_slack(capacity + 0.5, slope)
    while (load := bracket.ask()) is not None:
        bracket.tell(load, 1.0 if load <= capacity else -1.0, slack=slack(load))
        count += 1
    low, high = bracket.limits()
    assert low is not None
    assert high is not None
    assert low <= capacity < high
    assert high <= 1.05 * low or high == low + 1
    assert count <= 13


def test_from_a_low_load_it_takes_the_steps_that_the_slack_predicts():
    bracket = Bracket(1, 1024, 1)
    slack, loads = power_law_slack(100.5, 0.9), []
    while (load := bracket.ask()) is not None:
        loads.append(load)
        bracket.tell(load, 100.5 - load, slack=slack(load))
    assert loads[:4] == [1, 4, 16, 64]
    assert len(loads) <= 7


@given(st.integers(2, 500), st.data())
def test_slack_that_contradicts_the_margins_does_not_keep_it_from_the_capacity(capacity, data):
    bracket = Bracket(1, 1024, 30)
    while (load := bracket.ask()) is not None:
        slack = data.draw(st.none() | st.floats(-3, 3))
        bracket.tell(load, 1.0 if load <= capacity else -1.0, slack=slack)
    low, high = bracket.limits()
    assert low is not None
    assert high is not None
    assert low <= capacity < high


def test_at_most_one_load_is_measured_twice():
    bracket, loads = Bracket(1, 64, 10, step=1.5), []
    while (load := bracket.ask()) is not None:
        loads.append(load)
        bracket.tell(load, 0.001 if loads.count(load) == 1 and load <= 10 else -0.1, is_conclusive=False)
    assert len(loads) == len(set(loads)) + 1
