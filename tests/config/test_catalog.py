import os
from pathlib import Path

import pytest

import autotuner
from autotuner.config import ConfigLayer, TaskConfigFactory, TaskContext, catalog, compose
from autotuner.errors import ConfigError

MINE = (
    "name: {name}\ndescription: {description}\nlayers:\n"
    "  - name: params\n    data: {{parameters: {{tp-size: [{size}]}}}}\n"
)


def mine(name="mine", description="my own", size=1):
    return MINE.format(name=name, description=description, size=size)


def sizes(profile):
    return compose(TaskContext(profiles=[profile])).data["parameters"]["tp-size"]


def test_a_profile_in_the_current_folder_is_found(write):
    write("profiles/mine.yaml", mine(size=3))
    assert sizes("mine") == [3]


def test_a_profile_in_the_users_folder_is_found(write):
    write(Path(os.environ["AUTOTUNE_CONFIG_HOME"]) / "profiles/mine.yml", mine(size=5))
    assert sizes("mine") == [5]


def test_a_profile_is_found_by_its_path(write):
    write("elsewhere/any-name.yaml", mine(name="another", size=7))
    composition = compose(TaskContext(profiles=["elsewhere/any-name.yaml"]))
    assert composition.layers[-1] == "profile:another:params"
    assert sizes("elsewhere/any-name.yaml") == [7]


def test_a_path_without_a_file_is_an_error():
    with pytest.raises(ConfigError, match=r"There is no profile file nowhere\.yaml"):
        compose(TaskContext(profiles=["nowhere.yaml"]))


def test_the_nearest_file_of_a_name_counts_and_hiding_another_is_a_warning(write):
    write("profiles/balanced.yaml", mine(name="balanced", size=9))
    composition = compose(TaskContext(profiles=["balanced"]))
    assert composition.data["parameters"]["tp-size"] == [9]
    assert any("profiles/balanced.yaml hides the one in" in warning for warning in composition.warnings)


def test_a_copy_of_the_bundled_profiles_in_the_current_folder_is_no_reason_to_warn(write):
    write("profiles/quick-test.yaml", (catalog.bundled_folder() / "quick-test.yaml").read_text())
    assert not any("hides" in warning for warning in compose(TaskContext(profiles=["quick-test"])).warnings)


def test_the_current_folder_of_a_checkout_is_not_searched_twice(monkeypatch):
    monkeypatch.chdir(catalog.bundled_folder().parent)
    assert len(catalog.search_path()) == 1


def test_a_layer_in_a_folder_of_ones_own_takes_part_in_every_composition(write):
    write(
        "profiles/deployment/site.yaml",
        "name: site\nlayers:\n  - name: site\n    data: {hardware: {price_per_gpu_hour: 2.5}}\n",
    )
    composition = compose(TaskContext())
    assert composition.layers == ["base-model", "base-optimization", "process-defaults", "site", "sim-defaults"]
    assert composition.experiment.hardware.price_per_gpu_hour == 2.5


def test_a_file_on_the_search_path_must_have_the_name_of_what_it_holds(write):
    write("profiles/mine.yaml", mine(name="yours"))
    with pytest.raises(ConfigError, match="holds 'yours'") as caught:
        TaskConfigFactory.get_profile("mine")
    assert "yours.yaml" in caught.value.remedy


def test_an_unreadable_profile_is_listed_with_its_problem_and_hides_no_other(write):
    write("profiles/broken.yaml", "layers: [\n")
    listed = {entry["name"]: entry for entry in TaskConfigFactory.list_profiles()}
    assert "broken.yaml:2:1: not valid YAML" in listed["broken"]["problem"]
    assert listed["broken"]["layers_count"] == 0
    assert "problem" not in listed["balanced"]


def test_a_registered_profile_is_listed_and_used():
    TaskConfigFactory.register_profile(
        "from-python",
        [ConfigLayer("dynamic", lambda context: {"parameters": {"tp-size": [context.total_gpus]}})],
        {"name": "from-python", "description": "made in Python", "tags": ["mine"]},
    )
    composition = compose(TaskContext(profiles=["from-python"], total_gpus=2))
    assert composition.data["parameters"]["tp-size"] == [2]
    assert composition.provenance["parameters.tp-size"] == "profile:from-python:dynamic"
    listed = {entry["name"]: entry for entry in TaskConfigFactory.list_profiles()}
    assert listed["from-python"] == {
        "kind": "profile",
        "name": "from-python",
        "description": "made in Python",
        "use_case": "",
        "tags": ["mine"],
        "recommended_for": [],
        "layers_count": 1,
        "layer_names": ["dynamic"],
        "source": "registered",
    }


def test_an_unregistered_profile_is_unknown_again():
    TaskConfigFactory.register_profile("temporary", [ConfigLayer("l", {})])
    TaskConfigFactory.unregister_profile("temporary")
    with pytest.raises(ConfigError, match="Unknown profile 'temporary'"):
        TaskConfigFactory.get_profile("temporary")
    with pytest.raises(ConfigError, match="Unknown registered profile"):
        TaskConfigFactory.unregister_profile("temporary")


def test_a_profile_without_layers_or_with_unknown_metadata_is_refused():
    with pytest.raises(ConfigError, match="has no layers"):
        TaskConfigFactory.register_profile("empty", [])
    with pytest.raises(ConfigError, match="Unknown metadata key 'tag'; did you mean 'tags'"):
        TaskConfigFactory.register_profile("odd", [ConfigLayer("l", {})], {"tag": []})


def test_slos_and_presets_are_listed():
    assert [entry["name"] for entry in TaskConfigFactory.list_slos()] == [
        "balanced",
        "base",
        "high-throughput",
        "strict-latency",
    ]
    assert {entry["name"] for entry in TaskConfigFactory.list_presets()} == {
        "a100",
        "attention-fp8",
        "bf16-default",
        "consumer-gpu",
        "dense-model",
        "float16-default",
        "fp8-default",
        "gemm-fp8",
        "h100",
        "mla-model",
        "moe-model",
    }
    assert all(entry["description"] for entry in [*TaskConfigFactory.list_slos(), *TaskConfigFactory.list_presets()])


def test_an_installed_package_finds_the_profiles_inside_it(tmp_path, monkeypatch):
    (tmp_path / "autotuner/profiles").mkdir(parents=True)
    monkeypatch.setattr(autotuner, "__file__", str(tmp_path / "autotuner/__init__.py"))
    assert catalog.bundled_folder() == tmp_path / "autotuner/profiles"


def test_without_a_folder_named_by_the_environment_the_platforms_is_searched(monkeypatch, tmp_path):
    monkeypatch.delenv("AUTOTUNE_CONFIG_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert catalog.user_folder().parts[-2:] == ("autotune", "profiles")
