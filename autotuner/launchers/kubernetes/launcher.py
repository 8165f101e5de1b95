"""Launcher of servers as Jobs on a Kubernetes cluster."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from lightkube import Client, codecs
from lightkube.core.exceptions import ApiError
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import ConfigMap, Pod
from lightkube.types import CascadeType

from autotuner import owner
from autotuner.core import ServerSpec
from autotuner.deploy.kubernetes.options import ClusterOptions
from autotuner.deploy.kubernetes.pod import pod_template
from autotuner.errors import AutotuneError, ConfigError, EngineError, MachineError
from autotuner.experiment import Deployment, Experiment
from autotuner.launchers.kubernetes import connection, leftovers, objects, pod_state
from autotuner.launchers.kubernetes.preflight import check_cluster
from autotuner.launchers.kubernetes.server import KubernetesServer
from autotuner.launchers.protocol import Server

REMOVAL_SECONDS = objects.STOP_SECONDS + 30
"""How long a removed pod may take to end and to give back its GPUs."""

DEFAULT_TIME_LIMIT = 3600.0
"""Seconds after which the cluster ends a launch whose experiment gives no limit."""


class KubernetesLauncher:
    """Runs a server as a Job, which is deleted with its pod when its block ends.

    A launch may take `time_limit` seconds once its pod runs; the cluster ends the Job by itself after that and twice
    the time that a pod may wait.
    """

    starts_servers = True

    def __init__(self, deployment: Deployment, time_limit: float = DEFAULT_TIME_LIMIT) -> None:
        self.options = ClusterOptions.from_deployment(deployment)
        self.time_limit = time_limit

    def preflight(self, experiment: Experiment, spec: ServerSpec | None) -> None:
        """Check that the cluster answers, and has and allows what a run needs; see Launcher."""
        if spec is not None:
            pod_template(spec, self.options, labels={})  # ConfigError for what no pod can be
        with connection.connect(self.options) as client:
            check_cluster(client, self.options, spec)

    @contextmanager
    def run_block(self) -> Iterator[None]:
        """At the end the ConfigMaps of this process's runs are deleted; see Launcher."""
        try:
            yield
        finally:
            for note in leftovers.notes_of(str(owner.this_process())):
                with contextlib.suppress(AutotuneError):
                    leftovers.delete_config_map(note)

    def launch(self, spec: ServerSpec | None, log: Path) -> AbstractContextManager[Server]:
        """Start the Job of `spec` and wait until its container runs; see Launcher.

        EngineError if the cluster does not run the pod.
        """
        if spec is None:
            raise ValueError("a Job needs a spec")
        return self._launch(spec, log)

    @contextmanager
    def _launch(self, spec: ServerSpec, log: Path) -> Iterator[Server]:
        run = objects.RunIdentity.of_log(log)
        name = objects.job_name(run, log)
        with ExitStack() as cleanup:
            client = cleanup.enter_context(connection.connect(self.options))
            output = cleanup.enter_context(FileIO(log, "ab"))
            leftovers.save_note(
                leftovers.ClusterNote(
                    # another command may start in another folder
                    kubeconfig=str(Path(self.options.kubeconfig).absolute()) if self.options.kubeconfig else None,
                    context=self.options.context,
                    namespace=client.namespace,
                    name=run.config_map_name,
                    leader=str(run.leader),
                )
            )
            uid = claim_config_map(client, run)
            manifests = self._manifests(name, run, uid, spec, trial=log.absolute().parent.name)
            server = self._server(client, name, spec.port, output, log.parent)
            cleanup.callback(server.stop_following)
            # from here on, whatever happens, what is called `name` is removed
            cleanup.callback(self._remove, client, name)
            for manifest in manifests:
                create_object(client, manifest)
            server.wait_until_running(self.options.queue_timeout)
            yield server

    def _manifests(
        self, name: str, run: objects.RunIdentity, config_map_uid: str, spec: ServerSpec, *, trial: str
    ) -> list[dict[str, Any]]:
        """The objects of a launch, in the order in which they are created."""
        time_limit = self.time_limit + 2 * self.options.queue_timeout
        return [objects.job(name, run, config_map_uid, spec, self.options, trial=trial, time_limit=time_limit)]

    def _server(self, client: Client, name: str, port: int, output: FileIO, folder: Path) -> KubernetesServer:
        return KubernetesServer(client, name, port, output, folder)

    def _remove(self, client: Client, name: str) -> None:
        remove_job(client, name)


def claim_config_map(client: Client, run: objects.RunIdentity) -> str:
    """The uid of the run's ConfigMap, which is made if it is not there; one of a process that has ended is replaced."""
    manifest = codecs.from_dict(objects.config_map(run))
    with connection.explained_errors(client, "create a ConfigMap"):
        with contextlib.suppress(ApiError):
            current = client.get(ConfigMap, run.config_map_name)
            annotations = (current.metadata.annotations if current.metadata else None) or {}
            if annotations.get(objects.OWNER_ANNOTATION) == str(run.leader):
                return _uid(current)
            client.delete(ConfigMap, run.config_map_name, cascade=CascadeType.FOREGROUND)
            _wait_until_gone(client, run.config_map_name)
        try:
            created = client.create(manifest)
        except ApiError as error:
            if connection.status_code(error) != connection.CONFLICT:
                raise
            return _uid(client.get(ConfigMap, run.config_map_name))  # a trial beside this one was first
    return _uid(created)


def _uid(config_map: Any) -> str:
    return str(config_map.metadata.uid)


def _wait_until_gone(client: Client, name: str) -> None:
    """Wait until a ConfigMap and what it owned are deleted; the ApiError of its absence ends the wait."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    while time.monotonic() < deadline:
        client.get(ConfigMap, name)
        time.sleep(0.2)


def create_object(client: Client, manifest: dict[str, Any]) -> None:
    """Create an object; EngineError if quota or admission refuse it, ConfigError for a manifest that is no good."""
    purpose = f"create {'an' if manifest['kind'][0] in 'AEIOU' else 'a'} {manifest['kind']}"
    try:
        client.create(codecs.from_dict(manifest))
    except ApiError as error:
        message, status = connection.message_of(error), connection.status_code(error)
        if "exceeded quota" in message or "admission webhook" in message:
            raise EngineError(pod_state.refusal_failure(message)) from error
        if status in (400, 422):
            remedy = "Correct what the message names in runtime or deployment."
            raise ConfigError(
                f"The cluster refuses the {manifest['kind']} of a trial.", why=message, remedy=remedy
            ) from error
        raise connection.machine_error(client, purpose, error) from error
    except connection.CONNECTION_ERRORS as error:
        raise connection.machine_error(client, purpose, error) from error


def remove_job(client: Client, name: str) -> None:
    """Delete a Job, and wait until its pod is gone and its GPUs are free.

    Where the API server does not answer, the next run or `autotune clean` deletes it, and its deadline ends it.
    """
    with contextlib.suppress(MachineError, *connection.CONNECTION_ERRORS):
        client.delete(Job, name, cascade=CascadeType.BACKGROUND)
        wait_until_pods_are_gone(client, objects.JOB_LABEL, name)


def wait_until_pods_are_gone(client: Client, label: str, value: str) -> None:
    """Wait until no pod has this label, for as long as a removed pod may take."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    while time.monotonic() < deadline and list(client.list(Pod, labels={label: value})):
        time.sleep(0.1)
