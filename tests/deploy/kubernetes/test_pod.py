import pytest

from autotuner.core import Mount
from autotuner.deploy.kubernetes import ClusterOptions, access_documents, deployment_documents, pod_template
from autotuner.errors import ConfigError
from autotuner.kubernetes_values import ModelVolume, Toleration
from tests.deploy.manifest_schema import problems
from tests.deploy.servers import spec

LABELS = {"app": "x"}
NO_OPTIONS = ClusterOptions()


def pod(options: ClusterOptions = NO_OPTIONS, /, restart_policy="Always", apart_from=None, **changes):
    return pod_template(
        spec(**changes), options, labels=LABELS, restart_policy=restart_policy, start_timeout=601, apart_from=apart_from
    )["spec"]


def server(options: ClusterOptions = NO_OPTIONS, /, **changes):
    return pod(options, **changes)["containers"][0]


def test_a_pod_has_the_arguments_of_the_server_at_an_address_that_others_reach():
    container = server(container_argv=("/m", "--host", "127.0.0.1", "--port", "8000", "--x", "$(y)"))
    assert container["args"] == ["/m", "--host", "0.0.0.0", "--port", "8000", "--x", "$$(y)"]
    assert "command" not in container
    assert server(entrypoint="/opt/bin/vllm")["command"] == ["/opt/bin/vllm"]


def test_gpus_and_sizes_are_quantities_in_text():
    container = server(gpus=4, memory="64g")
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "4", "memory": "64Gi"}
    assert server(ClusterOptions(gpu_resource="amd.com/gpu"))["resources"]["limits"] == {"amd.com/gpu": "2"}
    assert server(gpus=0)["resources"] == {}
    assert pod(shm_size="16g")["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}


def test_secrets_are_names_of_keys_and_the_devices_of_a_process_are_left_to_the_cluster(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    env = {"CUDA_VISIBLE_DEVICES": "2,3", "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "A": "$$"}
    variables = server(ClusterOptions(secret="tokens"), env=env, devices=(2, 3))["env"]
    assert variables == [
        {"name": "PYTHONUNBUFFERED", "value": "1"},
        {"name": "A", "value": "$$$"},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "HF_TOKEN"}}},
    ]


@pytest.mark.parametrize("name", ["A B", "1A", "A=B", ""])
def test_a_variable_that_kubernetes_does_not_take_is_refused(name):
    with pytest.raises(ConfigError, match="takes no environment variable"):
        server(env={name: "1"})


def test_the_model_comes_from_a_claim_at_the_folder_that_the_command_names():
    model = Mount("/home/me/llama", "/home/me/llama", is_model=True)
    linked = Mount("/home/me/blobs", "/home/me/blobs", is_model=True)
    claim = pod(ClusterOptions(model_volume=ModelVolume("models", "llama")), mounts=(model, linked))
    assert claim["volumes"][1:] == [
        {"name": "model", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}}
    ]
    place = {"name": "model", "mountPath": "/home/me/llama", "readOnly": True}
    assert claim["containers"][0]["volumeMounts"][1:] == [{**place, "subPath": "llama"}]
    folder = pod(ClusterOptions(model_volume=ModelVolume(path="/raid/llama")), mounts=(model,))
    assert folder["volumes"][1:] == [{"name": "model", "hostPath": {"path": "/raid/llama"}}]
    assert folder["containers"][0]["volumeMounts"][1:] == [place]


def test_a_model_that_only_this_machine_has_is_refused_and_one_to_download_is_not():
    with pytest.raises(ConfigError, match=r"folder /m of this machine") as caught:
        pod(mounts=(Mount("/m", "/m", is_model=True),))
    assert "--model-volume" in caught.value.remedy
    cache = Mount("/home/me/.cache/huggingface", "/root/.cache/huggingface", read_only=False, is_model=True)
    assert pod(mounts=(cache,))["volumes"][1] == {"name": "model", "emptyDir": {}}


def test_a_server_without_an_image_is_refused():
    with pytest.raises(ConfigError, match="no container image"):
        pod(image=None)


def test_a_pod_goes_where_the_options_say():
    options = ClusterOptions(
        service_account="bench",
        image_pull_secret="registry",
        node_selector={"nvidia.com/gpu.product": "NVIDIA-H200"},
        tolerations=(Toleration("spot"), Toleration("nvidia.com/gpu", effect="NoSchedule")),
    )
    placed = pod(options, apart_from={"autotune/run": "3f2a"})
    assert placed["serviceAccountName"] == "bench"
    assert placed["imagePullSecrets"] == [{"name": "registry"}]
    assert placed["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H200"}
    assert [toleration["key"] for toleration in placed["tolerations"]] == ["nvidia.com/gpu", "spot"]
    (term,) = placed["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"] == {"matchLabels": {"autotune/run": "3f2a"}}


def test_a_pod_alone_has_no_token_and_no_affinity():
    plain = pod(gpus=0)
    assert plain["automountServiceAccountToken"] is False
    assert not {"affinity", "nodeSelector", "tolerations", "hostNetwork"} & set(plain)
    assert pod(network="host")["hostNetwork"] is True


def test_a_deployed_server_is_started_again_and_one_of_a_trial_is_not():
    assert server()["startupProbe"]["failureThreshold"] == 121
    assert "livenessProbe" in server()
    trial = pod(restart_policy="Never")
    assert trial["restartPolicy"] == "Never"
    assert [key for key in trial["containers"][0] if key.endswith("Probe")] == ["readinessProbe"]


def test_a_deployment_and_its_service_find_the_same_pods():
    deployment, service = deployment_documents(spec(), ClusterOptions(namespace="bench"), name="tiny-vllm")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]):
        assert selector.items() <= labels.items()
    assert {document["metadata"]["namespace"] for document in (deployment, service)} == {"bench"}
    assert service["spec"]["ports"][0]["port"] == 8000
    assert [problems(document) for document in (deployment, service)] == [[], []]


def test_the_rights_for_trials_are_those_of_one_namespace():
    documents = access_documents(ClusterOptions(namespace="bench", service_account="tuner"), ome=True)
    assert [document["kind"] for document in documents] == ["ServiceAccount", "Role", "RoleBinding"]
    assert documents[2]["subjects"] == [{"kind": "ServiceAccount", "name": "tuner", "namespace": "bench"}]
    assert any(rule["apiGroups"] == ["ome.io"] for rule in documents[1]["rules"])
    assert all("secrets" not in rule["resources"] for rule in documents[1]["rules"])
    assert [problems(document) for document in documents] == [[], [], []]
    assert len(access_documents(ClusterOptions())[1]["rules"]) == 3


def test_the_check_of_manifests_finds_what_is_wrong():
    (deployment, _) = deployment_documents(spec(), ClusterOptions(), name="tiny")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["argz"] = container.pop("args")
    container["resources"]["limits"]["nvidia.com/gpu"] = 2
    del deployment["spec"]["selector"]
    texts = "\n".join(problems(deployment))
    for part in ("argz does not exist", "nvidia.com/gpu is no text", "selector is missing"):
        assert part in texts
