import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.search.bracket import MAX_LOAD_POINTS, Bracket, decreasing_fit


def find(bracket: Bracket, margin) -> list[float]:
    """The loads it asked for, `margin(load)` being what is seen there."""
    asked = []
    while (load := bracket.ask()) is not None:
        asked.append(load)
        bracket.tell(load, margin(load))
        assert len(asked) <= MAX_LOAD_POINTS
    return asked


@given(st.integers(1, 2000), st.integers(1, 2000), st.sampled_from([1.1, 1.25, 2.0]))
def test_without_noise_it_ends_within_its_precision_of_the_edge(edge, start, step):
    bracket = Bracket(1, 4096, start, step)
    asked = find(bracket, lambda load: 1.0 if load <= edge else -1.0)
    low, high = bracket.limits()
    assert low is not None
    assert high is not None
    assert low <= edge < high
    assert high <= 1.05 * low or high == low + 1
    assert len(asked) <= 18


@given(st.floats(0.02, 900), st.floats(0.01, 1000))
def test_rates_need_not_be_whole(edge, start):
    bracket = Bracket(0.01, 1000, start, is_integer=False)
    find(bracket, lambda load: 1.0 if load <= edge else -1.0)
    low, high = bracket.limits()
    assert low is not None
    assert high is not None
    assert low <= edge < high <= 1.05 * low * 1.001


def test_from_the_lowest_load_it_doubles_and_then_bisects():
    asked = find(Bracket(1, 1024, 1), lambda load: 100.5 - load)
    assert asked[:8] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert asked[8] == round(math.sqrt(64 * 128))
    assert len(asked) == 12


def test_a_good_first_guess_and_a_short_step_need_few_loads():
    assert len(find(Bracket(1, 1024, 95, step=1.1), lambda load: 100.5 - load)) <= 4


def test_a_load_that_nothing_meets_and_one_that_nothing_misses():
    never, always = Bracket(1, 64, 16), Bracket(1, 64, 16)
    find(never, lambda load: -1.0)
    find(always, lambda load: 1.0)
    assert (never.limits(), never.end_reason) == ((None, 1), "even the lowest load misses the targets")
    assert (always.limits(), always.end_reason) == ((64, None), "the highest load allowed meets the targets")


def test_an_answer_that_was_not_clear_is_asked_for_once_more():
    bracket = Bracket(1, 64, 10, step=1.5)
    asked = []
    while (load := bracket.ask()) is not None:
        asked.append(load)
        bracket.tell(load, 0.01 if load <= 10 else -1.0, is_conclusive=load != 10)
    assert asked.count(10) == 2


def test_a_sudden_end_is_called_a_cliff():
    """It is told by the figure beyond the edge, not by the share of requests that it makes miss."""
    ends = {}
    for beyond in (3.0, 1.6, 1.4, 1.01):
        bracket = Bracket(1, 64, 16)
        while (load := bracket.ask()) is not None:
            met = load <= 20
            bracket.tell(load, 0.05 if met else -0.9, slack=0.01 if met else -math.log(beyond))
        ends[beyond] = bracket.end_reason
    assert ends == {
        3.0: "a cliff: at 21 a figure is 3 times its target",
        1.6: "a cliff: at 21 a figure is 1.6 times its target",
        1.4: "bracketed",
        1.01: "bracketed",
    }


@pytest.mark.parametrize("edge", [12, 90, 500])
def test_with_the_noise_of_a_hundred_requests_it_is_mostly_within_a_tenth(edge):
    """The share of good requests falls from 1 through 95% at the edge, as in a queue that fills."""
    draw = random.Random(7)

    def seen(load: float) -> float:
        share = 1 / (1 + (1 / 0.95 - 1) * (load / edge) ** 12)
        return sum(draw.random() < share for _ in range(100)) / 100 - 0.95

    close = 0
    for _ in range(200):
        bracket = Bracket(1, 4096, edge / 3)
        find(bracket, seen)
        close += abs((bracket.limits()[0] or 0) / edge - 1) <= 0.1
    assert close >= 170


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(1, 100)), min_size=1, max_size=20))
def test_the_fit_never_rises_keeps_the_mean_and_leaves_falling_values_alone(pairs):
    values, weights = [v for v, _ in pairs], [w for _, w in pairs]
    fit = decreasing_fit(values, weights)
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(fit))
    assert sum(map(math.prod, zip(fit, weights, strict=True))) == pytest.approx(sum(map(math.prod, pairs)), abs=1e-6)
    if values == sorted(values, reverse=True):
        assert fit == values


def slack_of(edge: float, slope: float):
    """Figures that reach the targets at `edge`, growing with the load to the power `slope`."""
    return lambda load: slope * math.log(edge / load)


@given(st.integers(1, 2000), st.integers(1, 2000), st.floats(0.2, 6.0))
def test_slack_leads_to_the_edge_in_few_loads(edge, start, slope):
    bracket, asked = Bracket(1, 4096, start), 0
    slack = slack_of(edge + 0.5, slope)
    while (load := bracket.ask()) is not None:
        bracket.tell(load, 1.0 if load <= edge else -1.0, slack=slack(load))
        asked += 1
    low, high = bracket.limits()
    assert low is not None
    assert high is not None
    assert low <= edge < high
    assert high <= 1.05 * low or high == low + 1
    assert asked <= 13


def test_from_a_load_far_below_it_steps_as_far_as_the_slack_says():
    bracket = Bracket(1, 1024, 1)
    slack, asked = slack_of(100.5, 0.9), []
    while (load := bracket.ask()) is not None:
        asked.append(load)
        bracket.tell(load, 100.5 - load, slack=slack(load))
    assert asked[:4] == [1, 4, 16, 64]
    assert len(asked) <= 7


@given(st.integers(2, 500), st.data())
def test_slack_that_contradicts_the_answers_does_not_keep_it_from_the_edge(edge, data):
    bracket = Bracket(1, 1024, 30)
    while (load := bracket.ask()) is not None:
        slack = data.draw(st.none() | st.floats(-3, 3))
        bracket.tell(load, 1.0 if load <= edge else -1.0, slack=slack)
    low, high = bracket.limits()
    assert low is not None
    assert high is not None
    assert low <= edge < high


def test_there_is_one_second_look_at_most():
    bracket, asked = Bracket(1, 64, 10, step=1.5), []
    while (load := bracket.ask()) is not None:
        asked.append(load)
        bracket.tell(load, 0.001 if asked.count(load) == 1 and load <= 10 else -0.1, is_conclusive=False)
    assert len(asked) == len(set(asked)) + 1
