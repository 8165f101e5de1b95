"""What a real cluster does to a pod, each named rightly, and nothing left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotuner.core import Failure, FailureKind, ServerSpec
from autotuner.errors import EngineError, MachineError
from autotuner.experiment import Deployment
from autotuner.launchers.kubernetes.launcher import KubernetesLauncher
from autotuner.launchers.protocol import Server
from tests import factories
from tests.cluster.control_plane import GPUS_PER_NODE, NAMESPACE, STRANGER, ControlPlane, objects_of_runs

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("notes")]

WAIT = 120
SLEEP = ("sleep", "600")
SPEC = ServerSpec("an/image:1", SLEEP, {}, (), 8000, "/health", "m", gpus=2, entrypoint="/usr/bin/env")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "a-run" / "trials" / "007"
    folder.mkdir(parents=True)
    return folder / "server.log"


def launcher(kubeconfig: str, time_limit: float = 600.0, **options: Any) -> KubernetesLauncher:
    return KubernetesLauncher(Deployment(mode="kubernetes", kubeconfig=kubeconfig, **options), time_limit)


@contextmanager
def launched(used: KubernetesLauncher, spec: ServerSpec, log: Path) -> Iterator[Server]:
    """A launch in a run of its own."""
    with used.run_block(), used.launch(spec, log) as server:
        yield server


def failure_of(kubeconfig: str, spec: ServerSpec, log: Path, **options: Any) -> Failure:
    """The failure of a launch that the cluster does not run."""
    with pytest.raises(EngineError) as raised, launched(launcher(kubeconfig, **options), spec, log):
        pass
    return raised.value.failure


def is_empty(plane: ControlPlane) -> bool:
    """Whether no object of a run is in the namespace."""
    return not objects_of_runs(plane)


def test_an_image_that_cannot_be_pulled_ends_the_launch_at_once(kubeconfig: str, log: Path, plane: ControlPlane):
    failure = failure_of(kubeconfig, replace(SPEC, image="missing/image:1"), log)
    assert failure.kind is FailureKind.IMAGE_MISSING
    assert "missing/image:1" in failure.message
    assert is_empty(plane)


def test_a_pod_that_finds_no_node_waits_as_long_as_the_queue_may_take(kubeconfig: str, log: Path, plane: ControlPlane):
    failure = failure_of(kubeconfig, SPEC, log, queue_timeout=2, node_selector={"no-such": "label"})
    assert failure.kind is FailureKind.UNSCHEDULABLE
    assert "2 s" in failure.message
    assert "node selector" in failure.message or "node affinity" in failure.message
    assert is_empty(plane)


def test_a_candidate_larger_than_every_node_is_refused_before_anything_starts(kubeconfig: str, plane: ControlPlane):
    experiment = factories.experiment()
    too_large = replace(SPEC, gpus=GPUS_PER_NODE + 1)
    admin = str(plane.kubeconfig("admin-token"))
    with pytest.raises(MachineError, match="needs 5 GPUs, and the largest node, gpu-a, has 4"):
        launcher(admin).preflight(experiment, too_large)
    launcher(admin).preflight(experiment, SPEC)
    launcher(kubeconfig).preflight(experiment, SPEC)
    assert is_empty(plane)


def test_a_full_quota_is_named(kubeconfig: str, log: Path, plane: ControlPlane):
    quotas = f"/api/v1/namespaces/{NAMESPACE}/resourcequotas"
    name = "no-gpus"
    head = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}}
    plane.create(quotas, {**head, "spec": {"hard": {"requests.nvidia.com/gpu": "1"}}})
    try:
        failure = failure_of(kubeconfig, SPEC, log, queue_timeout=60)
    finally:
        with plane.client() as client:
            client.delete(f"{quotas}/{name}").raise_for_status()
    assert failure.kind is FailureKind.QUOTA
    assert name in failure.message


@pytest.mark.parametrize(
    ("image", "kind", "words"),
    [
        ("out-of-memory/image:1", FailureKind.OUT_OF_MEMORY_AT_START, "OOMKilled"),
        ("evicted/image:1", FailureKind.EVICTED, "low on resource"),
    ],
)
def test_a_pod_that_its_node_ends_is_named(kubeconfig: str, log: Path, plane: ControlPlane, image, kind, words):
    spec = replace(SPEC, image=image)
    if kind is FailureKind.EVICTED:
        failure = failure_of(kubeconfig, spec, log)
        assert (failure.kind, words in failure.message) == (kind, True)
    else:
        with launched(launcher(kubeconfig), spec, log) as server:
            assert server.exit_status() == 137
        assert words in log.read_text()
    assert is_empty(plane)


def wait_for_exit(server: Server) -> None:
    end = time.monotonic() + WAIT
    while server.exit_status() is None and time.monotonic() < end:
        time.sleep(0.2)


def test_the_cluster_ends_a_launch_at_its_deadline(kubeconfig: str, log: Path, plane: ControlPlane):
    with (
        pytest.raises(EngineError) as raised,
        launched(launcher(kubeconfig, time_limit=3, queue_timeout=1), SPEC, log) as one,
    ):
        wait_for_exit(one)
    assert raised.value.failure.kind is FailureKind.TRIAL_TIMED_OUT
    assert "deadline" in raised.value.failure.message
    assert is_empty(plane)


def test_a_user_without_the_role_is_told_what_is_missing(plane: ControlPlane):
    with pytest.raises(MachineError, match="create jobs") as raised:
        launcher(str(plane.kubeconfig(STRANGER))).preflight(factories.experiment(), SPEC)
    assert "get pods/log" in str(raised.value)


def test_a_namespace_that_is_not_there_is_named(plane: ControlPlane):
    with pytest.raises(MachineError, match="no namespace 'elsewhere'"):
        launcher(str(plane.kubeconfig("admin-token", "elsewhere"))).preflight(factories.experiment(), SPEC)


def test_an_expired_token_is_named(plane: ControlPlane):
    with pytest.raises(MachineError, match="does not accept the log-in"):
        launcher(str(plane.kubeconfig("yesterday"))).preflight(factories.experiment(), SPEC)
