"""Manifests of plain Kubernetes: the pod of a server, the Deployment and Service of a winner, the Role for trials."""

from autotuner.deploy.kubernetes.manifests import access_documents, deployment_documents, metadata
from autotuner.deploy.kubernetes.options import ClusterOptions
from autotuner.deploy.kubernetes.pod import CONTAINER, pod_template

__all__ = [
    "CONTAINER",
    "ClusterOptions",
    "access_documents",
    "deployment_documents",
    "metadata",
    "pod_template",
]
