"""What a cluster lacks for a run, asked before anything starts, and told all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lightkube import Client, codecs
from lightkube.core.exceptions import ApiError
from lightkube.resources.core_v1 import Namespace, Node, PersistentVolumeClaim, ResourceQuota, Secret, ServiceAccount

from autotuner.core import ServerSpec
from autotuner.deploy.kubernetes.options import ClusterOptions
from autotuner.errors import MachineError, as_sentence
from autotuner.launchers.kubernetes import connection
from autotuner.launchers.kubernetes.pod_state import quantity_value

Access = tuple[str, str, str, tuple[str, ...]]
"""API group, resource, subresource or nothing, and verbs."""

NEEDED_ACCESS: tuple[Access, ...] = (
    ("batch", "jobs", "", ("create", "get", "delete")),
    ("", "configmaps", "", ("create", "get", "list", "delete")),
    ("", "pods", "", ("list",)),
    ("", "pods", "log", ("get",)),
)
"""What a trial that is a Job needs."""

UNTOLERATED_EFFECTS = ("NoSchedule", "NoExecute")


def check_cluster(
    client: Client,
    options: ClusterOptions,
    spec: ServerSpec | None,
    *,
    access: Sequence[Access] = NEEDED_ACCESS,
    further_problems: Callable[[], Iterator[str]] = lambda: iter(()),
) -> None:
    """MachineError with everything that keeps the server of `spec`, the largest of a run, off the cluster.

    Without a `spec` only access, settings and `further_problems` are looked at.
    """
    problems = list(cluster_problems(client, options, spec, access))
    with connection.explained_errors(client, "read what a run needs"):
        problems += further_problems()
    if problems:
        count = "" if len(problems) == 1 else f" {len(problems)} things:"
        raise MachineError(
            f"The cluster at {client.config.cluster.server} cannot run these trials:{count}",
            why=" ".join(f"({number}) {as_sentence(text)}" for number, text in enumerate(problems, start=1))
            if len(problems) > 1
            else problems[0],
        )


def cluster_problems(
    client: Client, options: ClusterOptions, spec: ServerSpec | None, access: Sequence[Access] = NEEDED_ACCESS
) -> Iterator[str]:
    """What keeps the server off the cluster, each with its remedy. MachineError if the cluster does not answer."""
    namespace = client.namespace
    with connection.explained_errors(client, "review its own access"):
        refused = list(refused_access(client, namespace, access))
    with connection.explained_errors(client, "read what a run needs"):
        if not exists(client, Namespace, namespace):
            yield f"there is no namespace '{namespace}': choose one with --namespace, or create it"
            return
        if refused:
            yield (
                f"this user may not {', '.join(refused)} in namespace '{namespace}': ask for the Role that the page "
                "'How to run on a Kubernetes cluster' shows"
            )
        yield from _missing_objects(client, options, spec)
        yield from _node_problems(client, options, spec)
        yield from _quota_problems(client, options, spec)


def refused_access(client: Client, namespace: str, access: Sequence[Access] = NEEDED_ACCESS) -> Iterator[str]:
    """What this user may not do of what a run does, as `kubectl auth can-i` words it; by SelfSubjectAccessReview."""
    for group, resource, subresource, verbs in access:
        for verb in verbs:
            attributes = {
                "namespace": namespace,
                "verb": verb,
                "group": group,
                "resource": resource,
                **({"subresource": subresource} if subresource else {}),
            }
            review = codecs.from_dict(
                {
                    "apiVersion": "authorization.k8s.io/v1",
                    "kind": "SelfSubjectAccessReview",
                    "metadata": {},
                    "spec": {"resourceAttributes": attributes},
                }
            )
            if not connection.as_json(client.create(review))["status"].get("allowed"):
                yield f"{verb} {resource}{f'/{subresource}' if subresource else ''}"


def exists(client: Client, kind: Any, name: str) -> bool:
    """Whether an object exists; True where this user may not know."""
    try:
        client.get(kind, name)
    except connection.CONNECTION_ERRORS as error:
        if connection.status_code(error) == connection.NOT_FOUND:
            return False
        if connection.status_code(error) != connection.FORBIDDEN:
            raise
    return True


def _missing_objects(client: Client, options: ClusterOptions, spec: ServerSpec | None) -> Iterator[str]:
    if spec is not None and spec.secrets and not exists(client, Secret, options.secret):
        names = ", ".join(spec.secrets)
        yield (
            f"there is no Secret '{options.secret}', which has to hold {names}: create it with `kubectl create secret "
            f"generic {options.secret} --from-literal={spec.secrets[0]}=...`, or name another as deployment.secret_name"
        )
    if options.image_pull_secret is not None and not exists(client, Secret, options.image_pull_secret):
        yield f"there is no Secret '{options.image_pull_secret}' to pull images with: correct --image-pull-secret"
    if options.service_account is not None and not exists(client, ServiceAccount, options.service_account):
        yield f"there is no service account '{options.service_account}': correct --service-account"
    claim = options.model_volume.claim if options.model_volume is not None else None
    if claim is not None:
        yield from _claim_problems(client, claim)


def _claim_problems(client: Client, name: str) -> Iterator[str]:
    """Why a persistent volume claim cannot be mounted; one that binds when its first pod comes is no problem."""
    try:
        claim = client.get(PersistentVolumeClaim, name).to_dict()
    except ApiError as error:
        if connection.status_code(error) == connection.NOT_FOUND:
            yield f"there is no persistent volume claim '{name}': correct --model-volume"
            return
        if connection.status_code(error) == connection.FORBIDDEN:
            return
        raise
    phase = (claim.get("status") or {}).get("phase", "Pending")
    if phase != "Bound" and not _binds_later(client, claim):
        yield (
            f"the persistent volume claim '{name}' is {phase} and has no volume: `kubectl describe pvc {name}` tells "
            "why; or choose another with --model-volume"
        )


def _binds_later(client: Client, claim: Mapping[str, Any]) -> bool:
    """Whether the claim's storage class waits for the first pod; False where the class is not known."""
    from lightkube.resources.storage_v1 import StorageClass

    name = claim["spec"].get("storageClassName")
    if not name or (claim.get("status") or {}).get("phase") == "Lost":
        return False
    try:
        return client.get(StorageClass, name).to_dict().get("volumeBindingMode") == "WaitForFirstConsumer"
    except ApiError:
        return False


def _node_problems(client: Client, options: ClusterOptions, spec: ServerSpec | None) -> Iterator[str]:
    """Why no node takes the largest server; nothing where this user may not list nodes."""
    if spec is None or not spec.gpus:
        return
    try:
        nodes = [node.to_dict() for node in client.list(Node)]
    except ApiError as error:
        if connection.status_code(error) == connection.FORBIDDEN:
            return
        raise
    with_gpus = {node["metadata"]["name"]: gpu_count(node, options.gpu_resource) for node in nodes}
    with_gpus = {name: count for name, count in with_gpus.items() if count}
    if not with_gpus:
        yield (
            f"none of its {len(nodes)} nodes has {options.gpu_resource}: choose another cluster with --context, or "
            "name the resource of its GPUs as deployment.gpu_resource"
        )
        return
    usable = [node for node in nodes if node["metadata"]["name"] in with_gpus and node_takes(node, options)]
    if not usable:
        yield (
            f"no node with {options.gpu_resource} takes these pods, by its labels or taints: correct --node-selector, "
            f"or give --toleration for {', '.join(sorted(_taints(nodes, options))) or 'its taints'}"
        )
        return
    name = max((node["metadata"]["name"] for node in usable), key=lambda name: with_gpus[name])
    most = with_gpus[name]
    if spec.gpus > most:
        yield (
            f"the largest candidate needs {spec.gpus} GPUs, and the largest node, {name}, has {most}: leave out larger "
            f"candidates with --total-gpus {most}"
        )


def gpu_count(node: Mapping[str, Any], resource: str) -> int:
    """Number of GPUs that a node offers to pods."""
    return int(quantity_value(str((node["status"].get("allocatable") or {}).get(resource, "0"))))


def node_takes(node: Mapping[str, Any], options: ClusterOptions) -> bool:
    """Whether labels and taints of a node let a pod with GPUs in."""
    labels = node["metadata"].get("labels") or {}
    has_labels = all(labels.get(key) == value for key, value in options.node_selector.items())
    return has_labels and not node["spec"].get("unschedulable") and not _untolerated(node, options)


def _untolerated(node: Mapping[str, Any], options: ClusterOptions) -> Sequence[Mapping[str, Any]]:
    """The taints of a node that keep its pods off."""
    taints = [taint for taint in node["spec"].get("taints") or () if taint.get("effect") in UNTOLERATED_EFFECTS]
    return [
        taint
        for taint in taints
        if taint["key"] != options.gpu_resource
        and not any(
            toleration.key == taint["key"]
            and toleration.value in (None, taint.get("value"))
            and toleration.effect in (None, taint["effect"])
            for toleration in options.tolerations
        )
    ]


def _taints(nodes: Sequence[Mapping[str, Any]], options: ClusterOptions) -> set[str]:
    """The taints that keep pods off nodes with GPUs, as options would tolerate them."""
    return {
        f"{taint['key']}{'=' + taint['value'] if taint.get('value') else ''}:{taint['effect']}"
        for node in nodes
        if gpu_count(node, options.gpu_resource)
        for taint in _untolerated(node, options)
    }


def _quota_problems(client: Client, options: ClusterOptions, spec: ServerSpec | None) -> Iterator[str]:
    """Quotas that are smaller than the largest server; what others use now may be free later."""
    if spec is None or not spec.gpus:
        return
    try:
        quotas = [quota.to_dict() for quota in client.list(ResourceQuota)]
    except ApiError as error:
        if connection.status_code(error) == connection.FORBIDDEN:
            return
        raise
    for quota in quotas:
        limit = (quota["spec"].get("hard") or {}).get(f"requests.{options.gpu_resource}")
        if limit is not None and quantity_value(str(limit)) < spec.gpus:
            yield (
                f"the largest candidate needs {spec.gpus} GPUs, and the quota '{quota['metadata']['name']}' allows "
                f"{limit}: leave out larger candidates with --total-gpus {limit}, or choose another --namespace"
            )
