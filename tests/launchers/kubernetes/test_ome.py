"""InferenceServices on a small API server with a stand-in for OME's controller."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotuner import owner
from autotuner.core import FailureKind, ServerSpec, ignore_progress
from autotuner.errors import EngineError, MachineError
from autotuner.experiment import Deployment
from autotuner.launchers.kubernetes import leftovers, objects
from autotuner.launchers.kubernetes import server as server_module
from autotuner.launchers.kubernetes.ome import OmeLauncher
from autotuner.run_setup import RunSetup
from autotuner.search.launch import Launch
from tests import factories
from tests.clusters import FakeCluster, fake_cluster, run_process, write_kubeconfig
from tests.deploy.manifest_schema import problems
from tests.kubelets import ContainerLog, ended_status, running_status
from tests.ome_controllers import Controller, complains, makes_pod

SPEC = ServerSpec(
    "an/image:1",
    (),
    {},
    (),
    8000,
    "/health",
    "m",
    ("-m", "serve", "--model", "$(MODEL_PATH)", "--json", "$(X)"),
    gpus=2,
    entrypoint="python3",
)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[OmeLauncher, FakeCluster]]]:
    """Serve a cluster with a controller and a kubelet, and give a launcher for it."""
    monkeypatch.setattr(server_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(leftovers, "notes_folder", lambda: tmp_path / "notes")
    with ExitStack() as cleanup:

        def serve(
            controller: Controller, kubelet: Callable[..., None] = runs, **options: Any
        ) -> tuple[OmeLauncher, FakeCluster]:
            cluster = cleanup.enter_context(fake_cluster(kubelet))
            cluster.controllers = {"inferenceservices": controller, "servingruntimes": lambda cluster, runtime: None}
            kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", cluster.url)
            return OmeLauncher(Deployment(mode="ome", kubeconfig=str(kubeconfig), **options)), cluster

        yield serve


def runs(cluster: FakeCluster, pod: dict[str, Any]) -> None:
    """A kubelet whose container runs."""
    cluster.logs[pod["metadata"]["name"]] = ContainerLog()
    cluster.set_pod_status(pod, running_status(pod["spec"]["containers"][0]))


def restarts(cluster: FakeCluster, pod: dict[str, Any]) -> None:
    """A kubelet that starts an ended container again, as those of Deployments."""
    log = cluster.logs[pod["metadata"]["name"]] = ContainerLog()
    log.append(b"last words\n")
    log.end()
    container = pod["spec"]["containers"][0]
    status = running_status(container)
    (ended,) = ended_status(container, 3)["containerStatuses"]
    status["containerStatuses"][0] |= {"restartCount": 1, "lastState": ended["state"]}
    cluster.set_pod_status(pod, status)


def failure_of(launcher: OmeLauncher, log: Path) -> Any:
    with pytest.raises(EngineError) as caught, launcher.launch(SPEC, log):
        pass
    return caught.value.failure


def left_on(cluster: FakeCluster) -> list[str]:
    kinds = ("inferenceservices", "servingruntimes", "pods", "configmaps")
    return [plural for plural in kinds if cluster.all(plural)]


def test_a_launch_is_one_inference_service_whose_pods_are_gone_afterwards(start, log):
    launcher, cluster = start(makes_pod("/models/m"))
    with launcher.run_block():
        with launcher.launch(SPEC, log) as server:
            assert server.url == "http://127.0.0.1:8000"
            assert server.exit_status() is None
            (service,), (config_map,) = cluster.all("inferenceservices"), cluster.all("configmaps")
            engine = service["spec"]["engine"]
            assert engine["runner"]["command"] == ["python3"]
            assert engine["runner"]["args"] == ["-m", "serve", "--model", "$(MODEL_PATH)", "--json", "$$(X)"]
            assert (engine["minReplicas"], engine["maxReplicas"]) == (1, 1)
            assert service["spec"]["runtime"]["name"] == service["metadata"]["name"]
            assert "acceleratorSelector" not in service["spec"]
            assert len(service["metadata"]["name"]) <= 40
            assert engine["labels"] == service["metadata"]["labels"]
            assert engine["labels"][objects.TRIAL_LABEL] == "007"
            owners = {
                document["metadata"]["ownerReferences"][0]["uid"]
                for document in (*cluster.all("inferenceservices"), *cluster.all("servingruntimes"))
            }
            assert owners == {config_map["metadata"]["uid"]}
        assert left_on(cluster) == ["configmaps"]
    assert not left_on(cluster)
    record = json.loads((log.parent / "pod.json").read_text())
    assert (record["node"], record["command"]) == ("gpu-a", ["python3"])


def test_the_documents_of_a_launch_keep_to_the_definitions_of_ome(tmp_path):
    launcher = OmeLauncher(Deployment(mode="ome", kubeconfig="unused"))
    run = objects.RunIdentity.of_log(tmp_path / "a-run" / "trials" / "007" / "server.log")
    documents = launcher._manifests("at-1", run, "a-uid", SPEC, trial="007")
    assert [document["kind"] for document in documents] == ["ServingRuntime", "InferenceService"]
    assert not [text for document in documents for text in problems(document)]


def test_a_runtime_that_is_named_is_used_and_never_deleted(start, log):
    launcher, cluster = start(makes_pod("/models/m"), serving_runtime="srt")
    cluster.add("servingruntimes", {"metadata": {"name": "srt"}})
    with launcher.launch(SPEC, log):
        (service,) = cluster.all("inferenceservices")
        assert service["spec"]["runtime"] == {"name": "srt"}
    assert [runtime["metadata"]["name"] for runtime in cluster.all("servingruntimes")] == ["srt"]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("ModelReconcileError", FailureKind.MODEL_NOT_FOUND),
        ("RuntimeValidationError", FailureKind.REJECTED),
        ("AcceleratorClassError", FailureKind.REJECTED),
    ],
)
def test_what_ome_says_only_in_an_event_ends_the_launch(start, log, reason, kind):
    launcher, cluster = start(complains(reason, "it does not fit"))
    failure = failure_of(launcher, log)
    assert (failure.kind, failure.message) == (kind, f"{reason}: it does not fit")
    assert failure.remedy
    assert left_on(cluster) == ["configmaps"]


def test_a_quota_refuses_the_pod_of_the_replica_set_that_ome_makes(start, log):
    message = (
        'pods "x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=2, '
        "used: requests.nvidia.com/gpu=0, limited: requests.nvidia.com/gpu=1"
    )
    launcher, _ = start(complains("FailedCreate", message, kind="ReplicaSet", suffix="-engine-5d4f"))
    assert failure_of(launcher, log).kind is FailureKind.QUOTA


def test_an_error_that_ome_tries_again_is_waited_for_and_then_quoted(start, log):
    launcher, _ = start(complains("InternalError", "conflict"), queue_timeout=0.05)
    failure = failure_of(launcher, log)
    assert failure.kind is FailureKind.REJECTED
    assert "InternalError: conflict" in failure.message


def test_without_pod_or_event_the_launch_says_that_ome_made_none(start, log):
    launcher, _ = start(lambda cluster, service: None, queue_timeout=0.05)
    failure = failure_of(launcher, log)
    assert failure.kind is FailureKind.UNSCHEDULABLE
    assert "OME has made no pod" in failure.message


def test_a_container_that_is_started_again_has_ended(start, log):
    launcher, _ = start(makes_pod("/models/m"), restarts)
    with launcher.launch(SPEC, log) as server:
        assert server.exit_status() == 3
    assert "last words" in log.read_text()


def preflight_error(launcher: OmeLauncher) -> str:
    with pytest.raises(MachineError) as caught:
        launcher.preflight(factories.experiment(), SPEC)
    return str(caught.value)


def test_before_a_run_a_cluster_without_ome_is_told(start):
    launcher, cluster = start(makes_pod("/models/m"))
    cluster.missing = {"inferenceservices", "servingruntimes", "basemodels", "clusterbasemodels"}
    assert "install OME with its custom resource definitions" in preflight_error(launcher)


def test_before_a_run_runtime_model_and_access_are_looked_at(start):
    launcher, cluster = start(makes_pod("/models/m"), serving_runtime="srt")
    cluster.add("nodes", gpu_node())
    cluster.forbidden = {("create", "inferenceservices")}
    cluster.add("clusterbasemodels", {"metadata": {"name": "m"}, "status": {"state": "In_Transit"}})
    error = preflight_error(launcher)
    assert "create inferenceservices" in error
    assert "no ServingRuntime or ClusterServingRuntime 'srt'" in error
    assert "'m' is not ready but In_Transit" in error
    cluster.forbidden = set()
    cluster.objects["clusterbasemodels"]["m"]["status"] = {"state": "Ready"}
    cluster.add("clusterservingruntimes", {"metadata": {"name": "srt"}})
    launcher.preflight(factories.experiment(), SPEC)
    del cluster.objects["clusterbasemodels"]["m"]
    assert "no BaseModel or ClusterBaseModel 'm'" in preflight_error(launcher)


def gpu_node() -> dict[str, Any]:
    return {
        "metadata": {"name": "gpu-a", "labels": {}},
        "spec": {},
        "status": {"allocatable": {"nvidia.com/gpu": "2"}},
    }


def test_what_a_killed_run_left_is_removed_by_the_next_command(start, log, monkeypatch):
    launcher, cluster = start(makes_pod("/models/m"))
    leader = replace(owner.this_process(), start_time="0")  # an earlier process of that number
    monkeypatch.setattr(objects, "leading_process", lambda: leader)
    monkeypatch.setattr(server_module, "LOG_SECONDS", 0)
    monkeypatch.setattr(OmeLauncher, "_remove", lambda self, client, name: None)  # it was killed
    with launcher.launch(SPEC, log):
        pass
    assert cluster.all("inferenceservices")
    assert list(leftovers.remove_leftovers())
    assert not left_on(cluster)


@pytest.mark.processes
def test_a_trial_measures_the_pod_that_ome_made(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(leftovers, "notes_folder", lambda: tmp_path / "notes")
    with fake_cluster(run_process) as cluster:
        # the simulated engine takes the name of a bundled model where others take a folder
        cluster.controllers = {"inferenceservices": makes_pod("llama-3.1-8b"), "servingruntimes": lambda *_: None}
        cluster.add("clusterbasemodels", {"metadata": {"name": "llama-3.1-8b"}, "status": {"state": "Ready"}})
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", cluster.url)
        experiment = factories.experiment(
            model={"id_or_path": "llama-3.1-8b"},
            deployment={"mode": "ome", "kubeconfig": str(kubeconfig), "base_model": "llama-3.1-8b"},
            runtime={"image": "autotune:1", "executable": sys.executable, "extra_args": ["--load-seconds", "0"]},
            parameters={"max-running-requests": [8]},
            benchmark={
                "traffic_scenarios": ["D(20,5)"],
                "num_concurrency": [2],
                "duration": 0.3,
                "warmup": 0.0,
                "max_requests": 10,
            },
        )
        setup = RunSetup.from_experiment(experiment)
        setup.preflight(tmp_path)
        (candidate,) = setup.space.candidates
        with setup.executor(ignore_progress) as executor:
            executor.submit(1, Launch(candidate), tmp_path / "a-run" / "trials" / "001")
            trial = executor.wait_for_trial()
        assert not left_on(cluster)
    assert trial.measurement.failure is None
    assert trial.measurement.load_points
    record = json.loads((tmp_path / "a-run" / "trials" / "001" / "pod.json").read_text())
    assert record["command"]
    assert "$(MODEL_PATH)" in record["args"]
