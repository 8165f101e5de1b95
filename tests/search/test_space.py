"""Spaces whose parameters depend on one another."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.core import Candidate
from autotuner.expression import parse
from autotuner.rules import Rules
from autotuner.search import space as module
from autotuner.search.defaults import default_candidate
from autotuner.search.space import Space
from tests.search.problems import rules

CHUNKED = {"tp-size": [1, 2], "tokens": [2048, 8192], "chunked": [True, False]}


def settings_of(found: Space) -> list[dict]:
    return [dict(candidate.parameters) for candidate in found.candidates]


def test_a_parameter_is_there_only_where_its_condition_holds_and_duplicates_are_one():
    found = Space("sim", CHUNKED, rules=rules({"tokens": "chunked"}))
    assert settings_of(found) == [
        {"tp-size": 1, "chunked": False},
        {"tp-size": 1, "tokens": 2048, "chunked": True},
        {"tp-size": 1, "tokens": 8192, "chunked": True},
        {"tp-size": 2, "chunked": False},
        {"tp-size": 2, "tokens": 2048, "chunked": True},
        {"tp-size": 2, "tokens": 8192, "chunked": True},
    ]
    assert found.combination_count == 6


def test_some_values_can_depend_on_a_condition():
    found = Space("sim", CHUNKED, rules=rules({"tokens": "tokens < 8192 or tp-size > 1"}))
    assert {(c["tp-size"], c["tokens"]) for c in settings_of(found)} == {(1, 2048), (2, 2048), (2, 8192)}


def test_what_depends_on_a_parameter_that_is_not_there_is_not_there():
    found = Space("sim", {"a": [1, 2], "b": [1, 2], "c": [True, False]}, rules=rules({"a": "b == 2", "b": "c"}))
    assert [c for c in settings_of(found) if "b" not in c] == [{"c": False}]
    assert [c for c in settings_of(found) if c.get("b") == 1] == [{"b": 1, "c": True}]
    assert found.combination_count == 4


def test_a_candidate_that_breaks_a_constraint_is_refused_with_it_before_the_engine_is_asked():
    def refuse(candidate: Candidate) -> str | None:
        return "too much" if candidate.parameters["dp-size"] == 4 else None

    tied = rules(constraints={"all-gpus": "tp-size * dp-size == gpus"}, gpus=4)
    found = Space("sim", {"tp-size": [1, 2, 4], "dp-size": [1, 2, 4]}, refuse, tied)
    assert settings_of(found) == [{"tp-size": 2, "dp-size": 2}, {"tp-size": 4, "dp-size": 1}]
    reasons = {(c.parameters["tp-size"], c.parameters["dp-size"]): why for c, why in found.refusals}
    assert reasons[1, 4] == "too much"
    assert reasons[1, 1] == reasons[4, 4] == "breaks the constraint all-gpus: tp-size * dp-size == gpus"
    assert found.combination_count == 9


def test_a_constraint_on_a_parameter_that_is_not_there_refuses_nothing():
    found = Space("sim", CHUNKED, rules=rules({"tokens": "chunked"}, {"few": "tokens < 4096"}))
    assert [c.get("tokens") for c in settings_of(found)] == [None, 2048, None, 2048]


def test_an_empty_list_of_values_leaves_no_candidate():
    assert Space("sim", {"a": [], "b": [1]}, rules=rules({"a": "b == 1"})).candidates == ()


@pytest.fixture
def only_thirty(monkeypatch) -> None:
    monkeypatch.setattr(module, "ENUMERATED_AT_MOST", 30)


WIDE = {"tp-size": [1, 2, 4], "dp-size": [1, 2, 4], "a": list(range(7)), "chunked": [True, False], "tokens": [1, 2, 3]}
TIED = {"all": "tp-size * dp-size == gpus", "few": "tokens < a when chunked"}


@pytest.mark.usefixtures("only_thirty")
def test_a_sample_of_a_large_space_keeps_every_rule():
    tied = rules({"tokens": "chunked"}, TIED, gpus=4)
    found = Space("sim", WIDE, rules=tied)
    assert len(found.candidates) > 10
    for candidate in found.candidates:
        assert tied.violation(candidate.parameters) is None
        assert ("tokens" in candidate.parameters) == candidate.parameters["chunked"]
    assert {why.partition(":")[0] for _, why in found.refusals} == {
        "breaks the constraint all",
        "breaks the constraint few",
    }
    assert found.combination_count == 9 * 7 * (1 + 3)
    assert Space("sim", WIDE, rules=tied).candidates == found.candidates


@pytest.mark.usefixtures("only_thirty")
def test_a_sample_spends_no_draw_on_what_a_constraint_rules_out():
    """One of 81 pairs is allowed; draws of whole combinations would meet it once in three spaces."""
    wide = {"a": list(range(9)), "b": list(range(2)), "c": list(range(9)), "d": list(range(9))}
    found = Space("sim", wide, rules=rules(constraints={"one": "a == 8", "two": "b == 1"}))
    assert len(found.candidates) > 15
    assert {(c["a"], c["b"]) for c in settings_of(found)} == {(8, 1)}


@pytest.mark.usefixtures("only_thirty")
def test_very_many_tied_combinations_are_sampled_too():
    tied = rules({"b": "a > 4"}, {"sum": "a + b + c < 15"})
    found = Space("sim", {name: list(range(9)) for name in "abc"}, rules=tied)
    assert found.combination_count == 9**3
    assert found.candidates
    for given_values in settings_of(found):
        assert ("b" in given_values) == (given_values["a"] > 4)
        assert "b" not in given_values or sum(given_values.values()) < 15


@pytest.mark.usefixtures("only_thirty")
def test_a_constraint_that_nothing_meets_leaves_reasons_and_no_candidate():
    found = Space("sim", WIDE, rules=rules(constraints={"never": "tp-size > 4"}))
    assert not found.candidates
    assert {why for _, why in found.refusals} == {"breaks the constraint never: tp-size > 4"}


EXPRESSIONS = ["a == b", "a < 2", "b + c > 2", "not on", "on", "c == null", "a in [1, 2] when on", "c != 1 or on"]
values = st.lists(st.integers(0, 3), min_size=1, max_size=3)
spaces = st.fixed_dictionaries({"a": values, "b": values, "c": values, "on": st.just([True, False])})
conditions = st.fixed_dictionaries({}, optional={"b": st.sampled_from(["on", "a > 1", "b < 2 or on"])}).flatmap(
    lambda found: st.fixed_dictionaries({name: st.just(text) for name, text in found.items()})
)


@settings(deadline=None)
@given(spaces, conditions, st.dictionaries(st.sampled_from("xyz"), st.sampled_from(EXPRESSIONS)))
def test_the_candidates_are_those_that_a_search_through_all_combinations_finds(parameters, only_when, constraints):
    tied = rules(only_when, constraints)
    expected = {}
    for pick in itertools.product(*parameters.values()):
        given_values = dict(zip(parameters, pick, strict=True))
        for name, text in only_when.items():
            others = {key: value for key, value in given_values.items() if key != name}
            possible = [v for v in parameters[name] if parse(text).holds({**others, name: v}.get)]
            if not possible:
                del given_values[name]
            elif given_values[name] not in possible:
                given_values = {}
        if given_values:
            expected[Candidate("sim", given_values)] = tied.violation(given_values)
    found = Space("sim", parameters, rules=tied)
    assert set(found.candidates) == {candidate for candidate, why in expected.items() if why is None}
    assert dict(found.refusals) == {candidate: why for candidate, why in expected.items() if why is not None}
    assert found.combination_count == len(expected)


def test_the_baseline_breaks_no_constraint_if_the_sizes_of_a_candidate_allow_it():
    def baseline(parameters, text):
        return default_candidate(Space("sim", parameters, rules=rules(constraints={"x": text}, gpus=4)))

    sizes = {"tp-size": [1, 2], "pp-size": [1, 2, 4], "a": [1]}
    assert baseline(sizes, "tp-size * pp-size < 3") == Candidate("sim")
    assert baseline(sizes, "tp-size == 2") == Candidate("sim", {"tp-size": 2})
    assert baseline(sizes, "tp-size * pp-size == gpus") == Candidate("sim", {"tp-size": 1, "pp-size": 4})
    assert baseline(sizes, "tp-size * pp-size == 16") is None


def test_the_baseline_has_what_a_model_needs_where_it_exists():
    parameters = {"max-model-len": [100], "on": [True]}
    assert default_candidate(Space("sim", parameters)) == Candidate("sim", {"max-model-len": 100})
    assert default_candidate(Space("sim", parameters, rules=rules({"max-model-len": "on"}))) == Candidate("sim")


def test_rules_without_any_text_change_nothing():
    assert Space("sim", CHUNKED, rules=Rules()).candidates == Space("sim", CHUNKED).candidates
