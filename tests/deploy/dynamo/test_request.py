import pytest
import yaml

from autotuner.deploy.dynamo import ModelCache, read_request
from autotuner.errors import ConfigError

ALPHA = """
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeploymentRequest
metadata: {name: chat, namespace: serving}
spec:
  model: org/model
  backend: sglang
  autoApply: true
  profilingConfig:
    profilerImage: registry/sglang-runtime:0.9.1
    tolerations: [{key: gpu}]
    configMapRef: {name: base}
    config:
      engine: {maxContextLength: 16384, is_moe_model: true}
      hardware: {minNumGpusPerEngine: 2, max_num_gpus_per_engine: 8, numGpusPerNode: 0}
      sweep: {useAiConfigurator: true, aicSystem: h200_sxm, prefill_interpolation_granularity: 8}
      sla: {isl: 3000, osl: 150, ttft: 200.0, itl: 20}
      planner: {plannerMinEndpoint: 2}
  deploymentOverrides: {workersImage: "registry/sglang-runtime:0.9.1", labels: {team: a}}
"""

BETA = """
apiVersion: nvidia.com/v1beta1
kind: DynamoGraphDeploymentRequest
metadata: {name: chat}
spec:
  model: org/model
  backend: vllm
  image: registry/dynamo-frontend:1.6.1
  hardware: {gpuSku: h200_sxm, totalGpus: 16, numGpusPerNode: 8, vramMb: 141000}
  workload: {isl: 3000, osl: 150, requestRate: 5}
  sla: {ttft: 200.0, itl: 20}
  modelCache: {pvcName: weights, pvcModelPath: m}
  features: {planner: {optimization_target: sla}, mocker: {enabled: true}}
  overrides: {dgd: {spec: {env: []}}, profilingJob: {template: {}}}
  searchStrategy: thorough
"""


def beta(**changes) -> str:
    """The v1beta1 request with sections of its spec replaced."""
    document = yaml.safe_load(BETA)
    document["spec"] |= changes
    return yaml.safe_dump(document)


def test_a_request_of_v1alpha1_is_read_in_either_spelling():
    request = read_request(ALPHA)
    assert (request.name, request.namespace, request.backend) == ("chat", "serving", "sglang")
    assert (request.isl, request.osl, request.ttft_ms, request.itl_ms) == (3000, 150, 200.0, 20.0)
    assert (request.min_gpus_per_engine, request.max_gpus_per_engine, request.gpus_per_node) == (2, 8, None)
    assert (request.max_context_length, request.is_moe, request.prefill_points) == (16384, True, 8)
    assert (request.use_ai_configurator, request.aic_system) == (True, "h200_sxm")
    assert request.planner == {"min_endpoint": 2}
    assert request.base_deployment == ("base", "disagg.yaml")
    assert (request.labels, request.auto_apply, request.mocker) == ({"team": "a"}, True, False)


def test_a_request_of_v1beta1_is_read():
    request = read_request(BETA)
    assert (request.gpu, request.total_gpus, request.vram_mib) == ("h200_sxm", 16, 141000.0)
    assert (request.request_rate, request.concurrency, request.search_strategy) == (5.0, None, "thorough")
    assert request.model_cache == ModelCache("weights", "m")
    assert (request.planner, request.mocker) == ({"optimization_target": "sla"}, True)
    assert request.override == {"spec": {"env": []}}


def test_what_only_the_operators_job_needs_is_named_with_the_reason():
    assert "Job" in read_request(BETA).not_used["spec.overrides.profilingJob"]
    assert list(read_request(ALPHA).not_used) == ["spec.profilingConfig.tolerations"]


def test_what_is_left_out_is_what_the_version_says():
    short = read_request("apiVersion: nvidia.com/v1alpha1\nkind: DynamoGraphDeploymentRequest\nspec: {model: m}")
    bare = read_request("model: m")
    assert (short.isl, short.osl, short.auto_apply) == (3000, 500, False)
    assert (bare.isl, bare.osl, bare.auto_apply, bare.search_strategy) == (4000, 1000, True, "rapid")
    assert (bare.ttft_ms, bare.planner) == (None, None)


def test_an_end_to_end_target_takes_the_place_of_both_others():
    request = read_request(beta(sla={"e2eLatency": 35000.0, "ttft": 200.0, "itl": None}))
    assert (request.e2e_latency_ms, request.ttft_ms, request.itl_ms) == (35000.0, None, None)
    assert request.not_used["spec.sla.ttft"] == "e2eLatency takes its place"


def test_a_request_stands_among_other_documents():
    assert read_request("kind: ConfigMap\n---\n" + BETA).name == "chat"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"workloads": {}}, "Unknown key in spec 'workloads'; did you mean 'workload'"),
        ({"sla": {"tfft": 1}}, "Unknown key in spec.sla 'tfft'; did you mean 'ttft'"),
        ({"backend": "tgi"}, "spec.backend is 'tgi'. It must be one of auto, vllm"),
        ({"workload": {"isl": -1}}, "spec.workload.isl is -1. It must be a whole number above 0"),
        ({"workload": {"isl": True}}, "spec.workload.isl is True"),
        ({"sla": {"ttft": "fast"}}, "spec.sla.ttft is 'fast'. It must be a number above 0"),
        ({"hardware": [1]}, "spec.hardware is .1.. It must be a section"),
        ({"workload": {"requestRate": 1, "concurrency": 2}}, "both concurrency and requestRate"),
        ({"features": {"planner": {"ttft_sec": 1}}}, "Unknown setting of the planner"),
        ({"features": {"mocker": {"on": True}}}, "Unknown key in spec.features.mocker 'on'"),
        ({"modelCache": {"pvcModelPath": "m"}}, "a path and no claim"),
        ({"model": None}, "names no model"),
    ],
)
def test_what_no_version_understands_is_named_with_its_path(changes, what):
    with pytest.raises(ConfigError, match=what):
        read_request(beta(**changes))


def test_two_keys_that_contradict_each_other_are_an_error():
    text = ALPHA.replace("engine: {", "engine: {backend: vllm, ")
    with pytest.raises(ConfigError, match="backend is 'vllm', and another key says 'sglang'"):
        read_request(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: [", "not valid YAML"),
        ("kind: Pod", "0 documents of kind DynamoGraphDeploymentRequest. The file has: Pod"),
        ("", "The file has: nothing"),
        (BETA + "---" + BETA, "2 documents"),
        (BETA.replace("v1beta1", "v2"), "apiVersion 'nvidia.com/v2'"),
        (BETA.replace("metadata: {name: chat}", "metadata: {name: Chat_1}"), "cannot be called 'Chat_1'"),
        (BETA.replace("metadata: {name: chat}", f"metadata: {{name: {'a' * 46}}}"), "too long"),
        (
            ALPHA.replace("maxContextLength", "maxContextLen"),
            "config.engine 'maxContextLen'; did you mean 'max_context_length'",
        ),
    ],
)
def test_a_file_that_is_no_request_says_what_it_is(text, what):
    with pytest.raises(ConfigError, match=what):
        read_request(text)
