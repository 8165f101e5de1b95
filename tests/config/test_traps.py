"""The traps that tuners of this kind fall into, as far as configuration can avoid them."""

import pytest

from autotuner.config import TaskContext, catalog, compose, layers
from autotuner.core import Candidate
from autotuner.engines import LaunchContext, engine
from autotuner.errors import ConfigError

NEUTRAL = {"tp-size", "mem-fraction-static"}


def docker(runtime, **more):
    return compose(TaskContext(model_name="some-model", base_runtime=runtime, deployment_mode="docker", **more))


@pytest.mark.parametrize(
    ("gpus", "tried", "warning"),
    [
        (1, 1, "tp-size [4, 8] is above the 1 GPU allowed: [1] is tried instead"),
        (2, 2, "tp-size [4, 8] is above the 2 GPUs allowed: [2] is tried instead"),
        (3, 2, "tp-size [4, 8] is above the 3 GPUs allowed: [2] is tried instead"),
    ],
)
def test_trap_1_a_gpu_limit_below_every_tp_size_tries_the_largest_power_of_two_within_it(gpus, tried, warning):
    composed = docker("sglang", profiles=["high-throughput"], total_gpus=gpus)
    assert composed.data["parameters"]["tp-size"] == [tried]
    assert composed.provenance["parameters.tp-size"] == "gpu-limit"
    assert composed.warnings == [warning]
    (before, *_) = composed.overridden_values["parameters.tp-size"]
    assert (before.value, before.layer) == ([4, 8], "profile:high-throughput:high-throughput-params")


@pytest.mark.parametrize(
    ("sizes", "limit", "kept"),
    [([8], 5, [4]), ([8], 7, [4]), ([16], 8, [8]), ([3, 6], 2, [2]), ([4, 8], 4, [4]), ([1, 3, 4], 3, [1, 3])],
)
def test_trap_1_the_limit_holds_for_any_sizes(sizes, limit, kept):
    composed = docker("vllm", total_gpus=limit, user_overrides={"parameters": {"tp-size": sizes}})
    assert composed.data["parameters"]["tp-size"] == kept
    assert len(composed.warnings) == 1


@pytest.mark.parametrize(("total", "tried"), [(None, [1, 2]), (8, [1, 2]), (1, [1])])
def test_trap_1_gpus_chosen_by_index_limit_as_their_number_does(total, tried):
    composed = docker("vllm", total_gpus=total, user_overrides={"hardware": {"gpus": [4, 5]}})
    assert composed.data["parameters"]["tp-size"] == tried


def test_trap_1_other_parallel_sizes_are_left_to_the_check_of_the_whole():
    composed = docker("vllm", total_gpus=2, user_overrides={"parameters": {"tp-size": [4], "pp-size": [2, 4]}})
    assert composed.data["parameters"]["tp-size"] == [2]
    assert composed.data["parameters"]["pp-size"] == [2, 4]
    refused = [
        engine("vllm").rejection_reason(
            Candidate("vllm", {"tp-size": 2, "pp-size": size}), LaunchContext.from_experiment(composed.experiment)
        )
        for size in (1, 2)
    ]
    assert refused == [None, "it needs 4 GPUs and 2 may be used"]


def test_trap_1_a_gpu_limit_keeps_what_fits_and_says_what_it_left_out():
    composition = docker("sglang", profiles=["balanced"], total_gpus=2)
    assert composition.data["parameters"]["tp-size"] == [1, 2]
    assert composition.provenance["parameters.tp-size"] == "gpu-limit"
    assert composition.layers[-1] == "gpu-limit"
    assert any("tp-size 4 dropped" in warning for warning in composition.warnings)


def test_trap_1_a_gpu_limit_that_everything_fits_changes_no_value():
    composition = docker("sglang", profiles=["balanced"], total_gpus=4)
    assert composition.data["parameters"]["tp-size"] == [1, 2, 4]
    assert composition.provenance["parameters.tp-size"] == "profile:balanced:balanced-params"


@pytest.mark.parametrize("folder", ["base", "deployment", "gpu"])
def test_trap_2_no_layer_below_the_runtime_knows_an_engine(folder):
    for paths in catalog.files_by_name(folder).values():
        for layer in layers.load_profile(paths[0]).layers:
            assert isinstance(layer, layers.FileLayer)
            for part in layer.data_variants():
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
    composition = docker(runtime)
    assert composition.data["runtime"]["image"] == image
    assert composition.provenance["runtime.image"] == f"{runtime}-defaults"
    assert set(composition.data["parameters"]) == NEUTRAL | own


def test_trap_2_an_engine_named_only_in_an_override_gets_its_own_layers():
    composition = compose(
        TaskContext(deployment_mode="docker", user_overrides={"base_runtime": "vllm", "model": {"id_or_path": "m"}})
    )
    assert "vllm-defaults" in composition.layers
    assert composition.data["runtime"]["image"] == "vllm/vllm-openai:v0.32.0"
    assert composition.data["task_name"] == "m_racing"


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
    composition = docker("vllm", profiles=["production"], override_mode="replace", user_overrides=WHOLE)
    assert composition.data == WHOLE
    assert composition.layers[-1] == "user_replace"
    assert set(composition.provenance.values()) == {"user_replace"}


def test_trap_7_an_unknown_profile_is_an_error_with_the_nearest_name():
    with pytest.raises(ConfigError, match="Unknown profile 'low-latncy'; did you mean 'low-latency'"):
        docker("sglang", profiles=["low-latncy"])


def test_trap_7_an_unknown_profile_is_skipped_with_a_warning_only_when_asked_for():
    composition = docker("sglang", profiles=["low-latncy", "balanced"], allow_unknown_profiles=True)
    assert any("low-latncy" in warning and "skipped" in warning for warning in composition.warnings)
    assert composition.data["benchmark"]["num_concurrency"] == [4, 8, 16]


def test_trap_7_a_profile_that_is_there_but_broken_is_never_skipped(write):
    write("profiles/mine.yaml", "name: mine\nlayers: []\n")
    with pytest.raises(ConfigError, match="at least one layer"):
        docker("sglang", profiles=["mine"], allow_unknown_profiles=True)
