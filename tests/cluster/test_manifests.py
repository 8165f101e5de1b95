"""What autotune writes for a cluster is accepted by a real API server, by a dry run on the server.

The YAML goes to server-side apply, which refuses fields that it does not know, as newer servers always do. kubectl
sends five requests a second, too few for all of it, so it gets the documents of one experiment.
"""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from autotuner import owner
from autotuner.core import Mount, ServerSpec
from autotuner.deploy.documents import to_yaml
from autotuner.deploy.kubernetes import ClusterOptions, access_documents, deployment_documents
from autotuner.kubernetes_values import ModelVolume, Toleration
from autotuner.launchers.kubernetes import objects
from tests.cluster.control_plane import ADMIN, NAMESPACE, ControlPlane
from tests.deploy.servers import spec

pytestmark = pytest.mark.cluster

EXPERIMENTS = 40
CANONICAL = {"1000000": "1M"}
"""Quantities that the API writes in another form."""

ADDRESSES = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps/{}",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments/{}",
    "Job": "/apis/batch/v1/namespaces/{}/jobs/{}",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles/{}",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings/{}",
    "Service": "/api/v1/namespaces/{}/services/{}",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts/{}",
}
WORDS = ("--x", "$(HOME)", "a: b", "ünï", '{"a": [1]}', "'", "#c", "", "true", "1e3", "-", "line\nbreak")


def random_server(rng: random.Random) -> ServerSpec:
    """A server with settings that a manifest has to carry, some of them awkward."""
    model = Mount("/data/m", "/data/m", is_model=True, read_only=True)
    mounts = (*([model] if rng.random() < 0.5 else []), Mount("/cache", "/root/.cache"))
    return spec(
        image=rng.choice(["vllm/vllm-openai:v0.32.0", "registry.example:5000/a/b@sha256:" + "a" * 64]),
        container_argv=("/models/tiny", *rng.choices(WORDS, k=4)),
        entrypoint=rng.choice([None, "/opt/$x/vllm"]),
        env={"A": rng.choice(WORDS), "VLLM_X": "1"},
        gpus=rng.choice([0, 1, 2, 8]),
        port=rng.choice([1, 8000, 65535]),
        network=rng.choice(["bridge", "host"]),
        shm_size=rng.choice([None, "16g", "64m"]),
        memory=rng.choice([None, "64g", "1000000"]),
        mounts=mounts,
        served_model=rng.choice(["tiny", "Org/Model-8B", "-weird name-" * 9]),
        secrets=rng.choice([(), ("HF_TOKEN",)]),
    )


def random_options(rng: random.Random) -> ClusterOptions:
    """Settings of a cluster."""
    return ClusterOptions(
        namespace=NAMESPACE,
        service_account=rng.choice([None, "autotune"]),
        image_pull_secret=rng.choice([None, "registry"]),
        model_volume=rng.choice([ModelVolume("models", "llama"), ModelVolume(path="/raid/llama")]),
        node_selector=rng.choice([{}, {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}]),
        tolerations=rng.choice([(), (Toleration("dedicated", "llm", "NoExecute"), Toleration("spot"))]),
        share_nodes=rng.random() < 0.5,
    )


def manifests(rng: random.Random, number: int) -> list[dict[str, Any]]:
    """What is written for one experiment: the run's ConfigMap, a Job, the winner, and of a few the access too."""
    server, options = random_server(rng), random_options(rng)
    run = objects.RunIdentity(f"/runs/{'x' * rng.choice([1, 80])}-{number}", owner.this_process())
    job = objects.job(f"at-{number}", run, "0" * 8, server, options, trial="001", time_limit=rng.uniform(1, 1e5))
    documents = [objects.config_map(run), job]
    documents += deployment_documents(server, options, name=f"winner-{number}")
    return [*documents, *(access_documents(options) if number < 3 else ())]


def in_namespace(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The documents with a namespace, where they leave it to the kubeconfig."""
    return [{**document, "metadata": {"namespace": NAMESPACE, **document["metadata"]}} for document in documents]


def dry_run(client: httpx.Client, document: dict[str, Any]) -> httpx.Response:
    """What the API server answers to the document's YAML, of which it stores nothing."""
    address = ADDRESSES[document["kind"]].format(NAMESPACE, document["metadata"]["name"])
    return client.patch(
        address,
        # forced, because the Role that the tests grant has the same name, and another manager
        params={"dryRun": "All", "fieldManager": "autotune", "force": "true"},
        content=to_yaml([document]).encode(),
        headers={"Content-Type": "application/apply-patch+yaml"},
        timeout=120,
    )


def lost(sent: Any, answered: Any, path: str = "") -> list[str]:
    """Where a document's values do not stand in the answer, which holds more of its own."""
    if isinstance(sent, dict) and isinstance(answered, dict):
        return [line for key in sent for line in lost(sent[key], answered.get(key), f"{path}.{key}")]
    if isinstance(sent, list) and isinstance(answered, list) and len(sent) == len(answered):
        pairs = enumerate(zip(sent, answered, strict=True))
        return [line for number, pair in pairs for line in lost(*pair, f"{path}[{number}]")]
    # the API leaves out what is empty
    is_same = CANONICAL.get(str(sent), sent) == answered or (not sent and answered is None)
    return [] if is_same else [f"{path}: {sent!r} became {answered!r}"]


def test_every_manifest_of_forty_experiments_is_accepted_and_kept(plane: ControlPlane) -> None:
    rng = random.Random(20)
    documents = [document for number in range(EXPERIMENTS) for document in manifests(rng, number)]
    with plane.client() as client:
        for document in in_namespace(documents):
            answer = dry_run(client, document)
            assert answer.status_code in (200, 201), f"{answer.text}\n{to_yaml([document])}"
            assert lost(document, answer.json()) == []
    names = {document["metadata"]["name"] for document in documents}
    stored = plane.items(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs")
    assert not names & {item["metadata"]["name"] for item in stored}


def test_a_field_that_the_api_does_not_know_is_refused(plane: ControlPlane) -> None:
    [job] = in_namespace([document for document in manifests(random.Random(1), 1) if document["kind"] == "Job"])
    job["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with plane.client() as client:
        refused = dry_run(client, job)
    assert refused.status_code >= 400
    assert "imagee" in refused.text


def test_kubectl_accepts_the_manifests_of_an_experiment(plane: ControlPlane, programs: Path, tmp_path: Path) -> None:
    documents = in_namespace(manifests(random.Random(2), 2))
    path = tmp_path / "all.yaml"
    path.write_text(to_yaml(documents))
    kubectl, kubeconfig = str(programs / "bin" / "kubectl"), str(plane.kubeconfig(ADMIN))
    applied = subprocess.run(
        [kubectl, "--kubeconfig", kubeconfig, "apply", "--dry-run=server", "-f", str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={"HOME": str(tmp_path), "PATH": ""},
    )
    assert applied.returncode == 0, applied.stderr
    lines = applied.stdout.splitlines()
    assert len(lines) == len(documents)
    assert all("(server dry run)" in line for line in lines), lines
