"""The Optuna study that a Bayesian search builds, and the candidates it proposes."""

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
from tests.factories import problem, rules

SPACE = Space("sim", {"x": list(range(8)), "kind": ["a", "b", None], "flag": [True, False]})
POINT = LoadPoint("D(100,100)", concurrency=1)
SLO = {"tpot": 0.05}


def seconds(value: float) -> Distribution:
    return Distribution(100, value, 0.0, value, value, value, value, value, value, value, value)


def measured(throughput: float, tpot: float = 0.01) -> Measurement:
    attainment = float(tpot <= 0.05)
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
        attainment=Share(attainment, 0.99 * attainment, 1 - 0.01 * (1 - attainment), 1000),
        errors={},
    )
    return Measurement("simulated", (LoadPointResult(POINT, "simulated", metrics),))


FAILURE = Measurement("simulated", (), Failure(FailureKind.OUT_OF_MEMORY_AT_START, "no", "less"))


def bayesian_search(limit: int = 30, seed: int = 0, space: Space = SPACE, **optimization) -> BayesianSearch:
    optimization = {"objective": "maximize_throughput"} | optimization
    return BayesianSearch(problem(space, limit, seed, optimization=optimization, slo=SLO))


def judged_trial(search: BayesianSearch, number: int, candidate: Candidate, measurement: Measurement) -> Trial:
    return judge(Trial(number, candidate, measurement, 0.0, 1.0), search.experiment)


def best_at_five(candidate: Candidate) -> Measurement:
    x, kind = candidate.parameters["x"], candidate.parameters["kind"]
    assert isinstance(x, int)
    return measured(1000.0 / (1 + (x - 5) ** 2) * (2 if kind == "b" else 1))


def proposals_of(search: BayesianSearch, measure=best_at_five, launches: int = 30) -> list[Candidate]:
    candidates: list[Candidate] = []
    while len(candidates) < launches and (launch := search.ask()) is not None:
        candidates.append(launch.candidate)
        search.tell(judged_trial(search, len(candidates), launch.candidate, measure(launch.candidate)))
    return candidates


def test_it_finds_the_best_of_a_space_within_half_of_it():
    proposals = proposals_of(bayesian_search(limit=24))
    best = max(proposals, key=lambda candidate: best_at_five(candidate).load_points[0].metrics.throughput)
    assert (best.parameters["x"], best.parameters["kind"]) == (5, "b")


def test_after_the_initial_design_it_proposes_better_candidates():
    proposals = proposals_of(bayesian_search(limit=30))
    early, late = proposals[:INITIAL_DESIGN_SIZE], proposals[INITIAL_DESIGN_SIZE:]

    def mean_distance(candidates):
        return sum(abs(candidate.parameters["x"] - 5) for candidate in candidates) / len(candidates)

    assert mean_distance(late) < mean_distance(early)


def test_a_resumed_search_goes_on_like_an_uninterrupted_one():
    uninterrupted, resumed = proposals_of(bayesian_search()), bayesian_search()
    for number, candidate in enumerate(uninterrupted[:17], start=1):
        resumed.tell(judged_trial(resumed, number, candidate, best_at_five(candidate)))
    assert proposals_of(resumed, launches=13) == uninterrupted[17:]


def test_parallel_proposals_of_the_sampler_differ():
    search = bayesian_search()
    proposals_of(search, launches=12)
    proposals = [search.ask().candidate for _ in range(6)]
    assert len(set(proposals)) == 6


def test_targets_are_constraints():
    search = bayesian_search()
    candidates = SPACE.candidates
    search.tell(judged_trial(search, 1, candidates[0], measured(100.0, tpot=0.04)))
    search.tell(judged_trial(search, 2, candidates[1], measured(900.0, tpot=0.10)))
    feasible, infeasible = (search._results[candidates[position].key] for position in (0, 1))
    assert feasible.violation <= 0 < infeasible.violation
    assert feasible.log_utilities is not None
    study = search._build_study()
    assert [trial.constraints["targets"] for trial in study.trials] == [feasible.violation, infeasible.violation]
    assert study.best_trial.values == list(feasible.log_utilities)


def test_a_failure_is_infeasible_and_never_infinite():
    search = bayesian_search()
    candidates = SPACE.candidates
    search.tell(judged_trial(search, 1, candidates[0], measured(100.0)))
    search.tell(judged_trial(search, 2, candidates[1], FAILURE))
    good, failed = search._build_study().trials
    assert failed.values == good.values
    assert failed.constraints == {"targets": FAILURE_VIOLATION}


def test_running_launches_are_part_of_the_study():
    search = bayesian_search()
    proposals_of(search, launches=11)
    search.ask()
    states = [trial.state.name for trial in search._build_study().trials]
    assert states == ["COMPLETE"] * 11 + ["RUNNING"]


def test_several_objectives_are_optimized_together():
    search = bayesian_search(further_objectives=["minimize_tpot"])
    proposals = proposals_of(search, launches=14)
    assert len(set(proposals)) == 14
    study = search._build_study()
    assert len(study.directions) == 2
    assert all(len(trial.values) == 2 for trial in study.trials)


def test_numbers_are_ordered_and_anything_else_is_categorical():
    assert ParameterAxis.from_values("x", [8, 2, 4]) == ParameterAxis("x", (2, 4, 8), is_ordered=True)
    assert not ParameterAxis.from_values("x", [True, False]).is_ordered
    assert not ParameterAxis.from_values("x", [None, 2]).is_ordered
    mixed = ParameterAxis.from_values("x", [1, True, 0, False])
    assert [mixed.decode(mixed.encode(value)) for value in (1, True, 0, False)] == [1, True, 0, False]


def test_a_baseline_outside_the_space_is_no_part_of_the_model():
    search = bayesian_search()
    search.tell(replace(judged_trial(search, 1, Candidate("sim"), measured(1.0)), purpose="baseline"))
    assert search._results == {}
    assert len(proposals_of(search)) == 30


COUPLED = Space(
    "sim",
    {"x": list(range(8)), "kind": ["a", "b"], "depth": [1, 2, 3, 4]},
    rules=rules({"depth": "kind == 'b'"}, {"low": "x * depth < 21"}),
)


def deep_is_better(candidate: Candidate) -> Measurement:
    x, depth = candidate.parameters["x"], candidate.parameters.get("depth", 0)
    assert isinstance(x, int)
    assert isinstance(depth, int)
    return measured(1000.0 * (1 + depth) / (1 + (x - 5) ** 2))


def test_it_finds_the_best_of_a_space_with_conditional_parameters():
    proposals = proposals_of(bayesian_search(space=COUPLED), deep_is_better, launches=20)
    assert set(proposals) <= set(COUPLED.candidates)
    assert Candidate("sim", {"x": 5, "kind": "b", "depth": 4}) in proposals


def test_several_objectives_are_optimized_with_conditional_parameters():
    proposals = proposals_of(
        bayesian_search(space=COUPLED, further_objectives=["minimize_tpot"]), deep_is_better, launches=14
    )
    assert len(set(proposals) & set(COUPLED.candidates)) == 14


def test_a_parameter_that_a_candidate_lacks_is_absent_from_its_optuna_trial():
    search = bayesian_search(space=COUPLED)
    proposals = proposals_of(search, deep_is_better, launches=12)
    names = [trial.params.keys() for trial in search._build_study().trials]
    assert names == [candidate.parameters.keys() for candidate in proposals]
    assert {len(keys) for keys in names} == {2, 3}


@pytest.mark.parametrize(("module", "sampler"), [("optuna", "tpe"), ("torch", "gp")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, module, sampler):
    search = bayesian_search(sampler=sampler)
    proposals_of(search, launches=INITIAL_DESIGN_SIZE)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MachineError, match=r"autotune\[bayesian"):
        search.ask()
