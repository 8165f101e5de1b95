import pytest

from autotuner.config import TaskContext, compose
from autotuner.errors import ConfigError


def composed(parameters, only_when, **more):
    rules = {"parameters": parameters, "only_when": only_when}
    return compose(TaskContext(user_overrides=rules | more.pop("overrides", {}), **more))


def test_a_parameter_of_another_runtime_is_left_out_with_a_warning():
    composition = composed({"schedule-policy": ["lpm"]}, {"schedule-policy": 'runtime == "sglang"'})
    assert "schedule-policy" not in composition.experiment.parameters
    assert not any("parameters.schedule-policy" in path for path in composition.provenance)
    assert composition.warnings == ['schedule-policy dropped: its condition never holds here: runtime == "sglang"']


def test_it_is_kept_on_its_own_runtime():
    composition = composed(
        {"schedule-policy": ["lpm"]},
        {"schedule-policy": 'runtime == "sglang"'},
        model_name="m",
        base_runtime="sglang",
    )
    assert composition.experiment.parameters["schedule-policy"] == ("lpm",)
    assert not composition.warnings


def test_values_that_can_never_be_are_left_out_and_the_origin_says_so():
    composition = composed(
        {"max-running-requests": {"from": 8, "to": 64, "factor": 2}},
        {"max-running-requests": "max-running-requests <= 16 or deployment == 'docker'"},
    )
    assert composition.data["parameters"]["max-running-requests"] == [8, 16]
    assert composition.provenance["parameters.max-running-requests"] == "only-when"
    assert composition.layers[-1] == "only-when"
    assert composition.warnings[0].startswith("max-running-requests 32, 64 dropped: ")


def test_what_depends_on_a_parameter_that_is_left_out_is_left_out_too():
    composition = composed(
        {"a": [1], "b": [1], "c": [1, 2], "d": [1]}, {"a": "b > 0", "b": "runtime == 'vllm'", "d": "c == 2 or a > 0"}
    )
    assert {"a", "b"}.isdisjoint(composition.experiment.parameters)
    assert {"c", "d"} <= composition.experiment.parameters.keys()


def test_the_number_of_gpus_that_is_not_known_leaves_nothing_out():
    assert "a" in composed({"a": [1]}, {"a": "gpus > 1"}).experiment.parameters
    assert "a" not in composed({"a": [1]}, {"a": "gpus > 1"}, total_gpus=1).experiment.parameters


def test_a_condition_with_very_many_cases_leaves_nothing_out():
    wide = {name: list(range(30)) for name in ("a", "b", "c")}
    assert "x" in composed(wide | {"x": [1]}, {"x": "a + b + c > 1000"}).experiment.parameters


def test_a_condition_that_is_neither_true_nor_false_is_an_error_and_nothing_is_left_out():
    with pytest.raises(ConfigError, match="uses tp-size as true or false, and it can be 1"):
        composed({"a": [1]}, {"a": "tp-size"})


def test_an_endpoint_that_runs_already_has_no_rules():
    composition = composed(
        {"tp-size": [2]},
        {"tp-size": "gpus > 1"},
        model_name="m",
        deployment_mode="external",
        overrides={"deployment": {"url": "http://x"}, "constraints": {"two": "tp-size == 2"}},
    )
    assert (
        composition.experiment.parameters
        == composition.experiment.constraints
        == composition.experiment.only_when
        == {}
    )
