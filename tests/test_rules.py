"""Conditions and constraints, and what is wrong with one before anything starts."""

from __future__ import annotations

import pytest

from autotuner.errors import ConfigError
from autotuner.expression import parse
from autotuner.rules import Rules
from tests.factories import experiment


def rules(only_when=None, constraints=None, **sections) -> Rules:
    return Rules.from_experiment(experiment(only_when=only_when or {}, constraints=constraints or {}, **sections))


def test_a_parameter_without_a_condition_has_all_its_values():
    assert rules().allowed_values("x", [1, 2], {}) == (1, 2)


def test_a_condition_can_be_about_other_parameters_the_runtime_and_the_value_itself():
    parsed_rules = rules({"x": "on", "y": 'runtime == "vllm"', "z": "z < 4 or on"})
    assert parsed_rules.allowed_values("x", [1, 2], {"on": True}) == (1, 2)
    assert parsed_rules.allowed_values("x", [1, 2], {"on": False}) == parsed_rules.allowed_values("x", [1, 2], {}) == ()
    assert parsed_rules.allowed_values("y", [1], {}) == ()
    assert parsed_rules.allowed_values("z", [2, 4], {"on": False}) == (2,)


def test_a_constraint_is_broken_only_where_it_is_certainly_false():
    parsed_rules = rules(constraints={"fits": "x >= y", "small": "x < 10"})
    assert parsed_rules.violation({"x": 2, "y": 1}) is None
    assert parsed_rules.violation({"x": 1, "y": 2}) == "breaks the constraint fits: x >= y"
    assert parsed_rules.violation({"x": 11}) == "breaks the constraint small: x < 10"
    assert parsed_rules.violation({"y": 2}) is None


@pytest.mark.parametrize(
    ("hardware", "gpus"),
    [({"total_gpus": 4}, 4), ({"gpus": [1, 3]}, 2), ({"gpus": [0, 1, 2], "total_gpus": 2}, 2), ({}, None)],
)
def test_gpus_are_those_that_may_be_used(hardware, gpus):
    assert rules(hardware=hardware).context["gpus"] == gpus


def test_a_parallel_size_that_is_not_set_is_one():
    parsed_rules = rules(constraints={"all": "tp-size * pp-size * dp-size == gpus"}, hardware={"total_gpus": 2})
    assert parsed_rules.violation({"tp-size": 2}) is None
    assert parsed_rules.violation({"tp-size": None, "pp-size": 2}) is None
    assert parsed_rules.violation({"tp-size": 1}) is not None


def test_what_rules_tie_together_is_a_group_in_which_each_comes_after_what_it_depends_on():
    parsed_rules = rules({"b": "e", "e": "e > 1 or c"}, {"one": "a * d == gpus", "two": "f > 1"})
    assert parsed_rules.coupled_groups(["a", "b", "c", "d", "e", "f", "g"]) == [
        ("a", "d"),
        ("c", "e", "b"),
        ("f",),
        ("g",),
    ]


def test_the_rules_of_a_group_speak_of_no_parameter_outside_it():
    parsed_rules = rules(constraints={"inside": "a * b == 4", "across": "a == c", "nobody": "gpus > 1"})
    assert set(parsed_rules.restricted_to(["a", "b"], ["a", "b", "c"]).constraints) == {"inside", "nobody"}


KNOWN = ("tp-size", "max-batched-tokens", "enable-chunked-prefill")


def check(**options) -> ConfigError:
    parsed_rules = rules(**options)
    with pytest.raises(ConfigError) as caught:
        parsed_rules.check({"tp-size": (1,), "own": (2,)}, KNOWN.__contains__, KNOWN)
    return caught.value


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"constraints": {"a": "tp-sze == 1"}}, "Unknown name in constraints.a 'tp-sze'; did you mean 'tp-size'?"),
        ({"constraints": {"a": "gpu == 1"}}, "Unknown name in constraints.a 'gpu'; did you mean 'gpus'?"),
        ({"constraints": {"a": "tp-size-1 == 1"}}, "Unknown name in constraints.a 'tp-size-1'; did you mean 'tp-size'"),
        ({"constraints": {"a": "ovn > 1"}}, "Unknown name in constraints.a 'ovn'; did you mean 'own'?"),
        (
            {"only_when": {"own": "enable-chunked-prefil"}},
            "Unknown name in only_when.own 'enable-chunked-prefil'; did you mean 'enable-chunked-prefill'?",
        ),
        ({"only_when": {"tp-sise": "own > 1"}}, "Unknown parameter in only_when 'tp-sise'; did you mean 'tp-size'?"),
        ({"constraints": {"a": "tp-size == gpus"}}, "constraints.a uses gpus, and the number of GPUs is not known"),
    ],
)
def test_a_name_that_means_nothing_is_an_error_with_the_nearest(options, expected):
    error = check(**options)
    assert error.what.startswith(expected)
    assert error.remedy


def test_known_names_pass():
    parsed_rules = rules(
        {"own": "runtime in ['sim'] and enable-chunked-prefill"},
        {"a": "max-batched-tokens > own", "b": "tp-size == gpus"},
        hardware={"total_gpus": 1},
    )
    parsed_rules.check({"tp-size": (1,), "own": (2,)}, KNOWN.__contains__, KNOWN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("own", "own as true or false, and it can be 2"), ("not runtime", "runtime as true or false, and it can be sim")],
)
def test_what_is_neither_true_nor_false_must_be_compared(text, expected):
    with pytest.raises(ConfigError, match=expected) as caught:
        rules(constraints={"a": text}).check_switches({"own": (True, 2)})
    assert "!= null" in caught.value.remedy


def test_a_switch_may_be_left_to_the_engine():
    rules(constraints={"a": "own"}).check_switches({"own": (True, None)})


def test_rules_that_were_read_are_those_of_the_experiment():
    assert rules({"x": "y"}).conditions == {"x": parse("y")}
