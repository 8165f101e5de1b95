"""What Optuna is told of finished launches, and what is made of its answers."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from autotuner.core import (
    Candidate,
    Distribution,
    Failure,
    FailureKind,
    LoadPoint,
    LoadPointResult,
    Measurement,
    Metrics,
    Share,
    Trial,
)
from autotuner.errors import MachineError
from autotuner.scoring.judge import judge
from autotuner.search.bayesian import FAILURE_VIOLATION, INITIAL_DESIGN_SIZE, BayesianSearch, ParameterAxis
from autotuner.search.space import Space
from tests.search.problems import problem, rules

SPACE = Space("sim", {"x": list(range(8)), "kind": ["a", "b", None], "flag": [True, False]})
POINT = LoadPoint("D(100,100)", concurrency=1)
SLO = {"tpot": 0.05}


def seconds(value: float) -> Distribution:
    return Distribution(100, value, 0.0, value, value, value, value, value, value, value, value)


def answer(throughput: float, tpot: float = 0.01) -> Measurement:
    good = float(tpot <= 0.05)
    metrics = Metrics(
        requests=1000,
        ttft=seconds(0.1),
        ttfo=None,
        tpot=seconds(tpot),
        itl=None,
        chunk_gap=None,
        e2e=seconds(0.1 + 100 * tpot),
        interactivity=1 / tpot,
        output_throughput=throughput,
        throughput=throughput,
        request_throughput=throughput / 100,
        goodput=throughput / 100,
        token_goodput=throughput,
        attainment=Share(good, 0.99 * good, 1 - 0.01 * (1 - good), 1000),
        errors={},
    )
    return Measurement("simulated", (LoadPointResult(POINT, "simulated", metrics),))


FAILURE = Measurement("simulated", (), Failure(FailureKind.OUT_OF_MEMORY_AT_START, "no", "less"))


def searcher(limit: int = 30, seed: int = 0, space: Space = SPACE, **optimization) -> BayesianSearch:
    given = {"objective": "maximize_throughput"} | optimization
    return BayesianSearch(problem(space, limit, seed, optimization=given, slo=SLO))


def trial(found: BayesianSearch, number: int, candidate: Candidate, measurement: Measurement) -> Trial:
    return judge(Trial(number, candidate, measurement, 0.0, 1.0), found.experiment)


def best_at_five(candidate: Candidate) -> Measurement:
    x, kind = candidate.parameters["x"], candidate.parameters["kind"]
    return answer(1000.0 / (1 + (x - 5) ** 2) * (2 if kind == "b" else 1))


def walk(found: BayesianSearch, world=best_at_five, launches: int = 30) -> list[Candidate]:
    asked = []
    while len(asked) < launches and (launch := found.ask()) is not None:
        asked.append(launch.candidate)
        found.tell(trial(found, len(asked), launch.candidate, world(launch.candidate)))
    return asked


def test_it_finds_the_best_of_a_space_before_half_of_it_was_tried():
    asked = walk(searcher(limit=24))
    best = max(asked, key=lambda candidate: best_at_five(candidate).load_points[0].metrics.throughput)
    assert (best.parameters["x"], best.parameters["kind"]) == (5, "b")


def test_after_the_first_it_asks_where_it_is_better():
    asked = walk(searcher(limit=30))
    early, late = asked[:INITIAL_DESIGN_SIZE], asked[INITIAL_DESIGN_SIZE:]

    def mean_distance(candidates):
        return sum(abs(candidate.parameters["x"] - 5) for candidate in candidates) / len(candidates)

    assert mean_distance(late) < mean_distance(early)


def test_a_search_that_was_interrupted_goes_on_as_it_would_have():
    whole, resumed = walk(searcher()), searcher()
    for number, candidate in enumerate(whole[:17], start=1):
        resumed.tell(trial(resumed, number, candidate, best_at_five(candidate)))
    assert walk(resumed, launches=13) == whole[17:]


def test_parallel_asks_differ_once_it_is_guided_too():
    found = searcher()
    walk(found, launches=12)
    asked = [found.ask().candidate for _ in range(6)]
    assert len(set(asked)) == 6


def test_targets_are_constraints():
    found = searcher()
    candidates = SPACE.candidates
    found.tell(trial(found, 1, candidates[0], answer(100.0, tpot=0.04)))
    found.tell(trial(found, 2, candidates[1], answer(900.0, tpot=0.10)))
    met, missed = (found._results[candidates[position].key] for position in (0, 1))
    assert met.violation <= 0 < missed.violation
    study = found._build_study()
    assert [told.constraints["targets"] for told in study.trials] == [met.violation, missed.violation]
    assert study.best_trial.values == list(met.log_utilities)


def test_a_failure_is_infeasible_and_never_infinite():
    found = searcher()
    candidates = SPACE.candidates
    found.tell(trial(found, 1, candidates[0], answer(100.0)))
    found.tell(trial(found, 2, candidates[1], FAILURE))
    good, failed = found._build_study().trials
    assert failed.values == good.values
    assert failed.constraints == {"targets": FAILURE_VIOLATION}


def test_launches_under_way_are_known_to_the_sampler():
    found = searcher()
    walk(found, launches=11)
    found.ask()
    states = [told.state.name for told in found._build_study().trials]
    assert states == ["COMPLETE"] * 11 + ["RUNNING"]


def test_several_objectives_are_searched_together():
    found = searcher(further_objectives=["minimize_tpot"])
    asked = walk(found, launches=14)
    assert len(set(asked)) == 14
    study = found._build_study()
    assert len(study.directions) == 2
    assert all(len(told.values) == 2 for told in study.trials)


def test_numbers_keep_their_order_and_anything_else_is_a_choice():
    assert ParameterAxis.from_values("x", [8, 2, 4]) == ParameterAxis("x", (2, 4, 8), is_ordered=True)
    assert not ParameterAxis.from_values("x", [True, False]).is_ordered
    assert not ParameterAxis.from_values("x", [None, 2]).is_ordered
    mixed = ParameterAxis.from_values("x", [1, True, 0, False])
    assert [mixed.decode(mixed.encode(value)) for value in (1, True, 0, False)] == [1, True, 0, False]


def test_a_baseline_outside_the_space_is_no_part_of_the_model():
    found = searcher()
    found.tell(replace(trial(found, 1, Candidate("sim"), answer(1.0)), purpose="baseline"))
    assert found._results == {}
    assert len(walk(found)) == 30


TIED = Space(
    "sim",
    {"x": list(range(8)), "kind": ["a", "b"], "depth": [1, 2, 3, 4]},
    rules=rules({"depth": "kind == 'b'"}, {"low": "x * depth < 21"}),
)


def deep_is_better(candidate: Candidate) -> Measurement:
    x, depth = candidate.parameters["x"], candidate.parameters.get("depth", 0)
    return answer(1000.0 * (1 + depth) / (1 + (x - 5) ** 2))


def test_it_finds_the_best_among_parameters_that_are_not_always_there():
    asked = walk(searcher(space=TIED), deep_is_better, launches=20)
    assert set(asked) <= set(TIED.candidates)
    assert Candidate("sim", {"x": 5, "kind": "b", "depth": 4}) in asked


def test_several_objectives_are_searched_among_parameters_that_are_not_always_there():
    asked = walk(searcher(space=TIED, further_objectives=["minimize_tpot"]), deep_is_better, launches=14)
    assert len(set(asked) & set(TIED.candidates)) == 14


def test_what_a_candidate_lacks_optuna_is_not_told():
    found = searcher(space=TIED)
    asked = walk(found, deep_is_better, launches=12)
    told = [trial.params.keys() for trial in found._build_study().trials]
    assert told == [candidate.parameters.keys() for candidate in asked]
    assert {len(names) for names in told} == {2, 3}


@pytest.mark.parametrize(("module", "sampler"), [("optuna", "tpe"), ("torch", "gp")])
def test_what_is_not_installed_is_named_with_its_extra(monkeypatch, module, sampler):
    found = searcher(sampler=sampler)
    walk(found, launches=INITIAL_DESIGN_SIZE)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MachineError, match=r"autotune\[bayesian"):
        found.ask()
