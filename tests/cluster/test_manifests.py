"""What autotune writes for a cluster is accepted by a real API server, by a dry run on the server."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def test_every_manifest_of_forty_experiments_is_accepted(plane: ControlPlane, programs: Path, tmp_path: Path) -> None:
    rng = random.Random(20)
    documents = [document for number in range(EXPERIMENTS) for document in manifests(rng, number)]
    for document in documents:
        document["metadata"].setdefault("namespace", NAMESPACE)
    path = tmp_path / "all.yaml"
    path.write_text(to_yaml(documents))
    applied = subprocess.run(
        [
            programs / "bin" / "kubectl",
            "--kubeconfig",
            plane.kubeconfig(ADMIN),
            "apply",
            "--dry-run=server",
            "-f",
            path,
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env={"HOME": str(tmp_path), "PATH": ""},
    )
    assert applied.returncode == 0, applied.stderr
    lines = applied.stdout.splitlines()
    assert len(lines) == len(documents)
    assert all("(server dry run)" in line for line in lines), lines


def test_a_field_that_no_api_knows_would_be_refused(plane: ControlPlane, programs: Path, tmp_path: Path) -> None:
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": NAMESPACE}, "datta": {}}
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(document))
    command = [programs / "bin" / "kubectl", "--kubeconfig", plane.kubeconfig(ADMIN), "apply", "--dry-run=server"]
    refused = subprocess.run(
        [*command, "-f", path], capture_output=True, text=True, timeout=300, env={"HOME": str(tmp_path), "PATH": ""}
    )
    assert refused.returncode != 0
    assert "datta" in refused.stderr
