"""Every YAML file that is handed out can be used."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import autotuner
from autotuner.config import TaskContext, catalog, check_file, compose, layers, read_overrides
from autotuner.config.requests import read_requests
from autotuner.config.schema import check_keys, normalize_slo
from autotuner.engines import ENGINES, engine

ROOT = Path(autotuner.__file__).parent.parent
PROFILES = sorted((ROOT / "profiles").rglob("*.yaml"))
EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*") if path.suffix in (".yaml", ".yml"))
RUNTIMES = ("sglang", "vllm", "trtllm", "sim")
CONFIGURATION = {"engines.yaml", "custom-profile.yaml", "overrides.yaml", "search-space.yaml", "slo.yaml"}
MODELS = {"dense-model": "qwen3-8b", "moe-model": "qwen3-30b-a3b", "mla-model": "deepseek-r1"}
"""A model that the preset applies to, where that is not any."""


def shown(path):
    return str(path.relative_to(ROOT))


def every_context(model_name="m", **more):
    for runtime in RUNTIMES:
        yield compose(TaskContext(model_name=model_name, base_runtime=runtime, deployment_mode="process", **more))


@pytest.mark.parametrize("path", PROFILES, ids=shown)
def test_a_bundled_file_says_what_it_is_for_and_has_known_keys_only(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")
    for layer in layers.load_profile(path).layers:
        assert isinstance(layer, layers.FileLayer)
        for part in layer.data_variants():
            normalized = {**part, "slo": normalize_slo(part["slo"])} if "slo" in part else part
            check_keys(layer.name, normalized, layer.locate)


@pytest.mark.parametrize("path", [path for path in PROFILES if path.parent == ROOT / "profiles"], ids=shown)
def test_a_bundled_profile_checks(path):
    assert check_file(path).layers[-1] == f"profile:{path.stem}:{path.stem}-params"


@pytest.mark.parametrize("path", [path for path in PROFILES if path.parent.name == "presets"], ids=shown)
def test_a_bundled_preset_composes_on_every_engine_and_sets_something(path):
    for composition in every_context(layers=[path.stem], model_name=MODELS.get(path.stem, "m")):
        assert path.stem in composition.provenance.values()


@pytest.mark.parametrize("path", [path for path in PROFILES if path.parent.name == "slo"], ids=shown)
def test_a_bundled_slo_composes_on_every_engine_and_has_terms(path):
    assert all(composition.experiment.slo.terms for composition in every_context(slo_config=path.stem))


def test_every_bundled_automatic_layer_takes_part_somewhere():
    gpus = (None, "H100")
    contexts = [
        TaskContext(
            model_name="m",
            base_runtime=runtime,
            deployment_mode=mode,
            gpu_type=gpu,
            user_overrides={"deployment": {"url": "http://x"}},
        )
        for runtime in RUNTIMES
        for mode in ("process", "docker", "kubernetes", "ome", "external")
        for gpu in gpus
        if runtime != "sim" or mode in ("process", "external")
    ]
    contexts.append(
        TaskContext(model_name="m", deployment_mode="external", user_overrides={"deployment": {"url": "http://x"}})
    )
    applied = {name for context in contexts for name in compose(context).layers}
    automatic = [path for path in PROFILES if path.parent.name in catalog.AUTOMATIC_FOLDERS]
    assert automatic
    assert {layer.name for path in automatic for layer in layers.load_profile(path).layers} <= applied


@pytest.mark.parametrize("runtime", sorted(ENGINES))
def test_every_bundled_parameter_is_one_the_engine_has(runtime):
    mode = "external" if runtime == "openai" else "process"
    presets = (path.stem for path in PROFILES if path.parent == ROOT / "profiles" / "presets")
    for preset in presets:
        for profile in (path.stem for path in PROFILES if path.parent == ROOT / "profiles"):
            context = TaskContext(
                model_name=MODELS.get(preset, "m"),
                base_runtime=runtime,
                deployment_mode=mode,
                profiles=[profile],
                layers=[preset],
                user_overrides={"deployment": {"url": "http://x"}},
            )
            engine(runtime).check_parameters(compose(context).experiment.parameters)


def test_the_example_profile_works_on_the_engine_it_is_used_with():
    path = ROOT / "examples/custom-profile.yaml"
    on_sim, on_vllm = (
        compose(TaskContext(model_name="m", base_runtime=runtime, profiles=[str(path)])) for runtime in ("sim", "vllm")
    )
    assert check_file(path).data["parameters"]["max-running-requests"] == [32, 128]
    assert on_sim.layers[-1] == "profile:custom-profile:chat-load"
    assert on_vllm.layers[-1] == "profile:custom-profile:chat-on-vllm"
    large = compose(TaskContext(model_name="Llama-3.1-70B", base_runtime="vllm", total_gpus=8, profiles=[str(path)]))
    assert large.data["parameters"]["tp-size"] == [4]


def test_the_example_search_space_has_the_values_that_it_says():
    path = ROOT / "examples/search-space.yaml"
    composition = compose(TaskContext(profiles=[str(path)], total_gpus=8))
    values_in_comments = dict(re.findall(r"^ +([\w-]+): \{.*\}\s+# (.*)$", path.read_text(), re.MULTILINE))
    assert values_in_comments.keys() == {"tp-size", "mem-fraction-static", "max-batched-tokens"}
    assert {
        name: ", ".join(map(str, composition.data["parameters"][name])) for name in values_in_comments
    } == values_in_comments
    assert set(composition.experiment.only_when) | set(composition.experiment.constraints) == {
        "max-batched-tokens",
        "all-gpus",
        "room-for-steps",
    }


def test_the_example_slo_is_used_as_it_stands():
    composition = compose(TaskContext(profiles=["quick-test"], slo_config=str(ROOT / "examples/slo.yaml")))
    assert [term.name for term in composition.experiment.slo.terms] == ["ttft", "tpot", "latency.p90"]
    assert composition.layers[-1] == "slo:slo"


def test_the_example_override_is_the_last_word():
    overrides = read_overrides([ROOT / "examples/overrides.yaml"])
    composition = compose(TaskContext(profiles=["balanced"], user_overrides=overrides))
    assert composition.experiment.optimization.strategy == "random"
    assert composition.data["parameters"] == {"tp-size": [1, 2], "mem-fraction-static": [0.8, 0.85, 0.9]}


def test_the_example_of_several_experiments_composes_each():
    requests = read_requests([ROOT / "examples/engines.yaml"])
    composed = {request.name: compose(TaskContext(**request.fields)).experiment for request in requests}
    assert {name: (each.base_runtime, each.hardware.gpu_type) for name, each in composed.items()} == {
        "vllm-h100": ("vllm", "H100"),
        "sglang-h100": ("sglang", "H100"),
        "vllm-b200": ("vllm", "B200"),
    }
    assert composed["vllm-b200"].hardware.price_per_gpu_hour == 5.5


@pytest.mark.parametrize("path", EXAMPLES, ids=shown)
def test_an_example_is_yaml_and_a_configuration_among_them_is_tested(path):
    data = yaml.safe_load(path.read_text())
    assert path.name in CONFIGURATION or not {"layers", "parameters", "slo", "optimization"} & set(data)


@pytest.mark.processes
def test_listing_profiles_loads_no_validator():
    code = (
        "import sys; from autotuner.config import TaskConfigFactory; TaskConfigFactory.list_profiles();"
        "print([name for name in ('pydantic', 'numpy', 'rich', 'autotuner.experiment') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
