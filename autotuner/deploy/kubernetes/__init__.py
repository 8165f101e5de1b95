"""Manifests of plain Kubernetes: the pod of a server, and the Deployment and Service of a winner."""

from autotuner.deploy.kubernetes.options import ClusterOptions
from autotuner.deploy.kubernetes.pod import CONTAINER, pod_template

__all__ = ["CONTAINER", "ClusterOptions", "pod_template"]
