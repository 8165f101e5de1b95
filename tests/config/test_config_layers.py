import dataclasses
import logging

import pytest

from autotuner.config import ConfigLayer, TaskContext, layers
from autotuner.errors import ConfigError


def load(write, body):
    return layers.load_profile(write("mine.yaml", body))


def test_a_layer_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ConfigLayer("a", {}).name = "b"  # type: ignore[misc]


def test_a_layer_can_be_a_function_of_the_context():
    layer = ConfigLayer(
        "a", lambda context: {"task_name": f"{context.model_name}!"}, lambda context: context.total_gpus == 2
    )
    assert layer.resolve(TaskContext(model_name="m")) == {"task_name": "m!"}
    assert layer.applies(TaskContext(total_gpus=2))
    assert not layer.applies(TaskContext())


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        (
            lambda context: context.modle_name == "m",
            "AttributeError: 'TaskContext' object has no attribute 'modle_name'",
        ),
        (lambda context: context.total_gpus >= 2, "TypeError: '>=' not supported between instances of 'NoneType' and"),
        (lambda context: 8 / len(context.profiles) > 1, "ZeroDivisionError: division by zero"),
    ],
    ids=["unknown name", "wrong type", "division by zero"],
)
def test_a_condition_that_cannot_be_evaluated_does_not_hold_and_the_debug_log_says_why(caplog, condition, why):
    caplog.set_level(logging.DEBUG)
    assert not ConfigLayer("mine", {}, condition).applies(TaskContext())
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.message.startswith(f"layer mine: its condition <lambda> ({__file__}:")
    assert f"is taken as false: {why}" in record.message


def test_a_condition_that_is_false_is_no_news(caplog):
    caplog.set_level(logging.DEBUG)
    assert not ConfigLayer("mine", {}, lambda context: context.total_gpus == 2).applies(TaskContext())
    assert caplog.records == []


@pytest.mark.parametrize("when", ['runtime: ">=2"', "total_gpus: vllm", 'gpu: ">=0"', 'model: "[z-a]"'])
def test_a_pattern_on_a_value_of_another_kind_matches_nothing(write, caplog, when):
    caplog.set_level(logging.DEBUG)
    layer = load(write, f"layers: [{{name: l, when: {{{when}}}, data: {{}}}}]").layers[0]
    assert not layer.applies(TaskContext(model_name="m", base_runtime="vllm", gpu_type="H100", total_gpus=4))
    assert caplog.records == []


def test_a_function_that_gives_no_mapping_is_an_error():
    with pytest.raises(ConfigError, match="Layer 'a' gave a list"):
        ConfigLayer("a", lambda context: []).resolve(TaskContext())  # type: ignore[arg-type, return-value]


def test_placeholders_keep_the_type_of_what_they_stand_for(write):
    profile = load(
        write, 'layers: [{name: l, data: {a: "{concurrency}", b: "{model} on {total_gpus}", c: [ "{model}" ]}}]'
    )
    context = TaskContext(model_name="m", num_concurrency=[1, 2], total_gpus=8)
    assert profile.layers[0].resolve(context) == {"a": [1, 2], "b": "m on 8", "c": ["m"]}


def test_a_placeholder_without_a_value_removes_its_key(write):
    profile = load(write, 'layers: [{name: l, data: {a: "{gpu}", b: null}}]')
    assert profile.layers[0].resolve(TaskContext()) == {"b": None}


def test_an_unknown_placeholder_is_an_error_with_the_nearest(write):
    profile = load(write, 'layers: [{name: l, data: {a: "{modle}"}}]')
    with pytest.raises(ConfigError, match="Unknown placeholder 'modle'; did you mean 'model'"):
        profile.layers[0].resolve(TaskContext())


def test_json_in_a_text_is_no_placeholder(write):
    profile = load(write, """layers: [{name: l, data: {a: '{"mode": 3}'}}]""")
    assert profile.layers[0].resolve(TaskContext()) == {"a": '{"mode": 3}'}


def test_only_the_first_case_that_matches_counts(write):
    body = """
layers:
  - name: l
    data: {parameters: {x: [0], y: [0]}}
    cases:
      - when: {gpu: a100}
        data: {parameters: {x: [1]}}
      - when: {gpu: "a*"}
        data: {parameters: {x: [2], y: [2]}}
"""
    layer = load(write, body).layers[0]
    assert layer.resolve(TaskContext(gpu_type="A100"))["parameters"] == {"x": [1], "y": [0]}
    assert layer.resolve(TaskContext(gpu_type="A30"))["parameters"] == {"x": [2], "y": [2]}
    assert layer.resolve(TaskContext())["parameters"] == {"x": [0], "y": [0]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("name: x\nlayrs: []\n", r"mine\.yaml:2:1: Unknown key 'layrs'; did you mean 'layers'"),
        (
            "layers:\n  - name: l\n    wehn: {}\n    data: {}\n",
            r"mine\.yaml:3:5: Unknown key 'wehn'; did you mean 'when'",
        ),
        ("layers:\n  - data: {}\n", r"mine\.yaml:2:5: a layer needs a 'name'"),
        ("layers:\n  - name: l\n", "neither 'data' nor 'cases'"),
        ("layers:\n  - name: l\n    data: 3\n", r"mine\.yaml:3:5: 'data' must be a mapping"),
        ("layers:\n  - l\n", "a layer must be a mapping"),
        ("layers: {}\n", "list of at least one layer"),
        ("name: x\n", "list of at least one layer"),
        ("name: 3\nlayers: []\n", "'name' must be text"),
        ("description: [a]\nlayers: []\n", "'description' must be text"),
        ("tags: a\nlayers: []\n", "'tags' must be a list of words"),
        ("layers:\n  - {name: l, data: {}, assume: {modle: x}}\n", "Unknown key 'modle'; did you mean 'model'"),
        ("layers:\n  - {name: l, data: {}, assume: []}\n", "'assume' must be a mapping"),
        ("layers:\n  - {name: l, cases: {}}\n", "'cases' must be a list"),
        ("layers:\n  - {name: l, cases: [{data: {}}]}\n", "a case must be a mapping with 'when' and 'data'"),
        ("layers:\n  - {name: l, cases: [{when: {gpu: x}, dta: {}, data: {}}]}\n", "Unknown key 'dta'"),
        ("layers:\n  - {name: l, when: vllm, data: {}}\n", r"mine\.yaml:2:15: 'when' must be a mapping"),
    ],
)
def test_a_file_that_is_no_layer_file_is_an_error_at_its_place(write, body, message):
    with pytest.raises(ConfigError, match=message):
        load(write, body)
