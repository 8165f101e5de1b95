"""The probability that any untested candidate meets the targets."""

import math
from types import SimpleNamespace

import pytest

from autotuner.core import Candidate, LoadPoint, Measurement, Trial
from autotuner.predict.efficiencies import UNIT_COSTS
from autotuner.scoring.intervals import wilson_share
from autotuner.search.feasibility import MIN_MISSED_TRIALS, Feasibility
from autotuner.search.problem import Problem
from autotuner.search.space import Space
from tests.factories import experiment, load_point_result

SPACE = Space("sim", {"tp-size": [1], "a": [1, 2, 3, 4], "b": [1, 2, 4, 8]})
POINT = LoadPoint("D(100,100)", concurrency=1)


def problem(predict=None):
    config = experiment(slo={"ttft": 0.1, "tpot": {"p90": 0.5}}, optimization={"objective": "maximize_throughput"})
    return Problem(SPACE, config, **({"predict": predict} if predict else {}))


def trials_with(ttft, count=MIN_MISSED_TRIALS):
    """Trials of `count` candidates across the space; `ttft` maps a candidate to its measured TTFT."""
    candidates = SPACE.candidates[:: len(SPACE.candidates) // count][:count]
    points = [
        (one, load_point_result(POINT, ttft=ttft(one), e2e=9.0, attainment=wilson_share(0, 50))) for one in candidates
    ]
    return [
        Trial(number, one, Measurement("simulated", (point,)), 0.0, 1.0) for number, (one, point) in enumerate(points)
    ]


def untested(trials):
    keys = {trial.candidate.key for trial in trials}
    return [candidate for candidate in SPACE.candidates if candidate.key not in keys]


def test_where_all_trials_are_far_from_the_targets_no_other_candidate_meets_them():
    trials = trials_with(lambda candidate: 1.0 + 0.02 * candidate.parameters["a"])
    assert Feasibility(problem()).any_feasible_probability(untested(trials), trials) <= 0.01


def test_where_some_trials_are_close_other_candidates_may_meet_them():
    trials = trials_with(lambda candidate: 0.13 - 0.01 * candidate.parameters["a"] + 0.01)
    assert Feasibility(problem()).any_feasible_probability(untested(trials), trials) > 0.1


def test_with_few_misses_or_a_feasible_trial_the_probability_is_one():
    few = trials_with(lambda candidate: 1.0, MIN_MISSED_TRIALS - 1)
    assert Feasibility(problem()).any_feasible_probability(untested(few), few) == 1.0
    met = trials_with(lambda candidate: 0.05 if candidate.parameters["a"] == 1 else 1.0)
    assert Feasibility(problem()).any_feasible_probability(untested(met), met) == 1.0


def test_a_prediction_that_one_candidate_is_far_better_keeps_the_search_going():
    best = SPACE.candidates[-1]

    def predict(candidate: Candidate, point, costs=UNIT_COSTS):
        ttft = 0.05 if candidate == best else 1.0
        return SimpleNamespace(ttft=ttft, tpot=0.01, requests=1.0, throughput=100.0, max_in_flight=1e4)

    trials = trials_with(lambda candidate: 1.0)
    feasibility = Feasibility(problem(predict))
    assert feasibility.any_feasible_probability(untested(trials), trials) > 0.9
    others = [candidate for candidate in untested(trials) if candidate != best]
    assert feasibility.any_feasible_probability(others, trials) <= 0.01


def test_without_targets_every_candidate_is_feasible():
    unconstrained = Problem(SPACE, experiment())
    trials = trials_with(lambda candidate: math.e)
    assert Feasibility(unconstrained).any_feasible_probability(untested(trials), trials) == pytest.approx(1.0)
