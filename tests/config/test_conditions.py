import pytest

from autotuner.config import TaskContext, conditions
from autotuner.errors import ConfigError

CONTEXT = TaskContext(
    model_name="meta-llama/Llama-3.1-70B",
    base_runtime="vllm",
    gpu_type="NVIDIA H100 80GB HBM3",
    total_gpus=4,
    traffic_scenarios=["D(100,100)", "U(10,20)"],
    profiles=["balanced", "production"],
)


@pytest.mark.parametrize(
    "when",
    [
        {"runtime": "vllm"},
        {"runtime": "VLLM"},
        {"runtime": ["sglang", "vllm"]},
        {"model": "*70b*"},
        {"gpu": "*h100*", "runtime": "v*"},
        {"gpu": "*"},
        {"total_gpus": 4},
        {"total_gpus": ">=4"},
        {"total_gpus": "< 8"},
        {"total_gpus": [1, 4]},
        {"scenarios": "U(*"},
        {"profile": "production"},
    ],
)
def test_a_condition_that_holds(when):
    assert conditions.parse_condition(when, "here")(CONTEXT)


@pytest.mark.parametrize(
    "when",
    [
        {"runtime": "sglang"},
        {"runtime": "vllm", "gpu": "a100"},
        {"model": "70b"},
        {"total_gpus": ">4"},
        {"total_gpus": "<=3"},
        {"deployment": "*"},
        {"task": "text-to-text"},
        {"profile": "quick-test"},
    ],
)
def test_a_condition_that_does_not_hold(when):
    assert not conditions.parse_condition(when, "here")(CONTEXT)


def test_an_unknown_key_is_an_error_with_the_nearest():
    with pytest.raises(ConfigError, match=r"f\.yaml:3:1: Unknown key in when 'runtme'; did you mean 'runtime'\?"):
        conditions.parse_condition({"runtme": "vllm"}, "f.yaml:3:1")


@pytest.mark.parametrize("when", [None, "vllm", [], {}, {"runtime": {}}, {"runtime": []}, {"runtime": None}])
def test_a_condition_of_another_form_is_an_error(when):
    with pytest.raises(ConfigError, match="must be"):
        conditions.parse_condition(when, "here")
