"""A launch as files, in any format: of this host, of a cluster, or of the engine itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from autotuner import model_files
from autotuner.core import Candidate, ServerSpec, Trial
from autotuner.deploy import FILE_NAMES, FORMATS, render_files, with_comment
from autotuner.deploy.documents import to_yaml
from autotuner.deploy.dynamo import DynamoDeployment, Images, ModelCache, Workers
from autotuner.deploy.dynamo import deployment_documents as dynamo_documents
from autotuner.deploy.kubernetes import ClusterOptions, deployment_documents
from autotuner.deploy.ome import ome_documents
from autotuner.engines.configuration_file import configuration_file
from autotuner.engines.dynamo import dynamo_arguments
from autotuner.errors import ConfigError, UsageError, unknown_name_message
from autotuner.evaluate.container_command import container_command
from autotuner.evaluate.launch_script import launch_form, several_servers, simulation_remark
from autotuner.experiment import Experiment
from autotuner.input_files import read_json
from autotuner.kubernetes_values import object_name
from autotuner.serving import RoleName, ServingSpec

DYNAMO_RELEASE = "1.6.1"
CLUSTER_FORMATS = ("kubernetes", "ome", "dynamo")
ENGINE_FORMAT = "engine"
LAUNCH_FORMATS = (*FORMATS, *CLUSTER_FORMATS, ENGINE_FORMAT)
FORM_NAMES: Mapping[str, str] = {"ome": "OME controller", "dynamo": "Dynamo operator"}
UNTRIED = "No {form} has run this: it keeps to the fields that its definitions have."

MAX_DYNAMO_NAME = 30
"""Longest name of a Dynamo deployment here: the mocker twin's name and that of a component are longer."""


@dataclass(frozen=True)
class DeployedCandidate:
    """A candidate of an experiment as it is deployed: one server, or `serving` with several on one host.

    `counts` are the servers of each role where several were asked for; `remark` is what a reader has to know.
    """

    experiment: Experiment
    candidate: Candidate
    server: ServerSpec
    serving: ServingSpec
    counts: Mapping[RoleName, int]
    remark: str = ""

    @classmethod
    def of_trial(
        cls, experiment: Experiment, trial: Trial, server: ServerSpec, format: str, counts: Mapping[RoleName, int]
    ) -> DeployedCandidate:
        """The launch of a trial, whose `server` is on the port to deploy it at; UsageError and ConfigError as `files`.

        Several servers of one host have a router on that port; on a cluster a Service or Dynamo stands before them.
        """
        serving = ServingSpec.single(server)
        if counts and format in FORMATS:
            serving = several_servers(experiment, trial.candidate, counts, format, server.port)
        simulated = simulation_remark(experiment, trial.measurement.source)
        untried = UNTRIED.format(form=FORM_NAMES[format]) if format in FORM_NAMES else ""
        remark = "\n".join(filter(None, (simulated, serving.remark, untried)))
        return cls(experiment, trial.candidate, server, serving, counts, remark)

    @property
    def name(self) -> str:
        """A name for its objects on a cluster, of model and engine."""
        return object_name(self.server.served_model.rstrip("/").rpartition("/")[2], self.candidate.runtime)

    @property
    def dynamo_name(self) -> str:
        """The name of its deployment by Dynamo, to whose pods longer names are given."""
        return object_name(self.name, max_length=MAX_DYNAMO_NAME)

    @property
    def options(self) -> ClusterOptions:
        return ClusterOptions.from_deployment(self.experiment.deployment)

    @property
    def replicas(self) -> int:
        """Servers behind one Service; UsageError for prefill and decode servers."""
        if "prefill" in self.counts:
            raise UsageError(
                "Prefill and decode servers have manifests of Dynamo only.",
                remedy="Give --format dynamo, or shell, docker or compose for one host.",
            )
        return self.counts.get("server", 1)


def check_launch_format(format: str) -> None:
    """UsageError, with the nearest name, for a format that is not in LAUNCH_FORMATS."""
    if format not in LAUNCH_FORMATS:
        raise UsageError(unknown_name_message("format", format, LAUNCH_FORMATS))


def default_format(experiment: Experiment) -> str:
    """The format in which the experiment's servers were launched."""
    mode = experiment.deployment.mode
    return mode if mode in CLUSTER_FORMATS else launch_form(experiment)


def launch_files(launch: DeployedCandidate, format: str, *, with_remark: bool) -> dict[str, str]:
    """The text of each file by its name, the main one first; `with_remark` puts the launch's remark above that.

    UsageError or ConfigError if the launch has no such form.
    """
    if format in FORMATS:
        files = render_files(replace(launch.serving, remark=launch.remark if with_remark else ""), format)
        return {FILE_NAMES[format]: files[FILE_NAMES[format]], **files}
    files = _RENDERERS[format](launch)
    main = next(iter(files))
    return {**files, main: with_comment(files[main], launch.remark)} if with_remark else files


def _kubernetes(launch: DeployedCandidate) -> dict[str, str]:
    start_timeout = launch.experiment.runtime.start_timeout
    documents = deployment_documents(launch.server, launch.options, name=launch.name, start_timeout=start_timeout)
    documents[0]["spec"]["replicas"] = launch.replicas
    return {"kubernetes.yaml": to_yaml(documents)}


def _ome(launch: DeployedCandidate) -> dict[str, str]:
    if launch.server.image is None:
        raise ConfigError(
            "This server has no container image.",
            why="It ran as a process; OME runs containers.",
            remedy="Give the runtime's image: --set runtime.image=NAME:TAG.",
        )
    documents = ome_documents(
        launch.server,
        container_command(launch.candidate.runtime, launch.server, launch.experiment.model.id_or_path),
        launch.options,
        name=launch.name,
        start_timeout=launch.experiment.runtime.start_timeout,
        architecture=_architecture(launch.experiment),
    )
    documents[-1]["spec"]["engine"] |= {"minReplicas": launch.replicas, "maxReplicas": launch.replicas}
    return {"ome.yaml": to_yaml(documents)}


def _dynamo(launch: DeployedCandidate) -> dict[str, str]:
    experiment, candidate = launch.experiment, launch.candidate
    arguments = dynamo_arguments(candidate, experiment.runtime)
    volume = launch.options.model_volume
    is_folder = model_files.is_path(experiment.model.id_or_path)
    if is_folder and (volume is None or volume.claim is None):
        raise ConfigError(
            f"The model is the folder {experiment.model.id_or_path} of this machine, which a cluster does not have.",
            why="Dynamo's workers need a persistent volume claim with it, and none was given.",
            remedy="Give --model-volume CLAIM[:PATH].",
        )

    def workers(role: RoleName) -> Workers:
        return Workers(arguments, candidate.gpus, launch.counts.get(role, 1))

    backend: Any = candidate.runtime
    deployment = DynamoDeployment(
        name=launch.dynamo_name,
        backend=backend,
        model=launch.server.served_model if is_folder else experiment.model.id_or_path,
        decode=workers("decode" if "decode" in launch.counts else "server"),
        prefill=workers("prefill") if "prefill" in launch.counts else None,
        images=Images.of_release(backend, DYNAMO_RELEASE),
        release=DYNAMO_RELEASE,
        model_cache=ModelCache(volume.claim, volume.path) if volume is not None and volume.claim else None,
        secret=launch.options.secret if launch.server.secrets else None,
        override={"metadata": {"namespace": launch.options.namespace}} if launch.options.namespace else {},
    )
    return {"dynamo.yaml": to_yaml(dynamo_documents(deployment))}


def _engine_file(launch: DeployedCandidate) -> dict[str, str]:
    if launch.counts:
        raise UsageError("A configuration file is one server's.", remedy="Leave out --replicas, --prefill, --decode.")
    file = configuration_file(launch.candidate.runtime, launch.server)
    command = FORMATS["shell"](file.server)
    return {file.name: with_comment(file.text, command.rstrip("\n")), "command.sh": command}


def _architecture(experiment: Experiment) -> str | None:
    """The class of the model in its config.json, where that is on this machine."""
    path = model_files.config_file(experiment.model)
    try:
        config = read_json(path) if path is not None else None
    except (OSError, ValueError):
        return None
    names = config.get("architectures") if isinstance(config, dict) else None
    return str(names[0]) if isinstance(names, list) and names else None


_RENDERERS: Mapping[str, Callable[[DeployedCandidate], dict[str, str]]] = {
    "kubernetes": _kubernetes,
    "ome": _ome,
    "dynamo": _dynamo,
    ENGINE_FORMAT: _engine_file,
}
