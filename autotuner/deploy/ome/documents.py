"""One InferenceService for one server, whose command replaces all of its runtime's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from autotuner.core import ServerSpec
from autotuner.deploy.kubernetes.manifests import deployment_labels, metadata
from autotuner.deploy.kubernetes.options import ClusterOptions
from autotuner.deploy.kubernetes.pod import (
    PORT_NAME,
    access,
    container,
    network,
    placement,
    probes,
    shared_memory,
    volumes,
)
from autotuner.errors import ConfigError
from autotuner.kubernetes_values import object_name, without_expansion

API_VERSION = "ome.io/v1beta1"
CONTAINER = "ome-container"
"""The container that OME's controller looks for."""

MODEL_PATH = "$(MODEL_PATH)"
"""The model's folder: OME sets the variable, and Kubernetes replaces the reference."""

ANNOTATIONS = {"ome.io/deploymentMode": "RawDeployment", "ome.io/autoscalerClass": "external"}
TEMPLATE_MARK = "{{"


@dataclass(frozen=True)
class ContainerCommand:
    """The whole command of a server's container: a program and its arguments, of which one is the model.

    OME keeps the list of its runtime where either is empty. `model` is that argument.
    """

    program: tuple[str, ...]
    arguments: tuple[str, ...]
    model: str

    def __post_init__(self) -> None:
        if not self.program or not self.arguments:
            raise ValueError("OME needs a program and arguments")


def ome_documents(
    server: ServerSpec,
    command: ContainerCommand,
    options: ClusterOptions,
    *,
    name: str,
    start_timeout: float = 600.0,
    architecture: str | None = None,
) -> list[dict[str, Any]]:
    """The InferenceService, after a ServingRuntime of the same name where the options name none."""
    if options.serving_runtime is not None:
        return [inference_service(server, command, options, name=name)]
    runtime = serving_runtime(server, options, name=name, start_timeout=start_timeout, architecture=architecture)
    own = {"name": name, "kind": "ServingRuntime"}
    return [runtime, inference_service(server, command, options, name=name, runtime=own)]


def inference_service(
    server: ServerSpec,
    command: ContainerCommand,
    options: ClusterOptions,
    *,
    name: str,
    labels: Mapping[str, str] | None = None,
    runtime: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """An InferenceService of one replica that runs exactly this command.

    Command and arguments both replace those of the runtime. No AcceleratorClass is selected, because it would
    change the tensor-parallel size. ConfigError for arguments that OME would run as a template, and for what
    `pod_template` refuses.
    """
    model = base_model_name(server, options)
    runtime = runtime or {"name": options.serving_runtime or name}
    # OME brings the model, and the runtime the shared memory
    pod_volumes, mounts = volumes(replace(server, mounts=_own_mounts(server)), options)
    runner = {
        "name": CONTAINER,
        **container(server, options, mounts[1:]),
        "command": [_word(word) for word in command.program],
        "args": _with_model_path(command.arguments, command.model),
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "InferenceService",
        "metadata": metadata(name, options, labels or deployment_labels(name, server), ANNOTATIONS),
        "spec": {
            "model": {"name": model},
            "runtime": dict(runtime),
            "engine": {
                "minReplicas": 1,
                "maxReplicas": 1,
                "deploymentStrategy": {"type": "Recreate"},
                **access(options),
                **placement(server, options),
                **network(server),
                **({"volumes": pod_volumes[1:]} if pod_volumes[1:] else {}),
                "runner": {key: value for key, value in runner.items() if value != []},
            },
        },
    }


def base_model_name(server: ServerSpec, options: ClusterOptions) -> str:
    """The name of OME's object for the model: that of the options, else the last part of the served name."""
    return options.base_model or object_name(server.served_model.rstrip("/").rpartition("/")[2])


def serving_runtime(
    server: ServerSpec,
    options: ClusterOptions,
    *,
    name: str,
    start_timeout: float = 600.0,
    architecture: str | None = None,
) -> dict[str, Any]:
    """A runtime for models in safetensors files, which OME never selects by itself: image, probes, shared memory."""
    model_format: dict[str, Any] = {
        "modelFramework": {"name": "transformers"},
        "modelFormat": {"name": "safetensors"},
        **({"modelArchitecture": architecture} if architecture else {}),
        "autoSelect": False,
    }
    volume, mount = shared_memory(server)
    runner = {
        "name": CONTAINER,
        "image": server.image,
        "ports": [{"name": PORT_NAME, "containerPort": server.port, "protocol": "TCP"}],
        "volumeMounts": [mount],
        **probes(server, "Always", start_timeout),
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "ServingRuntime",
        "metadata": metadata(name, options, deployment_labels(name, server)),
        "spec": {
            "disabled": False,
            "supportedModelFormats": [model_format],
            "protocolVersions": ["openAI"],
            "engineConfig": {"volumes": [volume], "runner": runner},
        },
    }


def _own_mounts(server: ServerSpec) -> tuple[Any, ...]:
    return tuple(mount for mount in server.mounts if not mount.is_model)


def _with_model_path(arguments: tuple[str, ...], model: str) -> list[str]:
    """The arguments with the folder where OME puts the model in place of the model's first mention."""
    if model not in arguments:
        raise ValueError(f"the model {model} is none of the arguments")
    position = arguments.index(model)
    return [MODEL_PATH if index == position else _word(word) for index, word in enumerate(arguments)]


def _word(word: str) -> str:
    if TEMPLATE_MARK in word:
        raise ConfigError(
            f"OME cannot pass on the argument {word[:60]!r}.",
            why="It reads every container as a template, in which {{ begins an instruction.",
            remedy="Put the text into a file of the image or of a volume, and give the file's name.",
        )
    return without_expansion(word)
