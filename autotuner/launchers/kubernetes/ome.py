"""Launcher of servers as InferenceServices of OME on a Kubernetes cluster.

OME's controller makes a Deployment of each, whose pod is watched like that of a Job. What it dislikes about an
InferenceService it often says in events only, and the InferenceService is gone before its pods are.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from lightkube import Client
from lightkube.generic_resource import create_global_resource, create_namespaced_resource
from lightkube.types import CascadeType

from autotuner.core import Failure, FailureKind, ServerSpec
from autotuner.deploy.kubernetes.options import ClusterOptions
from autotuner.deploy.kubernetes.pod import placement
from autotuner.deploy.ome import API_VERSION, CONTAINER, MODEL_PATH, ContainerCommand, base_model_name, ome_documents
from autotuner.errors import MachineError
from autotuner.experiment import Experiment
from autotuner.kubernetes_values import label_value
from autotuner.launchers.kubernetes import connection, objects, pod_state
from autotuner.launchers.kubernetes.launcher import KubernetesLauncher, wait_until_pods_are_gone
from autotuner.launchers.kubernetes.pod_state import PodState
from autotuner.launchers.kubernetes.preflight import Access, check_cluster, exists
from autotuner.launchers.kubernetes.server import KubernetesServer

GROUP, VERSION = API_VERSION.split("/")
InferenceService = create_namespaced_resource(GROUP, VERSION, "InferenceService", "inferenceservices")
ServingRuntime = create_namespaced_resource(GROUP, VERSION, "ServingRuntime", "servingruntimes")
ClusterServingRuntime = create_global_resource(GROUP, VERSION, "ClusterServingRuntime", "clusterservingruntimes")
BaseModel = create_namespaced_resource(GROUP, VERSION, "BaseModel", "basemodels")
ClusterBaseModel = create_global_resource(GROUP, VERSION, "ClusterBaseModel", "clusterbasemodels")

POD_LABEL = "ome.io/inferenceservice"
"""Label of all pods of an InferenceService, by its name."""

NO_INGRESS = {"ome.io/ingress-disable-creation": "true"}
"""The server of a trial is reached by its pod's address; nobody else is to find it."""

NEEDED_ACCESS: tuple[Access, ...] = (
    (GROUP, "inferenceservices", "", ("create", "get", "delete")),
    ("", "configmaps", "", ("create", "get", "list", "delete")),
    ("", "pods", "", ("list",)),
    ("", "pods", "log", ("get",)),
    ("", "events", "", ("list",)),
)
RUNTIME_ACCESS: Access = (GROUP, "servingruntimes", "", ("create", "delete"))

MODEL_REASONS = ("ModelReconcileError",)
RUNTIME_REASONS = ("RuntimeValidationError", "RuntimeFetchError", "RuntimeSelectionError", "MergeSpecsError")
SERVICE_REASONS = ("DeploymentModeError", "AcceleratorClassError", "ServerlessModeRejected")
"""Reasons of events after which OME makes no pod, whatever it is given time."""

PASSING_REASONS = ("InternalError", "UpdateFailed")
"""Reasons of events after which OME tries again."""

MODEL_REMEDY = "Look at the model with `kubectl get clusterbasemodels,basemodels`; deployment.base_model names another."
RUNTIME_REMEDY = (
    "Look at `kubectl get clusterservingruntimes,servingruntimes`; deployment.serving_runtime names another, and "
    "without one each trial gets a runtime of its own."
)


class OmeLauncher(KubernetesLauncher):
    """Runs a server as an InferenceService, which is deleted with its pods when its block ends.

    An InferenceService has no deadline: what a killed run leaves stays until the next command deletes it.
    """

    def preflight(self, experiment: Experiment, spec: ServerSpec | None) -> None:
        """Check that OME is installed, allows what a run needs, and has its model and runtime; see Launcher."""
        if spec is not None:
            command = ContainerCommand(("server",), (*spec.container_argv, MODEL_PATH), MODEL_PATH)
            ome_documents(spec, command, self.options, name="autotune")  # ConfigError for what OME cannot take
        own_runtime = (RUNTIME_ACCESS,) if self.options.serving_runtime is None else ()
        with connection.connect(self.options) as client:
            check_cluster(
                client,
                self.options,
                spec,
                access=(*NEEDED_ACCESS, *own_runtime),
                further_problems=lambda: ome_problems(client, self.options, spec),
            )

    def _manifests(
        self, name: str, run: objects.RunIdentity, config_map_uid: str, spec: ServerSpec, *, trial: str
    ) -> list[dict[str, Any]]:
        if spec.entrypoint is None or MODEL_PATH not in spec.container_argv:
            raise ValueError("OME needs a whole command")
        command = ContainerCommand((spec.entrypoint,), spec.container_argv, MODEL_PATH)
        start_timeout = math.ceil(self.time_limit)
        documents = ome_documents(spec, command, self.options, name=name, start_timeout=start_timeout)
        labels = {**run.labels, objects.TRIAL_LABEL: label_value(trial)}
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": run.config_map_name, "uid": config_map_uid}
        for document in documents:
            metadata = document["metadata"]
            metadata["labels"] = labels
            metadata["annotations"] = {**(metadata.get("annotations") or {}), **run.annotations}
            metadata["ownerReferences"] = [reference]
        service = documents[-1]
        service["metadata"]["annotations"] |= NO_INGRESS
        apart_from = None if self.options.share_nodes else {objects.RUN_LABEL: labels[objects.RUN_LABEL]}
        service["spec"]["engine"] |= {"labels": labels, **placement(spec, self.options, apart_from)}
        return documents

    def _server(self, client: Client, name: str, port: int, output: FileIO, folder: Path) -> KubernetesServer:
        return OmeServer(client, name, port, output, folder)

    def _remove(self, client: Client, name: str) -> None:
        """Delete an InferenceService and its own runtime, and wait until its pods are gone and their GPUs are free."""
        for kind in (InferenceService, ServingRuntime) if self.options.serving_runtime is None else (InferenceService,):
            with contextlib.suppress(MachineError, *connection.CONNECTION_ERRORS):
                client.delete(kind, name, cascade=CascadeType.BACKGROUND)
        with contextlib.suppress(*connection.CONNECTION_ERRORS):
            wait_until_pods_are_gone(client, POD_LABEL, name)


class OmeServer(KubernetesServer):
    """The server of an InferenceService; a container that its Deployment starts again has ended."""

    pod_label = POD_LABEL
    container = CONTAINER

    def _judge_pod(self, pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]] = ()) -> PodState:
        return judge_pod(pod, events)

    def _state_before_pod(self) -> PodState:
        self._client.get(InferenceService, self._owner_name)
        refusals = [
            event.get("message", "")
            for event in self._events("ReplicaSet")
            if event.get("reason") == "FailedCreate" and event["involvedObject"]["name"].startswith(self._owner_name)
        ]
        if refusals:
            is_final = not pod_state.may_fit_later(refusals[-1])
            return PodState("waiting", pod_state.refusal_failure(refusals[-1]), is_final=is_final, is_scheduled=False)
        return judge_service_events(self._events("InferenceService", self._owner_name))

    def _deadline_state(self) -> PodState | None:
        return None  # an InferenceService has no deadline


def judge_pod(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]] = ()) -> PodState:
    """The state of a pod of a Deployment, by OME's container; once it was started again its first end counts."""
    status = pod.get("status") or {}
    statuses = status.get("containerStatuses")
    if statuses:
        container = pod_state.of_name(statuses, CONTAINER)
        ended = (container.get("lastState") or {}).get("terminated")
        if container.get("restartCount") and ended:
            container = {**container, "state": {"terminated": ended}}
        pod = {**pod, "status": {**status, "containerStatuses": [container]}}
    return pod_state.judge_pod(pod, events)


def judge_service_events(events: Sequence[Mapping[str, Any]]) -> PodState:
    """The state of an InferenceService that has no pod, by the events about it, oldest first."""
    for event in reversed(events):
        reason, message = event.get("reason", ""), f"{event.get('reason')}: {event.get('message', '')}"
        if reason in MODEL_REASONS:
            failure = Failure(FailureKind.MODEL_NOT_FOUND, message, MODEL_REMEDY)
        elif reason in (*RUNTIME_REASONS, *SERVICE_REASONS):
            remedy = RUNTIME_REMEDY if reason in RUNTIME_REASONS else pod_state.REJECTED_REMEDY
            failure = Failure(FailureKind.REJECTED, message, remedy)
        elif reason in PASSING_REASONS:
            failure = Failure(FailureKind.REJECTED, message, "Look at the log of OME's controller.")
            return PodState("waiting", failure, is_final=False, is_scheduled=False)
        else:
            continue
        return PodState("waiting", failure, is_scheduled=False)
    return PodState("waiting", note="OME has made no pod yet.", is_scheduled=False)


def ome_problems(client: Client, options: ClusterOptions, spec: ServerSpec | None) -> Iterator[str]:
    """What OME lacks for a run, each with its remedy."""
    try:
        list(client.list(InferenceService))
    except connection.CONNECTION_ERRORS as error:  # of an unknown group it says 404 in plain text
        if connection.status_code(error) == connection.NOT_FOUND:
            yield (
                f"it does not know InferenceServices of {API_VERSION}: install OME with its custom resource "
                "definitions, or run with --deployment kubernetes"
            )
            return
        if connection.status_code(error) != connection.FORBIDDEN:
            raise
    runtime = options.serving_runtime
    if runtime is not None and not (
        exists(client, ServingRuntime, runtime) or exists(client, ClusterServingRuntime, runtime)
    ):
        yield (
            f"there is no ServingRuntime or ClusterServingRuntime '{runtime}': correct deployment.serving_runtime, or "
            "leave it out, so that each trial gets a runtime of its own"
        )
    if spec is not None:
        yield from _model_problems(client, options, spec)


def _model_problems(client: Client, options: ClusterOptions, spec: ServerSpec) -> Iterator[str]:
    name = base_model_name(spec, options)
    for kind in (BaseModel, ClusterBaseModel):
        try:
            model = connection.as_json(client.get(kind, name))
        except connection.CONNECTION_ERRORS as error:
            if connection.status_code(error) == connection.FORBIDDEN:
                return
            if connection.status_code(error) != connection.NOT_FOUND:
                raise
            continue
        state = (model.get("status") or {}).get("state")
        if state not in (None, "Ready"):
            yield f"the model '{name}' is not ready but {state}: wait until `kubectl get` shows it as Ready"
        return
    yield f"there is no BaseModel or ClusterBaseModel '{name}': create it, or name one as deployment.base_model"
