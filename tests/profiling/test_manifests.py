"""The manifests of a predicted profile against the strict schemas of Dynamo's resources."""

import json
from pathlib import Path

import pytest
import yaml

from autotuner.deploy.dynamo import DynamoRequest, read_request
from autotuner.errors import ConfigError, MachineError
from autotuner.profiling.manifests import (
    apply_deployment,
    default_name,
    dynamo_deployment,
    request_values,
    write_manifests,
)
from autotuner.profiling.outcome import ProfileOutcome
from autotuner.profiling.record import ProfileRecord
from autotuner.profiling.request import SlaRequest
from autotuner.profiling.session import prepare
from autotuner.profiling.sweep import Sweep
from tests.deploy.dynamo.strict_schema import problems
from tests.profiling.points import sla_request

ROOT = Path(__file__).parents[2]
SCHEMAS = json.loads((ROOT / "tests/deploy/dynamo/graph_schemas.json").read_text())
EXAMPLES = sorted((ROOT / "examples/dynamo").glob("*.yaml"))


def profiled(folder, request):
    setup = prepare(request)
    record = ProfileRecord.open_or_create(folder, setup.request)
    return setup, ProfileOutcome(record, Sweep(setup, record).run())


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned") / "profile"
    return profiled(folder, sla_request(rate=200.0, total_gpus=16))


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize(("api", "release"), [("v1beta1", "1.6.1"), ("v1alpha1", "1.0.2"), ("v1alpha1", "0.9.1")])
def test_every_manifest_passes_the_strict_schema_of_its_version(planned, tmp_path, api, release):
    setup, outcome = planned
    write_manifests(tmp_path, dynamo_deployment(outcome, setup, api_version=api, release=release))
    for name in ("config_with_planner.yaml", "mocker_config_with_planner.yaml"):
        graph = documents(tmp_path / name)[-1]
        assert graph["apiVersion"].endswith(api)
        assert not list(problems(graph["spec"], SCHEMAS[api]["properties"]["spec"]))


def test_the_deployment_has_the_chosen_workers_as_many_as_planned_and_their_profile(planned):
    setup, outcome = planned
    deployment = dynamo_deployment(outcome, setup, planner={"min_gpu_budget": 2})
    assert deployment.prefill.replicas == outcome.plan.prefill_workers > 1
    assert deployment.decode.replicas == outcome.plan.decode_workers
    assert deployment.planner is not None
    assert deployment.planner["max_gpu_budget"] == 16
    assert deployment.planner["min_gpu_budget"] == 2
    assert deployment.planner["ttft_ms"] == 200
    assert list(deployment.profile.prefill["prefill_isl"]) == outcome.profile.prefill_isl.tolist()
    assert "--tensor-parallel-size" in deployment.decode.arguments


def test_what_dynamo_does_not_launch_and_what_is_not_complete_has_no_manifest(planned, tmp_path):
    _, outcome = planned
    sim = profiled(tmp_path / "sim", sla_request(runtime="sim"))
    with pytest.raises(ConfigError, match="does not launch the profiled sim"):
        dynamo_deployment(sim[1], sim[0])
    strict = profiled(tmp_path / "strict", sla_request(ttft=0.001))
    with pytest.raises(ConfigError, match="incomplete profile"):
        dynamo_deployment(strict[1], strict[0])
    with pytest.raises(ConfigError, match="at most"):
        dynamo_deployment(outcome, prepare(outcome.record.request), name="a" * 60)


@pytest.mark.parametrize("model", ["meta-llama/Llama-3.1-70B-Instruct", "./x", "___", "q"])
def test_the_default_name_is_short_enough_for_every_api(model):
    assert len(default_name(sla_request(model=model, runtime="trtllm"))) <= 19


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_request_is_planned(path, tmp_path):
    values, remarks = request_values(read_request(path.read_text()))
    assert not remarks
    request = SlaRequest(**{**values, "evaluator": "predicted", "gpus_per_engine": (2, 4)})
    setup, outcome = profiled(tmp_path, request)
    assert outcome.is_complete
    graph = dynamo_deployment(outcome, setup)
    assert graph.decode.gpus >= 1


def test_keys_of_a_request_that_change_nothing_are_named():
    values, remarks = request_values(
        DynamoRequest("m", rdma=True, gpus_per_node=8, not_used={"overrides.profilingJob": "no Job runs"})
    )
    assert values["runtime"] == "vllm"
    text = " ".join(remarks)
    for word in ("rdma", "gpus_per_node", "overrides.profilingJob: no Job runs", "auto is vllm"):
        assert word in text


def test_an_end_to_end_target_is_refused_with_the_two_that_replace_it():
    with pytest.raises(ConfigError, match=r"sla\.ttft"):
        request_values(DynamoRequest("m", e2e_latency_ms=1000.0))


def test_a_machine_without_kubectl_says_what_to_apply(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="no kubectl"):
        apply_deployment(tmp_path / "x.yaml", namespace=None, dry_run=True)


@pytest.mark.processes
def test_a_deployment_is_checked_by_the_cluster_before_it_is_applied(tmp_path, monkeypatch):
    script = tmp_path / "kubectl"
    script.write_text(
        '#!/bin/sh\necho "$@"\ncase "$*" in *bad*) echo "no such kind" >&2; exit 1;; '
        '*far*) echo "dial tcp 10.0.0.1:6443: connect: connection refused" >&2; exit 1;; esac\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    text = apply_deployment(Path("good.yaml"), namespace="serving", dry_run=True)
    assert text.strip() == "apply -f good.yaml --namespace serving --dry-run=server"
    assert "--dry-run" not in apply_deployment(Path("good.yaml"), namespace=None, dry_run=False)
    with pytest.raises(MachineError, match="no such kind"):
        apply_deployment(Path("bad.yaml"), namespace=None, dry_run=False)
    with pytest.raises(MachineError, match="reaches no cluster"):
        apply_deployment(Path("far.yaml"), namespace=None, dry_run=True)
