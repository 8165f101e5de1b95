"""The traps that tuners of this kind fall into, as far as configuration can avoid them."""

import pytest

from autotuner.config import TaskContext, catalog, compose, layers
from autotuner.errors import ConfigError

NEUTRAL = {"tp-size", "mem-fraction-static"}


def docker(runtime, **more):
    return compose(TaskContext(model_name="some-model", base_runtime=runtime, deployment_mode="docker", **more))


def test_trap_1_a_gpu_limit_that_leaves_no_tp_size_is_an_error_with_a_remedy():
    with pytest.raises(ConfigError) as caught:
        docker("sglang", profiles=["high-throughput"], total_gpus=2)
    assert "No tp-size is left within 2 GPUs" in caught.value.what
    assert "[4, 8]" in caught.value.why
    assert "profile:high-throughput:high-throughput-params" in caught.value.why
    assert "--total-gpus 4" in caught.value.remedy
    assert "parameters.tp-size=[2]" in caught.value.remedy


def test_trap_1_a_gpu_limit_keeps_what_fits_and_says_what_it_left_out():
    found = docker("sglang", profiles=["balanced"], total_gpus=2)
    assert found.data["parameters"]["tp-size"] == [1, 2]
    assert found.provenance["parameters.tp-size"] == "gpu-limit"
    assert found.layers[-1] == "gpu-limit"
    assert any("tp-size 4 left out" in warning for warning in found.warnings)


def test_trap_1_a_gpu_limit_that_everything_fits_changes_no_value():
    found = docker("sglang", profiles=["balanced"], total_gpus=4)
    assert found.data["parameters"]["tp-size"] == [1, 2, 4]
    assert found.provenance["parameters.tp-size"] == "profile:balanced:balanced-params"


@pytest.mark.parametrize("folder", ["base", "deployment", "gpu"])
def test_trap_2_no_layer_below_the_runtime_knows_an_engine(folder):
    for paths in catalog.files(folder).values():
        for layer in layers.load(paths[0]).layers:
            for part in layer.parts():
                assert "runtime" not in part, f"{layer.name} sets an image or engine arguments"
                assert set(part.get("parameters", {})) <= NEUTRAL, f"{layer.name} sets an engine's parameter"


@pytest.mark.parametrize(
    ("runtime", "image", "own"),
    [
        ("sglang", "lmsysorg/sglang:v0.5.23", {"schedule-policy", "enable-torch-compile"}),
        ("vllm", "vllm/vllm-openai:v0.32.0", {"enable-chunked-prefill"}),
        ("trtllm", "nvcr.io/nvidia/tensorrt-llm/release:1.2.0", {"max-batch-size"}),
    ],
)
def test_trap_2_each_engine_in_docker_gets_its_own_image_and_parameters(runtime, image, own):
    found = docker(runtime)
    assert found.data["runtime"]["image"] == image
    assert found.provenance["runtime.image"] == f"{runtime}-defaults"
    assert set(found.data["parameters"]) == NEUTRAL | own


def test_trap_2_an_engine_named_only_in_an_override_gets_its_own_layers():
    found = compose(
        TaskContext(deployment_mode="docker", user_overrides={"base_runtime": "vllm", "model": {"id_or_path": "m"}})
    )
    assert "vllm-defaults" in found.layers
    assert found.data["runtime"]["image"] == "vllm/vllm-openai:v0.32.0"
    assert found.data["task_name"] == "m_racing"


def test_trap_4_replace_mode_names_everything_that_is_missing():
    with pytest.raises(ConfigError) as caught:
        docker("vllm", override_mode="replace", user_overrides={"parameters": {"tp-size": [1]}})
    assert "missing: task_name, model, base_runtime, benchmark" in caught.value.what
    assert "--override-mode patch" in caught.value.remedy


def test_trap_4_replace_mode_names_what_is_missing_inside_a_section():
    override = {
        "task_name": "t",
        "model": {},
        "base_runtime": "sim",
        "parameters": {},
        "benchmark": {"num_concurrency": [1]},
    }
    with pytest.raises(ConfigError, match=r"missing: model.id_or_path, benchmark.traffic_scenarios"):
        compose(TaskContext(override_mode="replace", user_overrides=override))


def test_trap_4_replace_mode_in_docker_names_the_missing_image():
    with pytest.raises(ConfigError, match=r"missing runtime.image"):
        compose(TaskContext(override_mode="replace", user_overrides={**WHOLE, "deployment": {"mode": "docker"}}))


WHOLE = {
    "task_name": "mine",
    "model": {"id_or_path": "m"},
    "base_runtime": "vllm",
    "parameters": {"tp-size": [1]},
    "benchmark": {"traffic_scenarios": ["D(10,10)"], "num_concurrency": [1]},
}


def test_trap_4_a_whole_override_replaces_every_layer():
    found = docker("vllm", profiles=["production"], override_mode="replace", user_overrides=WHOLE)
    assert found.data == WHOLE
    assert found.layers[-1] == "user_replace"
    assert set(found.provenance.values()) == {"user_replace"}


def test_trap_7_an_unknown_profile_is_an_error_with_the_nearest_name():
    with pytest.raises(ConfigError, match="Unknown profile 'low-latncy'; did you mean 'low-latency'"):
        docker("sglang", profiles=["low-latncy"])


def test_trap_7_an_unknown_profile_is_skipped_with_a_warning_only_when_asked_for():
    found = docker("sglang", profiles=["low-latncy", "balanced"], allow_unknown_profiles=True)
    assert any("low-latncy" in warning and "skipped" in warning for warning in found.warnings)
    assert found.data["benchmark"]["num_concurrency"] == [4, 8, 16]


def test_trap_7_a_profile_that_is_there_but_broken_is_never_skipped(write):
    write("profiles/mine.yaml", "name: mine\nlayers: []\n")
    with pytest.raises(ConfigError, match="at least one layer"):
        docker("sglang", profiles=["mine"], allow_unknown_profiles=True)
