"""What a cluster adds to a server: where its pods go, as whom they run, and where the model is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autotuner.experiment import Deployment
from autotuner.kubernetes_values import ModelVolume, Toleration


@dataclass(frozen=True)
class ClusterOptions:
    """The part of the deployment's settings that is for a cluster, read and checked.

    `secret` is the Kubernetes Secret with the values of a server's secrets, by the names of their variables.
    `gpu_resource` is what nodes call their GPUs. A pod waits `queue_timeout` seconds for a node; unless
    `share_nodes`, trials of one run keep to nodes of their own. `base_model` and `serving_runtime` are names
    of OME's objects. None of a namespace, context or kubeconfig stands for what kubectl uses.
    """

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    service_account: str | None = None
    image_pull_secret: str | None = None
    secret: str = "autotune-secrets"
    model_volume: ModelVolume | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    gpu_resource: str = "nvidia.com/gpu"
    queue_timeout: float = 600.0
    share_nodes: bool = False
    base_model: str | None = None
    serving_runtime: str | None = None

    @classmethod
    def from_deployment(cls, deployment: Deployment) -> ClusterOptions:
        """The options of an experiment's deployment."""
        volume = deployment.model_volume
        return cls(
            namespace=deployment.namespace,
            context=deployment.context,
            kubeconfig=deployment.kubeconfig,
            service_account=deployment.service_account,
            image_pull_secret=deployment.image_pull_secret,
            secret=deployment.secret_name,
            model_volume=ModelVolume.parse(volume) if volume is not None else None,
            node_selector=deployment.node_selector,
            tolerations=tuple(Toleration.parse(text) for text in deployment.tolerations),
            gpu_resource=deployment.gpu_resource,
            queue_timeout=deployment.queue_timeout,
            share_nodes=deployment.share_nodes,
            base_model=deployment.base_model,
            serving_runtime=deployment.serving_runtime,
        )
