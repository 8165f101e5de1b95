"""The pod of a server, as a template: that of a trial's Job, and of the winner's Deployment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from autotuner.core import Mount, ServerSpec
from autotuner.deploy.kubernetes.options import ClusterOptions
from autotuner.deploy.port import ANY_ADDRESS, with_host
from autotuner.deploy.shell import container_command
from autotuner.errors import ConfigError
from autotuner.kubernetes_values import check_variable, quantity, without_expansion

CONTAINER = "server"
PORT_NAME = "http"
SHARED_MEMORY = "/dev/shm"
START_PROBE_SECONDS = 5
VISIBLE_DEVICES = ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES")
"""Variables of a process that choose GPUs by their index; in a pod the device plugin chooses them."""


def pod_template(
    server: ServerSpec,
    options: ClusterOptions,
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str] | None = None,
    restart_policy: Literal["Always", "Never"] = "Always",
    start_timeout: float = 600.0,
    apart_from: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Metadata and specification of the server's pod.

    With `restart_policy` Always Kubernetes starts a server again that does not answer, or that is not ready
    after `start_timeout` seconds; with Never it only tells whether the server is ready. No pod that has the
    labels `apart_from` is on the same node. ConfigError for a server without an image, for a model that is
    a folder of this machine without a model volume, and for names and sizes that Kubernetes refuses.
    """
    pod_volumes, mounts = volumes(server, options)
    return {
        "metadata": {"labels": dict(labels), **({"annotations": dict(annotations)} if annotations else {})},
        "spec": {
            "restartPolicy": restart_policy,
            # a Service called vllm would otherwise set VLLM_PORT to an address, and vLLM would not start
            "enableServiceLinks": False,
            **access(options),
            **placement(server, options, apart_from),
            **network(server),
            "containers": [
                {
                    "name": CONTAINER,
                    **container(server, options, mounts),
                    **probes(server, restart_policy, start_timeout),
                }
            ],
            "volumes": pod_volumes,
        },
    }


def container(server: ServerSpec, options: ClusterOptions, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    """The server as a container, but for its name and probes."""
    if server.image is None:
        raise ConfigError(
            "This server has no container image.",
            why="It ran as a process; a pod needs an image.",
            remedy="Give the runtime's image: --set runtime.image=NAME:TAG.",
        )
    reachable = with_host(server, ANY_ADDRESS)
    command = {} if server.entrypoint is None else {"command": [without_expansion(server.entrypoint)]}
    return {
        "image": server.image,
        **command,
        "args": [without_expansion(word) for word in container_command(reachable)],
        "env": environment(server, options),
        "ports": [{"name": PORT_NAME, "containerPort": server.port, "protocol": "TCP"}],
        "resources": resources(server, options),
        "volumeMounts": mounts,
        # the last lines of the log stand in the pod's status when the server ends
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def environment(server: ServerSpec, options: ClusterOptions) -> list[dict[str, Any]]:
    """The variables of a container; the values of secrets come from the Secret of the options."""
    chosen = VISIBLE_DEVICES if server.devices else ()
    plain = {name: value for name, value in server.env.items() if name not in (*server.secrets, *chosen)}
    plain = {"PYTHONUNBUFFERED": "1", **plain}
    try:
        for name in (*plain, *server.secrets):
            check_variable(name)
    except ValueError as error:
        raise ConfigError(f"{error}.", remedy="Take it out of runtime.env.") from error
    return [
        *({"name": name, "value": without_expansion(value)} for name, value in plain.items()),
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": options.secret, "key": name}}}
            for name in server.secrets
        ),
    ]


def resources(server: ServerSpec, options: ClusterOptions) -> dict[str, Any]:
    """GPUs and memory that the pod gets, all as strings; requests equal limits."""
    limits = {options.gpu_resource: str(server.gpus)} if server.gpus else {}
    if server.memory is not None:
        limits["memory"] = quantity(server.memory)
    return {"requests": limits, "limits": dict(limits)} if limits else {}


def shared_memory(server: ServerSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """The volume that is the container's shared memory, and its mount; NCCL needs more than a container's 64 MB."""
    medium = {"medium": "Memory", **({"sizeLimit": quantity(server.shm_size)} if server.shm_size else {})}
    name = "shared-memory"
    return {"name": name, "emptyDir": medium}, {"name": name, "mountPath": SHARED_MEMORY}


def volumes(server: ServerSpec, options: ClusterOptions) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The pod's volumes and the container's mounts: shared memory, then the model, and the runtime's own mounts."""
    pairs = [shared_memory(server)]
    of_model = [mount for mount in server.mounts if mount.is_model]
    # folders that links in the model's folder lead to follow it, and are in no volume
    pairs += [_model_volume(of_model[0], options)] if of_model else []
    for number, mount in enumerate((mount for mount in server.mounts if not mount.is_model), start=1):
        name = f"mount-{number}"
        place = {"name": name, "mountPath": mount.container, "readOnly": mount.read_only}
        pairs.append(({"name": name, "hostPath": {"path": mount.host}}, place))
    return [volume for volume, _ in pairs], [place for _, place in pairs]


def _model_volume(mount: Mount, options: ClusterOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    if options.model_volume is not None:
        return options.model_volume.mounted("model", mount)
    if mount.read_only:
        raise ConfigError(
            f"The model is the folder {mount.host} of this machine, which the cluster's nodes do not have.",
            why="No model volume was given.",
            remedy="Give --model-volume CLAIM[:PATH] for a persistent volume claim that holds the model's files, or "
            "--model-volume hostPath:/FOLDER for a folder that every node has.",
        )
    # the cache of downloads, which a container that starts again finds, and a new pod does not
    return {"name": "model", "emptyDir": {}}, {"name": "model", "mountPath": mount.container}


def network(server: ServerSpec) -> dict[str, Any]:
    """The node's own network where the runtime asks for the host's."""
    return {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if server.network == "host" else {}


def access(options: ClusterOptions) -> dict[str, Any]:
    """The account and the registry login of a pod; without an account it gets no token of the API."""
    pull = {"imagePullSecrets": [{"name": options.image_pull_secret}]} if options.image_pull_secret else {}
    if options.service_account is None:
        return {"automountServiceAccountToken": False, **pull}
    return {"serviceAccountName": options.service_account, **pull}


def placement(
    server: ServerSpec, options: ClusterOptions, apart_from: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Where the pod goes; one with GPUs tolerates the taint that keeps other pods off nodes with GPUs."""
    gpu_taint = {"key": options.gpu_resource, "operator": "Exists", "effect": "NoSchedule"}
    tolerations = [gpu_taint] if server.gpus else []
    tolerations += [toleration.manifest for toleration in options.tolerations if toleration.manifest not in tolerations]
    term = {"labelSelector": {"matchLabels": dict(apart_from or {})}, "topologyKey": "kubernetes.io/hostname"}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return {
        **({"nodeSelector": dict(options.node_selector)} if options.node_selector else {}),
        **({"tolerations": tolerations} if tolerations else {}),
        **({"affinity": affinity} if apart_from else {}),
    }


def probes(server: ServerSpec, restart_policy: Literal["Always", "Never"], start_timeout: float) -> dict[str, Any]:
    """The container's probes; only of readiness where it is not started again."""
    check = {"httpGet": {"path": server.ready_path, "port": PORT_NAME}}
    readiness = {**check, "periodSeconds": START_PROBE_SECONDS, "timeoutSeconds": 5, "failureThreshold": 3}
    if restart_policy == "Never":
        return {"readinessProbe": readiness}
    attempts = max(1, math.ceil(start_timeout / START_PROBE_SECONDS))
    startup = {**check, "periodSeconds": START_PROBE_SECONDS, "timeoutSeconds": 5, "failureThreshold": attempts}
    # a server under full load answers late, and must not be killed for it
    liveness = {**check, "periodSeconds": 30, "timeoutSeconds": 30, "failureThreshold": 5}
    return {"startupProbe": startup, "readinessProbe": readiness, "livenessProbe": liveness}
