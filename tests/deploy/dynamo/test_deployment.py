import base64
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotuner.deploy.dynamo import (
    DynamoDeployment,
    Images,
    ModelCache,
    ProfileData,
    Workers,
    deployment_documents,
    deployment_files,
    mocker_documents,
    output_config_map,
    planner_settings,
)
from autotuner.errors import ConfigError
from tests.deploy.dynamo.deployments import DECODE, MODEL, PREFILL, PROFILE, deployment
from tests.deploy.dynamo.strict_schema import problems

FOLDER = Path(__file__).parent
SCHEMAS = json.loads((FOLDER / "graph_schemas.json").read_text())
RELEASES = [("1.6.1", "v1beta1"), ("1.6.1", "v1alpha1"), ("1.0.2", "v1alpha1"), ("0.9.1", "v1alpha1")]


def container(graph: dict[str, Any], name: str) -> Any:
    part = next(part for part in graph["spec"]["components"] if part["name"] == name)
    return part["podTemplate"]["spec"]["containers"][0]


def test_a_mocker_twin_is_what_dynamos_own_generator_gives():
    expected = yaml.safe_load((FOLDER / "mocker_with_planner.yaml").read_text())
    model, frontend = "nvidia/Llama-3.1-8B-Instruct-FP8", "nvcr.io/nvidia/ai-dynamo/dynamo-frontend:1.6.1"
    made = DynamoDeployment(
        name="llama",
        backend="vllm",
        model=model,
        prefill=Workers(),
        decode=Workers(),
        images=replace(Images.of_release("vllm", "1.6.1"), mocker=frontend),
        planner=planner_settings("1.6.1", backend="vllm", model=model, ttft_ms=200.0, itl_ms=20.0),
        profile=PROFILE,
        planner_config_map="planner-config-ef18",
        profile_config_map="planner-profile-data-cfbd",
        mocker_name="mocker-disagg",
    )
    planner, profile, graph = mocker_documents(made)
    assert json.loads(planner["data"]["planner_config.json"]) == expected["planner_config"]
    assert (planner["metadata"], profile["metadata"]) == (
        {"name": "planner-config-ef18"},
        {"name": "planner-profile-data-cfbd"},
    )
    assert {name: json.loads(text) for name, text in profile["data"].items()} == {
        "prefill_raw_data.json": PREFILL,
        "decode_raw_data.json": DECODE,
    }
    assert graph == expected["graph"]


@pytest.mark.parametrize(("release", "api_version"), RELEASES)
@pytest.mark.parametrize("backend", ["vllm", "sglang", "trtllm"])
def test_every_manifest_passes_the_strict_schema_of_its_version(backend, release, api_version):
    for split, cache in itertools.product((True, False), (None, ModelCache("weights", "m"))):
        made = deployment(
            backend=backend,
            release=release,
            api_version=api_version,
            model_cache=cache,
            prefill=Workers() if split else None,
            decode=Workers(gpus=16, nodes=2) if backend == "sglang" else Workers(gpus=4),
        )
        for documents in (deployment_documents(made), mocker_documents(made)):
            *config_maps, graph = documents
            assert list(problems(graph, SCHEMAS[api_version])) == []
            assert {item["metadata"]["name"] for item in config_maps} <= set(_mounted(graph))


def _mounted(node) -> list[str]:
    """Names of all ConfigMaps that a manifest mounts."""
    if isinstance(node, dict):
        own = [node["configMap"]["name"]] if "configMap" in node else []
        return own + [name for value in node.values() for name in _mounted(value)]
    return [name for value in node for name in _mounted(value)] if isinstance(node, list) else []


def test_the_strict_schema_finds_a_field_that_does_not_exist():
    graph = deployment_documents(deployment())[-1]
    graph["spec"]["components"][1]["dynamoNamespace"] = "x"
    assert list(problems(graph, SCHEMAS["v1beta1"])) == [".spec.components[1] has no dynamoNamespace"]


def test_workers_get_their_engines_arguments_gpus_and_number():
    graph = deployment_documents(deployment())[-1]
    decode = next(part for part in graph["spec"]["components"] if part["name"] == "decode")
    main = container(graph, "decode")
    assert decode["replicas"] == 3
    assert main["resources"] == {"limits": {"nvidia.com/gpu": "4"}}
    assert main["args"][-2:] == ["--tensor-parallel-size", "4"]
    assert main["args"][:4] == ["--model", MODEL, "--disaggregation-mode", "decode"]


def test_a_mocker_needs_no_gpu_and_has_the_same_replicas():
    graph = mocker_documents(deployment())[-1]
    assert [part["replicas"] for part in graph["spec"]["components"]] == [1, 3, 2, 1]
    assert "nvidia.com/gpu" not in json.dumps(graph)
    assert graph["metadata"]["name"] == "chat-mocker"


def test_the_mockers_own_grid_is_mounted_beside_the_profile_and_read():
    made = deployment(profile=replace(PROFILE, mocker_grid=b"grid"))
    _, profile, graph = mocker_documents(made)
    assert base64.b64decode(profile["binaryData"]["perf_data.npz"]) == b"grid"
    assert container(graph, "prefill")["args"][-1] == "/workspace/profiling_results/perf_data.npz"


@pytest.mark.parametrize(("release", "role"), [("0.9.1", "--is-prefill-worker"), ("1.0.2", "--disaggregation-mode")])
def test_each_release_has_its_own_word_for_the_role(release, role):
    services = deployment_documents(deployment(release=release))[-1]["spec"]["services"]
    assert role in services["VllmPrefillWorker"]["extraPodSpec"]["mainContainer"]["args"]


def test_the_planner_of_0_9_has_arguments_and_a_profile_of_fixed_name():
    profile, graph = deployment_documents(deployment(release="0.9.1"))
    assert profile["metadata"]["name"] == "planner-profile-data"
    planner = graph["spec"]["services"]["Planner"]["extraPodSpec"]["mainContainer"]
    assert planner["command"] == ["python3", "-m", "dynamo.planner.planner_sla"]
    assert {"--ttft=200", "--itl=20", "--decode-engine-num-gpu=4", "--prefill-engine-num-gpu=1"} <= set(planner["args"])


def test_config_maps_are_named_after_their_content():
    names = [[item["metadata"]["name"] for item in deployment_documents(made)[:2]] for made in _three_deployments()]
    assert names[0] == names[1] != names[2]


def _three_deployments() -> list[DynamoDeployment]:
    other = ProfileData(PREFILL, {**DECODE, "max_kv_tokens": 1000})
    return [deployment(), deployment(name="other"), deployment(profile=other)]


def test_a_model_cache_is_mounted_and_the_model_keeps_its_name():
    graph = deployment_documents(deployment(model_cache=ModelCache("weights", "/m/1/")))[-1]
    main = container(graph, "decode")
    assert main["args"][:4] == ["--model", "/opt/model-cache/m/1", "--served-model-name", MODEL]
    assert main["volumeMounts"] == [{"name": "model-cache", "mountPath": "/opt/model-cache", "readOnly": True}]


def test_trtllm_options_of_role_and_candidate_are_one_argument():
    options = ("--override-engine-args", '{"tensor_parallel_size": 2}')
    graph = deployment_documents(deployment(backend="trtllm", prefill=Workers(options)))[-1]
    arguments = container(graph, "prefill")["args"]
    assert arguments.count("--override-engine-args") == 1
    assert json.loads(arguments[-1]) == {
        "cache_transceiver_config": {"backend": "DEFAULT"},
        "disable_overlap_scheduler": True,
        "tensor_parallel_size": 2,
    }


def test_images_come_from_the_release_or_from_beside_the_workers():
    assert Images.of_release("trtllm", "1.6.1").planner.endswith("/dynamo-planner:1.6.1")
    assert Images.of_release("trtllm", "0.9.1").planner.endswith("/tensorrtllm-runtime:0.9.1")
    assert Images.of_worker_image("reg:5000/me/vllm:x", "1.6.1").planner == "reg:5000/me/dynamo-planner:x"
    assert Images.of_worker_image("vllm", "1.6.1").planner == "dynamo-planner"


def test_overrides_are_merged_by_component_and_flag():
    pod = {"spec": {"containers": [{"name": "main", "args": ["--tensor-parallel-size", "8", "--seed", "1"]}]}}
    override = {"spec": {"components": [{"name": "decode", "sharedMemorySize": "80Gi", "podTemplate": pod}]}}
    graph = deployment_documents(deployment(override=override))[-1]
    assert container(graph, "decode")["args"][-4:] == ["--tensor-parallel-size", "8", "--seed", "1"]
    assert container(graph, "decode")["args"].count("--tensor-parallel-size") == 1
    assert container(graph, "decode")["workingDir"].endswith("vllm")
    assert graph["spec"]["components"][1]["sharedMemorySize"] == "80Gi"


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ({"spec": {"services": {"decode": {}}}}, "written for v1alpha1, and the deployment is v1beta1"),
        ({"spec": {"components": [{"name": "decoder"}]}}, "names decoder"),
        ({"apiVersion": "nvidia.com/v1alpha1", "spec": {}}, "written for v1alpha1"),
    ],
)
def test_an_override_that_fits_nothing_is_an_error(override, what):
    with pytest.raises(ConfigError, match=what):
        deployment_documents(deployment(override=override))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"name": "Chat"}, "cannot be called"),
        ({"name": "a" * 33}, "too long"),
        ({"profile": None}, "needs a profile"),
        ({"release": "1.0.2", "api_version": "v1beta1"}, "no DynamoGraphDeployment of v1beta1"),
        ({"planner": {"ttft": 200.0}}, "Unknown setting of the planner.*'ttft'; did you mean 'ttft_ms'"),
    ],
)
def test_what_cannot_be_deployed_is_refused_before_it_is_written(changes, what):
    with pytest.raises(ConfigError, match=what):
        deployment(**changes)


def test_a_name_that_just_fits_is_taken():
    assert deployment(name="a" * 31).mocker_deployment_name == "a" * 31 + "-mocker"


@pytest.mark.parametrize(
    "points",
    [
        {key: values[:3] for key, values in PREFILL.items()},
        {**PREFILL, "prefill_ttft": PREFILL["prefill_ttft"][:3]},
        {"prefill_isl": PREFILL["prefill_isl"]},
    ],
)
def test_a_profile_on_which_the_planner_would_fail_is_refused(points):
    with pytest.raises(ConfigError, match="cannot be read by the planner"):
        ProfileData(points, DECODE)


def test_a_profile_without_kv_capacity_is_refused():
    with pytest.raises(ConfigError, match="no max_kv_tokens"):
        ProfileData(PREFILL, {key: value for key, value in DECODE.items() if key != "max_kv_tokens"})


def test_files_have_the_names_that_dynamo_users_know():
    files = deployment_files(deployment())
    assert list(files) == [
        "config_with_planner.yaml",
        "mocker_config_with_planner.yaml",
        "planner_config.json",
        "planner-profile-data.configmap.yaml",
    ]
    assert list(yaml.safe_load_all(files["config_with_planner.yaml"])) == deployment_documents(deployment())
    result = output_config_map("chat", files)
    assert result["metadata"]["name"] == "dgdr-output-chat"
    assert result["data"] == files


def test_a_config_map_larger_than_kubernetes_takes_is_an_error():
    with pytest.raises(ConfigError, match="1,048,577 bytes"):
        output_config_map("chat", {"a": "x" * (2**20 + 1)})
