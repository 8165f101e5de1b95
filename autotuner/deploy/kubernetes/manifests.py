"""The documents that deploy a server, and those that let a service account run trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotuner.core import ServerSpec
from autotuner.deploy.kubernetes.options import ClusterOptions
from autotuner.deploy.kubernetes.pod import PORT_NAME, pod_template
from autotuner.kubernetes_values import label_value

NAME_LABEL = "app.kubernetes.io/name"
INSTANCE_LABEL = "app.kubernetes.io/instance"
MANAGED_BY = {"app.kubernetes.io/managed-by": "autotune"}
MODEL_ANNOTATION = "autotune/model"
TRIALS_ACCOUNT = "autotune"

_CREATED = ["create", "get", "list", "watch", "delete"]
_READ = ["get", "list", "watch"]


def metadata(
    name: str, options: ClusterOptions, labels: Mapping[str, str], annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The metadata of an object in the namespace of the options."""
    return {
        "name": name,
        **({"namespace": options.namespace} if options.namespace else {}),
        "labels": dict(labels),
        **({"annotations": dict(annotations)} if annotations else {}),
    }


def deployment_labels(name: str, server: ServerSpec) -> dict[str, str]:
    """Labels of a deployed server; that of the model is made of its name, which stands in an annotation."""
    return {NAME_LABEL: label_value(server.served_model), INSTANCE_LABEL: name, **MANAGED_BY}


def deployment_documents(
    server: ServerSpec, options: ClusterOptions, *, name: str, start_timeout: float = 600.0
) -> list[dict[str, Any]]:
    """A Deployment with one pod of the server, and the Service by which clients reach it; errors as `pod_template`.

    An update ends the old pod before the new one starts, because its GPUs are needed.
    """
    labels, selector = deployment_labels(name, server), {INSTANCE_LABEL: name}
    annotations = {MODEL_ANNOTATION: server.served_model}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(name, options, labels, annotations),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            # a rollout is reported as failed after this time, which has to be longer than a start
            "progressDeadlineSeconds": round(start_timeout) + 600,
            "selector": {"matchLabels": selector},
            "template": pod_template(
                server, options, labels=labels, annotations=annotations, start_timeout=start_timeout
            ),
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, options, labels),
        "spec": {
            "selector": selector,
            "ports": [{"name": PORT_NAME, "port": server.port, "targetPort": PORT_NAME, "protocol": "TCP"}],
        },
    }
    return [deployment, service]


def access_documents(options: ClusterOptions, *, ome: bool = False) -> list[dict[str, Any]]:
    """A service account that may run trials in its namespace, with its Role and RoleBinding."""
    account = options.service_account or TRIALS_ACCOUNT
    rules = [
        _rule("batch", ["jobs"], _CREATED),
        _rule("", ["services", "configmaps"], _CREATED),
        _rule("", ["pods", "pods/log", "events", "resourcequotas"], _READ),
        *([_rule("ome.io", ["inferenceservices"], _CREATED)] if ome else []),
    ]
    subject = {"kind": "ServiceAccount", "name": account}
    if options.namespace:
        subject["namespace"] = options.namespace
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(account, options, MANAGED_BY)},
        {
            "apiVersion": f"{group}/v1",
            "kind": "Role",
            "metadata": metadata(account, options, MANAGED_BY),
            "rules": rules,
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata(account, options, MANAGED_BY),
            "roleRef": {"apiGroup": group, "kind": "Role", "name": account},
            "subjects": [subject],
        },
    ]


def _rule(group: str, names: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": names, "verbs": list(verbs)}
