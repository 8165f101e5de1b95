import pytest

from autotuner.config import check_file
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
