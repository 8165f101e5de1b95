"""Options for a Kubernetes cluster, and the section `deployment` that they make."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from autotuner.cli.load_options import option, profile_or

if TYPE_CHECKING:
    from autotuner.experiment import Deployment, Experiment

CLUSTER = "Kubernetes"
HOSTS = "Slurm and Ray"
OPTION_NAMES = {"tolerations": "toleration"}
"""Settings of `deployment` whose options are called otherwise."""

SLURM_OPTIONS = ("partition", "account", "time_limit")
"""Options for settings of `deployment.slurm`."""

NONE = profile_or("none")
KUBECTL = profile_or("kubectl's own")


@dataclass(frozen=True)
class PodOptionSet:
    """Where pods go, and what they get; None where an option was not given."""

    namespace: Annotated[
        str | None,
        option("--namespace", metavar="NAME", help="Namespace.", panel=CLUSTER, default=KUBECTL),
    ] = None
    service_account: Annotated[
        str | None,
        option("--service-account", metavar="NAME", help="Service account of the pods.", panel=CLUSTER, default=NONE),
    ] = None
    image_pull_secret: Annotated[
        str | None,
        option(
            "--image-pull-secret",
            metavar="NAME",
            help="Secret with the login of the image's registry.",
            panel=CLUSTER,
            default=NONE,
        ),
    ] = None
    model_volume: Annotated[
        str | None,
        option(
            "--model-volume",
            metavar="PVC[:PATH]",
            help="Persistent volume claim with the model's files, or hostPath:/FOLDER of every node.",
            panel=CLUSTER,
            default=NONE,
        ),
    ] = None
    node_selector: Annotated[
        list[str] | None,
        option(
            "--node-selector",
            metavar="LABEL=VALUE",
            help="Label of the nodes that pods go to, such as nvidia.com/gpu.product=NVIDIA-H200; repeatable.",
            panel=CLUSTER,
            default=NONE,
        ),
    ] = None
    toleration: Annotated[
        list[str] | None,
        option(
            "--toleration",
            metavar="KEY[=VALUE][:EFFECT]",
            help="Taint that pods tolerate besides that of the GPUs; repeatable.",
            panel=CLUSTER,
            default=NONE,
        ),
    ] = None

    def deployment_settings(self) -> dict[str, Any]:
        """The settings of `deployment` that were given."""
        settings = {
            "namespace": self.namespace,
            "service_account": self.service_account,
            "image_pull_secret": self.image_pull_secret,
            "model_volume": self.model_volume,
            "node_selector": _labels(self.node_selector) if self.node_selector else None,
            "tolerations": self.toleration or None,
        }
        return {name: value for name, value in settings.items() if value is not None}


@dataclass(frozen=True)
class RunClusterOptionSet(PodOptionSet):
    """The options of a run on a cluster."""

    context: Annotated[
        str | None,
        option("--context", metavar="NAME", help="Context of the kubeconfig.", panel=CLUSTER, default=KUBECTL),
    ] = None
    kubeconfig: Annotated[
        str | None,
        option(
            "--kubeconfig",
            metavar="FILE",
            help="File that says how the cluster is reached.",
            panel=CLUSTER,
            default=KUBECTL,
        ),
    ] = None
    queue_timeout: Annotated[
        float | None,
        option(
            "--queue-timeout",
            metavar="SECONDS",
            help="How long a pod may wait for a node.",
            panel=CLUSTER,
            default=profile_or("600"),
        ),
    ] = None
    share_nodes: Annotated[
        bool | None,
        option("--share-nodes", help="Let parallel trials run on one node.", panel=CLUSTER, default=profile_or("no")),
    ] = None
    executor: Annotated[
        str | None,
        option(
            "--executor",
            metavar="local|slurm|ray",
            help="What runs the trials: this machine, jobs of Slurm, or a Ray cluster that is there already.",
            panel=HOSTS,
            default=profile_or("local"),
        ),
    ] = None
    partition: Annotated[
        str | None,
        option(
            "--partition",
            metavar="NAME",
            help="Slurm: the partition of the jobs.",
            panel=HOSTS,
            default=profile_or("Slurm's"),
        ),
    ] = None
    account: Annotated[
        str | None,
        option(
            "--account",
            metavar="NAME",
            help="Slurm: the account that the jobs are charged to.",
            panel=HOSTS,
            default=profile_or("Slurm's"),
        ),
    ] = None
    time_limit: Annotated[
        str | None,
        option(
            "--time-limit",
            metavar="MIN|H:MM:SS|D-HH",
            help="Slurm: the time limit of each job.",
            panel=HOSTS,
            default=profile_or("what a launch may take"),
        ),
    ] = None
    ray_address: Annotated[
        str | None,
        option(
            "--ray-address",
            metavar="HOST:PORT",
            help="Ray: the address of the cluster's head.",
            panel=HOSTS,
            default=profile_or("RAY_ADDRESS, else the cluster of this machine"),
        ),
    ] = None

    def deployment_settings(self) -> dict[str, Any]:
        """The settings of `deployment` that were given."""
        return {**self.kubernetes_settings(), **self.executor_settings()}

    def kubernetes_settings(self) -> dict[str, Any]:
        """Those of a deployment on Kubernetes."""
        names = ("context", "kubeconfig", "queue_timeout", "share_nodes")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {**super().deployment_settings(), **given}

    def executor_settings(self) -> dict[str, Any]:
        """Those of another executor, which runs whole trials on other hosts."""
        executor = {} if self.executor is None else {"executor": self.executor}
        slurm = {f"slurm.{name}": getattr(self, name) for name in SLURM_OPTIONS if getattr(self, name) is not None}
        ray = {} if self.ray_address is None else {"ray.address": self.ray_address}
        return {**executor, **slurm, **ray}

    def as_set_options(self) -> list[str]:
        """The settings as values of --set."""
        return [f"deployment.{name}={json.dumps(value)}" for name, value in self.deployment_settings().items()]


def reject_cluster_options(options: RunClusterOptionSet, deployment: Deployment) -> None:
    """UsageError for options of Kubernetes, Slurm or Ray where nothing would look at them."""
    from autotuner.errors import UsageError
    from autotuner.experiment import CLUSTER_MODES

    pods = [f"--{OPTION_NAMES.get(name, name).replace('_', '-')}" for name in options.kubernetes_settings()]
    if pods and deployment.mode not in CLUSTER_MODES:
        raise UsageError(
            f"{' and '.join(pods)} cannot be used here.",
            why=f"Servers would run elsewhere: the deployment is {deployment.mode}.",
            remedy="Add --deployment kubernetes or --deployment ome, or leave the options of a cluster out.",
        )
    for executor in ("slurm", "ray"):
        names = [name for name in options.executor_settings() if name.startswith(f"{executor}.")]
        if names and deployment.executor != executor:
            of_executor = ["--ray-address" if executor == "ray" else f"--{name.partition('.')[2]}" for name in names]
            raise UsageError(
                f"{' and '.join(of_executor).replace('_', '-')} cannot be used here.",
                why=f"Trials would run elsewhere: the executor is {deployment.executor}.",
                remedy=f"Add --executor {executor}, or leave its options out.",
            )


@dataclass(frozen=True)
class ClusterOptionSet(PodOptionSet):
    """The part of a cluster's options that manifests need; None where an option was not given."""

    base_model: Annotated[
        str | None,
        option(
            "--base-model",
            metavar="NAME",
            help="OME: the ClusterBaseModel or BaseModel to serve.",
            panel=CLUSTER,
            default=profile_or("the model's name in small letters"),
        ),
    ] = None
    serving_runtime: Annotated[
        str | None,
        option(
            "--serving-runtime",
            metavar="NAME",
            help="OME: the runtime to use.",
            panel=CLUSTER,
            default=profile_or("one of its own, which is written too"),
        ),
    ] = None

    def deployment_settings(self) -> dict[str, Any]:
        """The settings of `deployment` that were given."""
        given = {"base_model": self.base_model, "serving_runtime": self.serving_runtime}
        return {**super().deployment_settings(), **{name: value for name, value in given.items() if value is not None}}

    def applied_to(self, experiment: Experiment) -> Experiment:
        """The experiment with these options; UsageError for values that Kubernetes does not take."""
        from pydantic import ValidationError

        from autotuner.errors import UsageError
        from autotuner.experiment import Deployment

        settings = {**experiment.deployment.model_dump(), **self.deployment_settings()}
        try:
            deployment = Deployment.model_validate(settings)
        except ValidationError as error:
            first = error.errors()[0]
            name = OPTION_NAMES.get(str(first["loc"][0]), str(first["loc"][0]))
            why = first["msg"].removeprefix("Value error, ")
            raise UsageError(
                f"--{name.replace('_', '-')} cannot be used: {why}.", remedy="See `autotune command --help`."
            ) from error
        return experiment.model_copy(update={"deployment": deployment})


def _labels(pairs: list[str]) -> dict[str, str]:
    from autotuner.errors import UsageError

    for pair in pairs:
        if "=" not in pair:
            raise UsageError(f"Cannot read --node-selector {pair}.", remedy="Write it as LABEL=VALUE.")
    return {label: value for label, _, value in (pair.partition("=") for pair in pairs)}
