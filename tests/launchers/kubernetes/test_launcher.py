"""Launches on a small API server whose pods do what a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotuner import owner
from autotuner.core import FailureKind, ServerSpec
from autotuner.errors import AutotuneError, ConfigError, EngineError, MachineError
from autotuner.experiment import Deployment
from autotuner.launchers.kubernetes import launcher as launcher_module
from autotuner.launchers.kubernetes import leftovers, objects
from autotuner.launchers.kubernetes import server as server_module
from autotuner.launchers.kubernetes.launcher import KubernetesLauncher
from tests.clusters import ApiRefusalError, FakeCluster, fake_cluster, write_kubeconfig
from tests.kubelets import IMAGE_DIGEST, ContainerLog, ended_status, running_status, waiting_status

SPEC = ServerSpec("an/image:1", ("serve", "--port", "8000"), {"A": "$(B)"}, (), 8000, "/health", "m", gpus=2)
Start = Callable[..., KubernetesLauncher]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[KubernetesLauncher, Any]]]:
    """Serve a cluster whose pods do what a kubelet says, and give a launcher for it."""
    monkeypatch.setattr(server_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(leftovers, "notes_folder", lambda: tmp_path / "notes")
    with ExitStack() as cleanup:

        def serve(kubelet: Callable[..., None], **options: Any) -> tuple[KubernetesLauncher, FakeCluster]:
            cluster = cleanup.enter_context(fake_cluster(kubelet))
            kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", cluster.url)
            return KubernetesLauncher(Deployment(mode="kubernetes", kubeconfig=str(kubeconfig), **options)), cluster

        yield serve


def runs(*lines: bytes) -> Callable[[FakeCluster, dict[str, Any]], None]:
    """A kubelet whose container writes lines and goes on running."""

    def kubelet(cluster: FakeCluster, pod: dict[str, Any]) -> None:
        log = cluster.logs[pod["metadata"]["name"]] = ContainerLog()
        for line in lines:
            log.append(line)
        cluster.set_pod_status(pod, running_status(pod["spec"]["containers"][0]))

    return kubelet


def ends(exit_code: int, reason: str | None = None, message: str = "") -> Callable[[FakeCluster, dict[str, Any]], None]:
    """A kubelet whose container writes a line and ends."""

    def kubelet(cluster: FakeCluster, pod: dict[str, Any]) -> None:
        log = cluster.logs[pod["metadata"]["name"]] = ContainerLog()
        log.append(b"last words\n")
        log.end()
        status = ended_status(pod["spec"]["containers"][0], exit_code, reason)
        status["containerStatuses"][0]["state"]["terminated"]["message"] = message
        cluster.set_pod_status(pod, status)

    return kubelet


def shows(**status: Any) -> Callable[[FakeCluster, dict[str, Any]], None]:
    """A kubelet or scheduler that gives the pod this status."""
    return lambda cluster, pod: cluster.set_pod_status(pod, status)


def ignores(cluster: FakeCluster, pod: dict[str, Any]) -> None:
    """A kubelet that never sees the pod."""


def failure_of(launcher: KubernetesLauncher, log: Path) -> Any:
    with pytest.raises(EngineError) as caught, launcher.launch(SPEC, log):
        pass
    return caught.value.failure


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(6000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen")


def test_a_launch_is_one_job_whose_pod_is_gone_afterwards(start, log):
    launcher, cluster = start(runs(b"one\n", b"two\n"))
    with launcher.launch(SPEC, log) as server:
        assert server.url == "http://127.0.0.1:8000"
        (job,) = cluster.all("jobs")
        assert job["spec"]["backoffLimit"] == 0
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
        assert job["spec"]["activeDeadlineSeconds"] == 3600 + 2 * 600
        labels = job["spec"]["template"]["metadata"]["labels"]
        assert labels[objects.TRIAL_LABEL] == "007"
        assert labels[objects.RUN_LABEL].startswith("a-run-")
        assert len(job["metadata"]["name"]) <= 40
        wait_until(lambda: "two" in log.read_text())
    assert not cluster.all("jobs")
    assert not cluster.all("pods")
    text = log.read_text()
    assert text.index("one") < text.index("two")
    assert f"autotune: image an/image:1 is {IMAGE_DIGEST}" in text
    assert "runs on node gpu-a" in text


def test_the_job_belongs_to_the_config_map_of_its_run_which_the_end_of_the_run_deletes(start, log):
    launcher, cluster = start(runs())
    with launcher.run_block():
        with launcher.launch(SPEC, log), launcher.launch(SPEC, log):
            (config_map,) = cluster.all("configmaps")
            owners = {job["metadata"]["ownerReferences"][0]["uid"] for job in cluster.all("jobs")}
            assert owners == {config_map["metadata"]["uid"]}
            assert config_map["metadata"]["annotations"][objects.OWNER_ANNOTATION] == str(owner.this_process())
        assert cluster.all("configmaps")
    assert not cluster.all("configmaps")


def test_a_config_map_that_a_killed_run_left_is_replaced_with_all_it_owns(start, log):
    launcher, cluster = start(runs())
    run = objects.RunIdentity.of_log(log)
    left_behind = objects.config_map(run)
    left_behind["metadata"]["annotations"] = {objects.OWNER_ANNOTATION: "another-host/boot/1/1"}
    cluster.add("configmaps", left_behind)
    with launcher.launch(SPEC, log):
        (config_map,) = cluster.all("configmaps")
        assert config_map["metadata"]["annotations"][objects.OWNER_ANNOTATION] == str(owner.this_process())


def test_where_it_ran_is_recorded(start, log):
    launcher, _ = start(runs())
    with launcher.launch(SPEC, log):
        pass
    record = json.loads((log.parent / "pod.json").read_text())
    assert record["node"] == "gpu-a"
    assert record["image_digest"] == IMAGE_DIGEST
    assert record["args"][:1] == ["serve"]
    assert record["restarts"] == 0


@pytest.mark.parametrize(
    ("kubelet", "status", "line"),
    [
        (ends(3), 3, "last words"),
        (ends(0), 0, "last words"),
        (ends(137, "OOMKilled"), 137, "Out of memory: the kernel killed the container at its memory limit"),
        (
            ends(128, "StartError", 'exec: "serve": executable file not found in $PATH'),
            127,
            "executable file not found",
        ),
        (ends(128, "ContainerCannotRun", "permission denied"), 126, "permission denied"),
        (ends(128, "StartError", "nvidia-container-cli: device error"), 125, "nvidia-container-cli"),
    ],
)
def test_a_container_that_ends_gives_its_status_and_its_last_words(start, log, kubelet, status, line):
    launcher, _ = start(kubelet)
    with launcher.launch(SPEC, log) as server:
        assert server.exit_status() == status
        assert line in log.read_text()


IMAGE = {"name": "server", "image": "an/image:1"}
UNSCHEDULABLE = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."


def unscheduled(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [condition]}


@pytest.mark.parametrize(
    ("kubelet", "kind", "words"),
    [
        (shows(**waiting_status(IMAGE, "ImagePullBackOff", "Back-off pulling image")), "image-missing", "Back-off"),
        (shows(**waiting_status(IMAGE, "ErrImagePull", "rpc error: code = NotFound")), "image-missing", "NotFound"),
        (shows(**waiting_status(IMAGE, "CreateContainerConfigError", 'secret "s"')), "rejected", 'secret "s"'),
        (shows(**unscheduled('persistentvolumeclaim "models" not found')), "volume", "models"),
    ],
)
def test_what_the_cluster_refuses_is_a_failure_at_once(start, log, kubelet, kind, words):
    launcher, cluster = start(kubelet)
    failure = failure_of(launcher, log)
    assert failure.kind.value == kind
    assert words in failure.message
    assert failure.remedy
    assert not cluster.all("jobs")


@pytest.mark.parametrize(
    ("kubelet", "kind", "words"),
    [
        (shows(**unscheduled(UNSCHEDULABLE)), "unschedulable", "Insufficient nvidia.com/gpu"),
        (shows(**unscheduled("pod has unbound immediate PersistentVolumeClaims")), "volume", "unbound"),
        (ignores, "unschedulable", "It waited"),
    ],
)
def test_what_may_pass_is_waited_for_until_the_queue_timeout(start, log, kubelet, kind, words):
    launcher, _ = start(kubelet, queue_timeout=0.1)
    failure = failure_of(launcher, log)
    assert failure.kind.value == kind
    assert words in failure.message


def test_a_pod_that_waits_for_a_node_runs_when_one_is_free(start, log):
    def kubelet(cluster: FakeCluster, pod: dict[str, Any]) -> None:
        cluster.set_pod_status(pod, unscheduled(UNSCHEDULABLE))
        wait_until(lambda: log.exists() and "Insufficient" in log.read_text())
        runs()(cluster, pod)

    launcher, _ = start(kubelet)
    with launcher.launch(SPEC, log) as server:
        assert server.exit_status() is None
    assert log.read_text().count("Insufficient") == 1


QUOTA = (
    'pods "p" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu={}, '
    "used: requests.nvidia.com/gpu={}, limited: requests.nvidia.com/gpu=4"
)


@pytest.mark.parametrize(
    ("refusal", "kind", "timeout"),
    [
        (QUOTA.format(8, 0), "quota", 600.0),
        (QUOTA.format(2, 3), "quota", 0.1),
        ('admission webhook "policy.example" denied the request: no latest tags', "rejected", 600.0),
        ('pods "p" is forbidden: error looking up service account bench/x: not found', "rejected", 600.0),
    ],
)
def test_a_pod_that_is_not_admitted_is_a_failure_unless_it_may_fit_later(start, log, refusal, kind, timeout):
    launcher, cluster = start(ignores, queue_timeout=timeout)
    cluster.pod_refusal = refusal
    failure = failure_of(launcher, log)
    assert failure.kind.value == kind
    assert "forbidden" in failure.message or "denied" in failure.message


@pytest.mark.parametrize(
    ("refusal", "error", "words"),
    [
        (
            ApiRefusalError(403, "Forbidden", 'jobs.batch is forbidden: User "u" cannot create'),
            MachineError,
            "does not allow",
        ),
        (ApiRefusalError(422, "Invalid", "Job.batch is invalid: spec: Required value"), ConfigError, "refuses the Job"),
        (
            ApiRefusalError(403, "Forbidden", "exceeded quota: jobs, requested: count/jobs.batch=1"),
            EngineError,
            "quota",
        ),
        (ApiRefusalError(500, "InternalError", "etcdserver: request timed out"), MachineError, "etcdserver"),
    ],
)
def test_a_job_that_is_refused_is_named_for_what_it_is(start, log, refusal, error, words):
    launcher, cluster = start(ignores)
    cluster.job_refusal = refusal
    with pytest.raises(error, match=words), launcher.launch(SPEC, log):
        pass


def test_a_pod_that_disappears_under_load_was_evicted(start, log):
    launcher, cluster = start(runs())
    with launcher.launch(SPEC, log) as server:
        cluster.lose_pods()
        with pytest.raises(EngineError) as caught:
            wait_until(lambda: server.exit_status() is not None)
    assert caught.value.failure.kind is FailureKind.EVICTED


def test_a_job_that_is_ended_at_its_deadline_has_timed_out(start, log):
    launcher, cluster = start(runs())
    with launcher.launch(SPEC, log) as server:
        condition = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "It was too long"}
        cluster.all("jobs")[0]["status"] = {"conditions": [condition]}
        cluster.lose_pods()
        with pytest.raises(EngineError) as caught:
            wait_until(lambda: server.exit_status() is not None)
    assert caught.value.failure.kind is FailureKind.TRIAL_TIMED_OUT


def test_a_pod_that_was_replaced_is_not_taken_for_the_first_one(start, log):
    launcher, cluster = start(runs())
    with launcher.launch(SPEC, log) as server:
        (pod,) = cluster.all("pods")
        pod["metadata"] = {**pod["metadata"], "uid": "another"}
        with pytest.raises(EngineError, match="evicted"):
            wait_until(lambda: server.exit_status() is not None)


def test_a_token_that_expires_during_a_trial_ends_the_run(start, log, monkeypatch):
    launcher, cluster = start(runs())
    with launcher.launch(SPEC, log) as server:
        monkeypatch.setattr("tests.clusters.TOKEN", "another-token")
        with pytest.raises(MachineError, match=r"does not accept the log-in.*--resume"):
            wait_until(lambda: server.exit_status() is not None)
        cluster.lose_pods()


def test_an_address_that_cannot_be_reached_from_here_ends_the_run(start, log, monkeypatch):
    monkeypatch.setattr(server_module, "UNREACHABLE_SECONDS", 0.0)
    monkeypatch.setattr(server_module, "connection_error", lambda address, port: TimeoutError("timed out"))
    launcher, _ = start(runs())
    with launcher.launch(SPEC, log) as server:
        with pytest.raises(MachineError, match=r"127\.0\.0\.1:8000 cannot be reached from here"):
            server.exit_status()


def test_a_port_that_refuses_is_no_network_that_cannot_be_reached(start, log, monkeypatch):
    monkeypatch.setattr(server_module, "UNREACHABLE_SECONDS", 0.0)
    monkeypatch.setattr(server_module, "connection_error", lambda address, port: ConnectionRefusedError("refused"))
    launcher, _ = start(runs())
    with launcher.launch(SPEC, log) as server:
        assert server.exit_status() is None


def test_an_interrupt_while_the_pod_waits_leaves_no_job(start, log, monkeypatch):
    launcher, cluster = start(ignores)

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(server_module.KubernetesServer, "wait_until_running", interrupt)
    with pytest.raises(KeyboardInterrupt), launcher.launch(SPEC, log):
        pass
    assert not cluster.all("jobs")
    assert not cluster.all("pods")


def test_a_server_without_an_image_is_refused_before_anything_is_created(start, log):
    launcher, cluster = start(ignores)
    with (
        pytest.raises(AutotuneError, match="image"),
        launcher.launch(ServerSpec(None, ("x",), {}, (), 1, "/", "m"), log),
    ):
        pass
    assert not cluster.all("jobs")


def test_trials_keep_to_nodes_of_their_own_unless_nodes_are_shared(start, log):
    for share_nodes in (False, True):
        launcher, cluster = start(runs(), share_nodes=share_nodes)
        with launcher.launch(SPEC, log):
            affinity = cluster.all("jobs")[0]["spec"]["template"]["spec"].get("affinity")
        assert (affinity is None) is share_nodes


def test_the_removal_of_a_job_outlives_an_api_server_that_is_gone(start, log, monkeypatch):
    launcher, cluster = start(runs())
    monkeypatch.setattr(launcher_module, "REMOVAL_SECONDS", 0.1)
    with launcher.launch(SPEC, log):
        cluster.forbidden.add(("delete", "jobs"))
        cluster.lose_pods()


def test_what_a_killed_run_left_is_deleted_by_the_next_command(start, log, tmp_path):
    launcher, cluster = start(runs())
    killed = owner.Owner(owner.this_process().host, "an earlier boot", 1, "1")
    with launcher.launch(SPEC, log):
        (note,) = leftovers.read_notes()
        assert not list(leftovers.remove_leftovers())
        leftovers.save_note(replace(note, leader=str(killed)))
        cluster.all("configmaps")[0]["metadata"]["annotations"][objects.OWNER_ANNOTATION] = str(killed)
        assert list(leftovers.remove_leftovers()) == [f"bench/{note.name}"]
        assert not cluster.all("jobs")
        assert not cluster.all("pods")
    assert not list(leftovers.read_notes())


def test_a_config_map_that_another_run_has_taken_over_is_kept(start, log):
    launcher, cluster = start(runs())
    with launcher.launch(SPEC, log):
        (note,) = leftovers.read_notes()
        leftovers.save_note(replace(note, leader=str(owner.Owner(owner.this_process().host, "earlier", 1, "1"))))
        assert not list(leftovers.remove_leftovers())
        assert cluster.all("configmaps")


def test_a_cluster_that_is_gone_keeps_its_note_for_the_next_time(start, tmp_path):
    start(runs())
    kubeconfig = write_kubeconfig(tmp_path / "other", "http://127.0.0.1:1")
    killed = str(owner.Owner(owner.this_process().host, "earlier", 1, "1"))
    leftovers.save_note(leftovers.ClusterNote(str(kubeconfig), None, "bench", "autotune-1", killed))
    assert not list(leftovers.remove_leftovers())
    assert [note.name for note in leftovers.stale_notes()] == ["autotune-1"]
