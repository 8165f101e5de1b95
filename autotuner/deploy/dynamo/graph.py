"""DynamoGraphDeployments: v1beta1, whose components have pod templates, and v1alpha1, whose services have fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotuner.deploy.dynamo.deployment import GROUP, DynamoDeployment, Workers
from autotuner.deploy.dynamo.planner import PROFILE_FOLDER, planner_arguments
from autotuner.deploy.dynamo.workers import (
    WORKING_FOLDERS,
    Role,
    mocker_arguments,
    mocker_command,
    worker_arguments,
    worker_command,
)

CONFIG_FOLDER = "/workspace/planner_config"
CONFIG_FILE = "planner_config.json"
PLANNER_FOLDER = "/workspace/components/src/dynamo/planner"


@dataclass(frozen=True)
class Component:
    """One component of a deployment, before it is written in either version.

    `config_maps` are names of ConfigMaps by the folder where they are mounted, `gpus` those of one node.
    """

    name: str
    type: str
    image: str
    command: list[str]
    arguments: list[str]
    replicas: int = 1
    role: Role | None = None
    gpus: int = 0
    nodes: int = 1
    folder: str | None = None
    config_maps: Mapping[str, str] | None = None
    has_secret: bool = False
    has_model: bool = False


def components(deployment: DynamoDeployment, *, mocker: bool) -> list[Component]:
    """Frontend, workers and planner."""
    images = deployment.images
    frontend = Component(
        "Frontend",
        "frontend",
        images.mocker if mocker else images.frontend,
        ["python3"],
        ["-m", "dynamo.frontend"],
        has_model=not mocker,
    )
    roles: list[tuple[Role, Workers | None]] = [("decode", deployment.decode), ("prefill", deployment.prefill)]
    workers = [_worker(deployment, role, pool, mocker) for role, pool in roles if pool is not None]
    planner = [_planner(deployment)] if deployment.planner is not None else []
    return [frontend, *workers, *planner]


def _worker(deployment: DynamoDeployment, role: Role, workers: Workers, mocker: bool) -> Component:
    split = deployment.prefill is not None
    name = deployment.component_name(role, mocker=mocker)
    if not split and deployment.api_version == "v1beta1":
        name = "worker"
    shared: dict[str, Any] = {
        "name": name,
        "type": role if split else "worker",
        "role": role if split else None,
        "replicas": workers.replicas,
        "has_secret": True,
    }
    if mocker:
        maps = {PROFILE_FOLDER: deployment.profile_config_map_name} if deployment.profile else None
        return Component(
            image=deployment.images.mocker,
            command=mocker_command(),
            arguments=mocker_arguments(deployment, role),
            folder="/workspace",
            config_maps=maps,
            **shared,
        )
    return Component(
        image=deployment.images.worker,
        command=worker_command(deployment),
        arguments=worker_arguments(deployment, workers, role),
        folder=WORKING_FOLDERS[deployment.backend],
        gpus=workers.gpus // workers.nodes,
        nodes=workers.nodes,
        has_model=True,
        **shared,
    )


def _planner(deployment: DynamoDeployment) -> Component:
    assert deployment.planner is not None
    config_maps = {CONFIG_FOLDER: deployment.planner_config_map_name} if deployment.has_planner_file else {}
    if deployment.profile is not None:
        config_maps[PROFILE_FOLDER] = deployment.profile_config_map_name
    module = "dynamo.planner" if deployment.has_planner_file else "dynamo.planner.planner_sla"
    arguments = (
        ["--config", f"{CONFIG_FOLDER}/{CONFIG_FILE}"]
        if deployment.has_planner_file
        else planner_arguments(deployment.planner)
    )
    return Component(
        "Planner",
        "planner",
        deployment.images.planner,
        ["python3", "-m", module],
        arguments,
        folder=PLANNER_FOLDER,
        config_maps=config_maps,
    )


def graph(deployment: DynamoDeployment, *, mocker: bool = False) -> dict[str, Any]:
    """The DynamoGraphDeployment, without overrides."""
    name = deployment.mocker_deployment_name if mocker else deployment.name
    parts = components(deployment, mocker=mocker)
    spec: dict[str, Any]
    if deployment.api_version == "v1beta1":
        spec = {"components": [_component(deployment, part) for part in parts]}
    else:
        spec = {"services": {part.name: _service(deployment, part) for part in parts}}
        if deployment.model_cache is not None and not mocker:
            spec = {"pvcs": [{"name": deployment.model_cache.pvc, "create": False}], **spec}
    return {
        "apiVersion": f"{GROUP}/{deployment.api_version}",
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": name},
        "spec": spec,
    }


def _component(deployment: DynamoDeployment, part: Component) -> dict[str, Any]:
    """A component of v1beta1: a pod template with one container."""
    container: dict[str, Any] = {
        "name": "main",
        "image": part.image,
        "command": part.command,
        "args": part.arguments,
    }
    if part.folder:
        container["workingDir"] = part.folder
    if part.has_secret and deployment.secret:
        container["envFrom"] = [{"secretRef": {"name": deployment.secret}}]
    if part.gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": str(part.gpus)}}
    mounts, volumes = _mounts(part)
    if deployment.model_cache is not None and part.has_model:
        cache = deployment.model_cache
        mounts.append({"name": "model-cache", "mountPath": cache.mount_path, "readOnly": True})
        volumes.append({"name": "model-cache", "persistentVolumeClaim": {"claimName": cache.pvc, "readOnly": True}})
    if mounts:
        container["volumeMounts"] = mounts
    pod: dict[str, Any] = {"containers": [container], **({"volumes": volumes} if volumes else {})}
    return {
        "name": part.name,
        "type": part.type,
        "replicas": part.replicas,
        **({"multinode": {"nodeCount": part.nodes}} if part.nodes > 1 else {}),
        "podTemplate": {"spec": pod},
    }


def _service(deployment: DynamoDeployment, part: Component) -> dict[str, Any]:
    """A service of v1alpha1: fields of its own, and a main container."""
    container: dict[str, Any] = {"image": part.image, "command": part.command, "args": part.arguments}
    if part.folder:
        container["workingDir"] = part.folder
    mounts, volumes = _mounts(part)
    if mounts:
        container["volumeMounts"] = mounts
    service: dict[str, Any] = {
        "componentType": "worker" if part.role else part.type,
        **({"subComponentType": part.role} if part.role else {}),
        "replicas": part.replicas,
        **({"multinode": {"nodeCount": part.nodes}} if part.nodes > 1 else {}),
        "extraPodSpec": {"mainContainer": container, **({"volumes": volumes} if volumes else {})},
    }
    if part.has_secret and deployment.secret:
        service["envFromSecret"] = deployment.secret
    if part.gpus:
        service["resources"] = {"limits": {"gpu": str(part.gpus)}}
    if deployment.model_cache is not None and part.has_model:
        cache = deployment.model_cache
        service["volumeMounts"] = [{"name": cache.pvc, "mountPoint": cache.mount_path}]
    return service


def _mounts(part: Component) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    maps = part.config_maps or {}
    mounts = [{"name": name, "mountPath": folder, "readOnly": True} for folder, name in maps.items()]
    return mounts, [{"name": name, "configMap": {"name": name}} for name in maps.values()]
