import pytest

from autotuner.config import TaskContext, check_file
from autotuner.engines.parameters import check_values
from autotuner.errors import ConfigError


def test_a_layer_that_does_not_apply_here_is_checked_too(write):
    path = write("p.yaml", "layers:\n  - name: l\n    when: {runtime: trtllm}\n    data: {benchmark: {duratin: 1}}\n")
    with pytest.raises(ConfigError, match="did you mean 'duration'"):
        check_file(path)


def test_a_case_that_does_not_apply_here_is_checked_too(write):
    path = write("p.yaml", "layers:\n  - name: l\n    cases:\n      - {when: {gpu: x}, data: {hardwre: {}}}\n")
    with pytest.raises(ConfigError, match="did you mean 'hardware'") as caught:
        check_file(path)
    assert "p.yaml:4:33" in caught.value.why


def test_a_profile_for_one_engine_is_composed_for_it(write):
    body = "layers:\n  - name: l\n    data: {base_runtime: vllm, model: {id_or_path: m}}\n"
    composition = check_file(write("p.yaml", body))
    assert composition.experiment.model.id_or_path == "m"
    assert "vllm-defaults" in composition.layers


def test_a_profile_for_an_engine_without_a_model_can_be_checked(write):
    composition = check_file(
        write("p.yaml", "layers:\n  - name: l\n    data: {base_runtime: sglang, optimization: {seed: 3}}\n")
    )
    assert "sglang-defaults" in composition.layers


def test_a_wrong_value_is_an_error(write):
    with pytest.raises(ConfigError, match=r"optimization\.seed"):
        check_file(write("p.yaml", "layers:\n  - name: l\n    data: {optimization: {seed: soon}}\n"))


@pytest.mark.parametrize("values", ['["1"]', "[0, 9]", "{from: 0, to: 4, step: 1}"])
def test_the_values_of_a_layer_that_does_not_apply_here_are_checked_too(values, write):
    layer = f"layers:\n  - name: l\n    when: {{runtime: trtllm}}\n    data: {{parameters: {{tp-size: {values}}}}}\n"
    with pytest.raises(ConfigError, match=r"'tp-size'.*It comes from p\.yaml:4:25"):
        check_file(write("p.yaml", layer), check_values=check_values)


def test_a_value_that_a_placeholder_gives_is_checked_by_the_composition_alone(write):
    path = write("p.yaml", "layers:\n  - name: l\n    data: {parameters: {tp-size: ['{total_gpus}', 1]}}\n")
    check_file(path, TaskContext(model_name="llama-3.1-8b", total_gpus=2), check_values)
