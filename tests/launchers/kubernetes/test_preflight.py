"""What a cluster lacks is told in one list, and nothing is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotuner.core import ServerSpec
from autotuner.errors import MachineError
from autotuner.experiment import Deployment
from autotuner.launchers.kubernetes.launcher import KubernetesLauncher
from tests import factories
from tests.clusters import FakeCluster, fake_cluster, write_kubeconfig

SPEC = ServerSpec("an/image:1", ("serve",), {}, (), 8000, "/health", "m", gpus=4, secrets=("HF_TOKEN",))


def never(cluster: FakeCluster, pod: dict[str, Any]) -> None:
    pytest.fail("a pod was started")


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster(never) as cluster:
        cluster.add("secrets", {"metadata": {"name": "autotune-secrets"}})
        yield cluster
        assert not cluster.all("jobs")


def add_node(cluster: FakeCluster, name: str, gpus: int, *taints: dict[str, str], **labels: str) -> None:
    allocatable = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    cluster.add(
        "nodes",
        {
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": list(taints)},
            "status": {"allocatable": allocatable},
        },
    )


def check(cluster: FakeCluster, folder: Path, spec: ServerSpec | None = SPEC, token: str = "a-token", **options: Any):
    kubeconfig = write_kubeconfig(folder / "kubeconfig", cluster.url, token)
    launcher = KubernetesLauncher(Deployment(mode="kubernetes", kubeconfig=str(kubeconfig), **options))
    launcher.preflight(factories.experiment(), spec)


def test_a_cluster_with_a_node_that_is_large_enough_passes(cluster, tmp_path):
    add_node(cluster, "cpu", 0)
    add_node(cluster, "gpu", 4, {"key": "nvidia.com/gpu", "effect": "NoSchedule"})
    check(cluster, tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"namespace": "nowhere"}, "no namespace 'nowhere'"),
        ({"secret_name": "other"}, r"no Secret 'other', which has to hold HF_TOKEN"),
        ({"image_pull_secret": "registry"}, "no Secret 'registry'.*--image-pull-secret"),
        ({"service_account": "runner"}, "no service account 'runner'"),
        ({"model_volume": "models"}, "no persistent volume claim 'models'"),
        ({"node_selector": {"zone": "b"}}, "no node with nvidia.com/gpu takes these pods.*--node-selector"),
        ({"gpu_resource": "amd.com/gpu"}, "none of its 1 nodes has amd.com/gpu"),
    ],
)
def test_what_is_not_there_is_named_with_the_option_that_mends_it(cluster, tmp_path, options, words):
    add_node(cluster, "gpu", 4)
    with pytest.raises(MachineError, match=words):
        check(cluster, tmp_path, **options)


def test_everything_is_told_at_once(cluster, tmp_path):
    add_node(cluster, "small", 2)
    cluster.forbidden = {("create", "jobs"), ("get", "pods/log")}
    with pytest.raises(MachineError) as caught:
        check(cluster, tmp_path, image_pull_secret="registry")
    text = str(caught.value)
    assert "3 things" in text
    assert "may not create jobs, get pods/log" in text
    assert "needs 4 GPUs, and the largest node, small, has 2" in text
    assert "no Secret 'registry'" in text


def test_a_taint_that_is_not_tolerated_is_named_as_the_option_takes_it(cluster, tmp_path):
    add_node(cluster, "gpu", 8, {"key": "team", "value": "a", "effect": "NoSchedule"})
    with pytest.raises(MachineError, match="--toleration for team=a:NoSchedule"):
        check(cluster, tmp_path)
    check(cluster, tmp_path, tolerations=("team=a:NoSchedule",))


def test_a_quota_below_the_largest_candidate_is_named(cluster, tmp_path):
    add_node(cluster, "gpu", 8)
    cluster.add("resourcequotas", {"metadata": {"name": "gpus"}, "spec": {"hard": {"requests.nvidia.com/gpu": "2"}}})
    with pytest.raises(MachineError, match="the quota 'gpus' allows 2"):
        check(cluster, tmp_path)


@pytest.mark.parametrize(("mode", "passes"), [("WaitForFirstConsumer", True), ("Immediate", False)])
def test_a_claim_without_a_volume_passes_only_if_its_first_pod_binds_it(cluster, tmp_path, mode, passes):
    add_node(cluster, "gpu", 8)
    claim = {"metadata": {"name": "models"}, "spec": {"storageClassName": "fast"}, "status": {"phase": "Pending"}}
    cluster.add("persistentvolumeclaims", claim)
    cluster.add("storageclasses", {"metadata": {"name": "fast"}, "provisioner": "p", "volumeBindingMode": mode})
    if passes:
        check(cluster, tmp_path, model_volume="models")
        return
    with pytest.raises(MachineError, match="'models' is Pending"):
        check(cluster, tmp_path, model_volume="models")


def test_a_user_who_may_not_see_nodes_and_quotas_is_let_through(cluster, tmp_path):
    cluster.forbidden = {("list", "nodes"), ("list", "resourcequotas"), ("get", "secrets"), ("get", "namespaces")}
    check(cluster, tmp_path)


def test_an_expired_token_is_told_apart_from_a_cluster_that_is_gone(cluster, tmp_path):
    with pytest.raises(MachineError, match="does not accept the log-in of context 'test'"):
        check(cluster, tmp_path, token="expired")
    kubeconfig = write_kubeconfig(tmp_path / "other", "http://127.0.0.1:1")
    launcher = KubernetesLauncher(Deployment(mode="kubernetes", kubeconfig=str(kubeconfig)))
    with pytest.raises(MachineError, match=r"No API server answers at http://127\.0\.0\.1:1"):
        launcher.preflight(factories.experiment(), SPEC)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "There is no such file"),
        ("", "It is empty"),
        ("hello", "It is empty, or has not the fields"),
        ("[]", "cannot be read"),
        ("{clusters: [", "cannot be read"),
        ("{clusters: [], contexts: []}", "no cluster to run on"),
    ],
)
def test_a_kubeconfig_that_is_no_good_is_one_paragraph(tmp_path, text, words):
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    launcher = KubernetesLauncher(Deployment(mode="kubernetes", kubeconfig=str(path)))
    with pytest.raises(MachineError, match=words):
        launcher.preflight(factories.experiment(), SPEC)


def test_a_kubeconfig_that_is_a_folder_and_a_context_that_it_has_not_are_named(tmp_path):
    kubeconfig = str(write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1"))
    for deployment, words in (
        (Deployment(mode="kubernetes", kubeconfig=str(tmp_path)), "It is a folder"),
        (Deployment(mode="kubernetes", kubeconfig=kubeconfig, context="nope"), "no context 'nope'.*its contexts: test"),
    ):
        with pytest.raises(MachineError, match=words):
            KubernetesLauncher(deployment).preflight(factories.experiment(), SPEC)
