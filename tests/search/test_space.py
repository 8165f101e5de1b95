"""Search spaces with conditional parameters and constraints."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.core import Candidate, Value
from autotuner.expression import parse
from autotuner.rules import Rules
from autotuner.search import space as space_module
from autotuner.search.defaults import default_candidate
from autotuner.search.space import Space
from tests.factories import rules

CHUNKED: dict[str, Sequence[Value]] = {"tp-size": [1, 2], "tokens": [2048, 8192], "chunked": [True, False]}


def parameter_sets(space: Space) -> list[dict[str, Any]]:
    return [dict(candidate.parameters) for candidate in space.candidates]


def test_a_parameter_exists_only_where_its_condition_holds_and_duplicates_are_merged():
    space = Space("sim", CHUNKED, rules=rules({"tokens": "chunked"}))
    assert parameter_sets(space) == [
        {"tp-size": 1, "chunked": False},
        {"tp-size": 1, "tokens": 2048, "chunked": True},
        {"tp-size": 1, "tokens": 8192, "chunked": True},
        {"tp-size": 2, "chunked": False},
        {"tp-size": 2, "tokens": 2048, "chunked": True},
        {"tp-size": 2, "tokens": 8192, "chunked": True},
    ]
    assert space.combination_count == 6


def test_some_values_can_depend_on_a_condition():
    space = Space("sim", CHUNKED, rules=rules({"tokens": "tokens < 8192 or tp-size > 1"}))
    assert {(c["tp-size"], c["tokens"]) for c in parameter_sets(space)} == {(1, 2048), (2, 2048), (2, 8192)}


def test_a_parameter_that_depends_on_an_absent_one_is_absent():
    space = Space("sim", {"a": [1, 2], "b": [1, 2], "c": [True, False]}, rules=rules({"a": "b == 2", "b": "c"}))
    assert [c for c in parameter_sets(space) if "b" not in c] == [{"c": False}]
    assert [c for c in parameter_sets(space) if c.get("b") == 1] == [{"b": 1, "c": True}]
    assert space.combination_count == 4


def test_a_broken_constraint_is_the_refusal_reason_before_the_engines_own():
    def engine_refusal(candidate: Candidate) -> str | None:
        return "too much" if candidate.parameters["dp-size"] == 4 else None

    constraint = rules(constraints={"all-gpus": "tp-size * dp-size == gpus"}, gpus=4)
    space = Space("sim", {"tp-size": [1, 2, 4], "dp-size": [1, 2, 4]}, engine_refusal, constraint)
    assert parameter_sets(space) == [{"tp-size": 2, "dp-size": 2}, {"tp-size": 4, "dp-size": 1}]
    reasons = {(c.parameters["tp-size"], c.parameters["dp-size"]): reason for c, reason in space.refusals}
    assert reasons[1, 4] == "too much"
    assert reasons[1, 1] == reasons[4, 4] == "breaks the constraint all-gpus: tp-size * dp-size == gpus"
    assert space.combination_count == 9


def test_a_constraint_on_an_absent_parameter_refuses_nothing():
    space = Space("sim", CHUNKED, rules=rules({"tokens": "chunked"}, {"few": "tokens < 4096"}))
    assert [c.get("tokens") for c in parameter_sets(space)] == [None, 2048, None, 2048]


def test_an_empty_list_of_values_leaves_no_candidate():
    assert Space("sim", {"a": [], "b": [1]}, rules=rules({"a": "b == 1"})).candidates == ()


@pytest.fixture
def enumerate_at_most_thirty(monkeypatch) -> None:
    monkeypatch.setattr(space_module, "MAX_ENUMERATED", 30)


WIDE: dict[str, Sequence[Value]] = {
    "tp-size": [1, 2, 4],
    "dp-size": [1, 2, 4],
    "a": list(range(7)),
    "chunked": [True, False],
    "tokens": [1, 2, 3],
}
CONSTRAINTS = {"all": "tp-size * dp-size == gpus", "few": "tokens < a when chunked"}


@pytest.mark.usefixtures("enumerate_at_most_thirty")
def test_a_sample_of_a_large_space_obeys_every_rule():
    all_rules = rules({"tokens": "chunked"}, CONSTRAINTS, gpus=4)
    space = Space("sim", WIDE, rules=all_rules)
    assert len(space.candidates) > 10
    for candidate in space.candidates:
        assert all_rules.violation(candidate.parameters) is None
        assert ("tokens" in candidate.parameters) == candidate.parameters["chunked"]
    assert {reason.partition(":")[0] for _, reason in space.refusals} == {
        "breaks the constraint all",
        "breaks the constraint few",
    }
    assert space.combination_count == 9 * 7 * (1 + 3)
    assert Space("sim", WIDE, rules=all_rules).candidates == space.candidates


@pytest.mark.usefixtures("enumerate_at_most_thirty")
def test_no_draw_of_a_sample_is_spent_on_combinations_that_break_a_constraint():
    """1 of 18 pairs is allowed: 30 draws of whole combinations would contain it once or twice."""
    wide = {"a": list(range(9)), "b": list(range(2)), "c": list(range(9)), "d": list(range(9))}
    space = Space("sim", wide, rules=rules(constraints={"one": "a == 8", "two": "b == 1"}))
    assert len(space.candidates) > 15
    assert {(c["a"], c["b"]) for c in parameter_sets(space)} == {(8, 1)}


@pytest.mark.usefixtures("enumerate_at_most_thirty")
def test_a_large_group_of_coupled_parameters_is_sampled_too():
    all_rules = rules({"b": "a > 4"}, {"sum": "a + b + c < 15"})
    space = Space("sim", {name: list(range(9)) for name in "abc"}, rules=all_rules)
    assert space.combination_count == 9**3
    assert space.candidates
    for assignment in parameter_sets(space):
        assert ("b" in assignment) == (assignment["a"] > 4)
        assert "b" not in assignment or sum(assignment.values()) < 15


@pytest.mark.usefixtures("enumerate_at_most_thirty")
def test_a_constraint_that_nothing_meets_leaves_refusals_and_no_candidate():
    space = Space("sim", WIDE, rules=rules(constraints={"never": "tp-size > 4"}))
    assert not space.candidates
    assert {reason for _, reason in space.refusals} == {"breaks the constraint never: tp-size > 4"}


EXPRESSIONS = ["a == b", "a < 2", "b + c > 2", "not on", "on", "c == null", "a in [1, 2] when on", "c != 1 or on"]
values = st.lists(st.integers(0, 3), min_size=1, max_size=3)
spaces = st.fixed_dictionaries({"a": values, "b": values, "c": values, "on": st.just([True, False])})
conditions = st.fixed_dictionaries({}, optional={"b": st.sampled_from(["on", "a > 1", "b < 2 or on"])}).flatmap(
    lambda conditions: st.fixed_dictionaries({name: st.just(text) for name, text in conditions.items()})
)


@settings(deadline=None)
@given(spaces, conditions, st.dictionaries(st.sampled_from("xyz"), st.sampled_from(EXPRESSIONS)))
def test_the_candidates_equal_those_of_a_brute_force_enumeration(parameters, only_when, constraints):
    all_rules = rules(only_when, constraints)
    expected = {}
    for combination in itertools.product(*parameters.values()):
        assignment = dict(zip(parameters, combination, strict=True))
        for name, text in only_when.items():
            others = {key: value for key, value in assignment.items() if key != name}
            allowed = [v for v in parameters[name] if parse(text).holds({**others, name: v}.get)]
            if not allowed:
                del assignment[name]
            elif assignment[name] not in allowed:
                assignment = {}
        if assignment:
            expected[Candidate("sim", assignment)] = all_rules.violation(assignment)
    space = Space("sim", parameters, rules=all_rules)
    assert set(space.candidates) == {candidate for candidate, reason in expected.items() if reason is None}
    assert dict(space.refusals) == {candidate: reason for candidate, reason in expected.items() if reason is not None}
    assert space.combination_count == len(expected)


def test_the_baseline_takes_parallel_sizes_that_break_no_constraint():
    def baseline(parameters, text):
        return default_candidate(Space("sim", parameters, rules=rules(constraints={"x": text}, gpus=4)))

    sizes = {"tp-size": [1, 2], "pp-size": [1, 2, 4], "a": [1]}
    assert baseline(sizes, "tp-size * pp-size < 3") == Candidate("sim")
    assert baseline(sizes, "tp-size == 2") == Candidate("sim", {"tp-size": 2})
    assert baseline(sizes, "tp-size * pp-size == gpus") == Candidate("sim", {"tp-size": 1, "pp-size": 4})
    assert baseline(sizes, "tp-size * pp-size == 16") is None


def test_the_baseline_keeps_startup_parameters_that_exist():
    parameters: dict[str, Sequence[Value]] = {"max-model-len": [100], "on": [True]}
    assert default_candidate(Space("sim", parameters)) == Candidate("sim", {"max-model-len": 100})
    assert default_candidate(Space("sim", parameters, rules=rules({"max-model-len": "on"}))) == Candidate("sim")


def test_empty_rules_change_nothing():
    assert Space("sim", CHUNKED, rules=Rules()).candidates == Space("sim", CHUNKED).candidates
