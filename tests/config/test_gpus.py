"""GPU names: the table's own and its aliases, wherever one is written."""

from typing import Any

import pytest
import yaml

from autotuner.config import ConfigLayer, TaskConfigFactory, TaskContext, compose
from autotuner.errors import ConfigError
from autotuner.predict import hardware

WHOLE = {
    "task_name": "t",
    "model": {"id_or_path": "m"},
    "base_runtime": "vllm",
    "parameters": {"tp-size": [1]},
    "benchmark": {"traffic_scenarios": ["D(1,2)"], "num_concurrency": [1]},
}


class Machine:
    """A machine with so many GPUs of one type."""

    def __init__(self, gpu="NVIDIA Z99", count=2):
        self.present = gpu, count

    def deployment(self, runtime, executable):
        return None

    def gpus(self, runtime, deployment, indexes):
        return (None, None) if runtime == "sim" else self.present


def registered(name, data):
    TaskConfigFactory.register_profile(name, [ConfigLayer("params", data)])
    return {"profiles": [name]}


PLACES = {
    "the caller": lambda gpu: {"gpu_type": gpu},
    "an override of the hardware": lambda gpu: {"user_overrides": {"hardware": {"gpu_type": gpu}}},
    "an override of the simulation": lambda gpu: {"user_overrides": {"simulate": {"gpu": gpu}}},
    "a profile's hardware": lambda gpu: registered("mine", {"hardware": {"gpu_type": gpu}}),
    "a profile's simulation": lambda gpu: registered("mine", {"simulate": {"gpu": gpu}}),
    "a whole configuration": lambda gpu: {
        "user_overrides": {**WHOLE, "hardware": {"gpu_type": gpu}},
        "override_mode": "replace",
    },
    "the caller of a whole configuration": lambda gpu: {
        "user_overrides": WHOLE,
        "override_mode": "replace",
        "gpu_type": gpu,
    },
}


@pytest.mark.parametrize("runtime", ["sim", "vllm"])
@pytest.mark.parametrize("place", PLACES)
def test_an_unknown_gpu_is_an_error_with_the_nearest_name_wherever_it_is_written(place, runtime):
    for name, message in (("H1000", "Unknown GPU 'H1000'; did you mean 'H100'?"), ("Z99", "Unknown GPU 'Z99'.")):
        with pytest.raises(ConfigError) as caught:
            compose(TaskContext(model_name="llama-3.1-8b", base_runtime=runtime, **PLACES[place](name)))
        assert caught.value.what == message
        assert "gpus.yaml" in caught.value.remedy


@pytest.mark.parametrize("place", PLACES)
def test_a_known_gpu_composes_wherever_it_is_written(place):
    for name in ("H20", "NVIDIA H20", "MI300X"):
        compose(TaskContext(model_name="llama-3.1-8b", base_runtime="vllm", **PLACES[place](name)))


def test_an_unknown_gpu_of_a_layer_is_told_with_the_place_it_is_written_at(write):
    write("mine.yaml", "name: mine\nlayers:\n  - name: l\n    data:\n      hardware: {gpu_type: H1000}\n")
    with pytest.raises(ConfigError) as caught:
        compose(TaskContext(profiles=["mine.yaml"], base_runtime="vllm", model_name="m"))
    assert caught.value.why == "It is hardware.gpu_type, from profile:mine:l, mine.yaml:5:18."


def test_the_simulated_gpu_is_the_one_of_the_table_for_every_name_and_alias():
    for row in hardware.gpus().values():
        for spelling in (row.name, *row.aliases):
            composed = compose(TaskContext(base_runtime="sim", gpu_type=spelling))
            assert composed.experiment.simulate.gpu == row.name
            assert composed.experiment.hardware.gpu_type == spelling


def test_a_simulated_gpu_that_is_set_is_written_as_the_table_spells_it():
    composed = compose(TaskContext(user_overrides={"simulate": {"gpu": "nvidia-h200"}}))
    assert composed.experiment.simulate.gpu == composed.data["simulate"]["gpu"] == "h200_sxm"
    assert composed.provenance["simulate.gpu"] == "user_patch"


@pytest.mark.parametrize("value", [True, 4.5, ["H100"], {"name": "H100"}])
def test_a_gpu_that_is_no_text_is_an_error_of_its_own(value):
    with pytest.raises(ConfigError, match="cannot be used"):
        compose(TaskContext(user_overrides={"simulate": {"gpu": value}}))


@pytest.mark.parametrize("path", ["simulate.gpu", "hardware.gpu_type"])
def test_a_number_is_looked_up_as_the_name_of_a_gpu(path):
    section, key = path.split(".")
    with pytest.raises(ConfigError, match=r"Unknown GPU '4090'; did you mean 'rtx_4090'") as caught:
        compose(TaskContext(user_overrides={section: {key: 4090}}))
    assert path in caught.value.why


def test_gpus_that_the_caller_names_are_credited_to_the_caller():
    given: dict[str, Any] = {"gpu_type": "H100", "total_gpus": 2}
    for origin in ("", "the command line"):
        composition = compose(TaskContext(base_runtime="sim", origin=origin, **given))
        for path in ("hardware.gpu_type", "hardware.total_gpus"):
            assert (composition.provenance[path], composition.places[path]) == ("context", origin)
    profile = {"hardware": {"gpu_type": "H100"}}
    assert compose(TaskContext(user_overrides=profile)).provenance["hardware.gpu_type"] == "user_patch"


def test_a_gpu_of_the_users_own_table_is_known(own_gpu):
    composed = compose(TaskContext(base_runtime="sim", gpu_type="My GPU"))
    assert composed.experiment.simulate.gpu == "mine"


@pytest.fixture
def own_gpu(tmp_path):
    row = {
        key: value for key, value in yaml.safe_load(hardware.GPU_TABLE.read_text())["l4"].items() if key != "aliases"
    }
    (tmp_path / "home" / "gpus.yaml").write_text(yaml.safe_dump({"mine": {**row, "aliases": ["My GPU"]}}))
    hardware.gpus.cache_clear()
    hardware._gpus_by_spelling.cache_clear()
    yield
    (tmp_path / "home" / "gpus.yaml").unlink()
    hardware.gpus.cache_clear()
    hardware._gpus_by_spelling.cache_clear()


def on(machine, **more):
    return compose(TaskContext(model_name="m", base_runtime="vllm", machine=machine, **more))


def test_a_gpu_that_this_machine_has_and_the_table_has_not_is_a_warning():
    composed = on(Machine())
    assert composed.experiment.hardware.gpu_type == "NVIDIA Z99"
    (warning,) = composed.warnings
    assert "the GPU table has no NVIDIA Z99" in warning
    assert "neither memory nor speed can be predicted" in warning


def test_a_gpu_of_this_machine_that_the_table_has_not_cannot_be_simulated():
    with pytest.raises(ConfigError, match=r"The NVIDIA Z99 of this machine cannot be simulated.*--gpu"):
        on(Machine(), user_overrides={"optimization": {"evaluator": "simulated"}})


def test_what_was_composed_on_a_machine_composes_there_again_and_nowhere_else():
    data = on(Machine()).data
    again = compose(TaskContext(override_mode="replace", user_overrides=data, machine=Machine()))
    assert again.data == data
    with pytest.raises(ConfigError, match="Unknown GPU 'NVIDIA Z99'"):
        compose(TaskContext(override_mode="replace", user_overrides=data, machine=Machine("NVIDIA H100")))


def test_a_known_gpu_of_this_machine_is_used_without_a_word():
    composed = on(Machine("NVIDIA H100 80GB HBM3", 8))
    assert composed.warnings == []
    assert composed.experiment.hardware.gpu_type == "NVIDIA H100 80GB HBM3"
    assert composed.experiment.hardware.total_gpus == 8
    assert composed.experiment.parameters["tp-size"] == (1, 2, 4, 8)
