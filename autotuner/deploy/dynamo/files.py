"""The documents of a Dynamo deployment, and the files they are written to."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from autotuner.deploy.documents import to_yaml
from autotuner.deploy.dynamo.deployment import DynamoDeployment
from autotuner.deploy.dynamo.graph import CONFIG_FILE, graph
from autotuner.deploy.dynamo.override import apply_override
from autotuner.deploy.dynamo.workers import MOCKER_GRID_FILE
from autotuner.errors import ConfigError

DEPLOYMENT_FILE = "config_with_planner.yaml"
MOCKER_FILE = "mocker_config_with_planner.yaml"
PROFILE_FILE = "planner-profile-data.configmap.yaml"
MAX_CONFIG_MAP_BYTES = 2**20
"""Kubernetes refuses ConfigMaps of more data."""


def deployment_documents(deployment: DynamoDeployment) -> list[dict[str, Any]]:
    """ConfigMaps of planner and profile, where there are such, and the DynamoGraphDeployment that mounts them."""
    return [*_config_maps(deployment), apply_override(graph(deployment), deployment.override)]


def mocker_documents(deployment: DynamoDeployment) -> list[dict[str, Any]]:
    """The same deployment with mockers that need no GPU in place of the engines; overrides are not for them."""
    return [*_config_maps(deployment), graph(deployment, mocker=True)]


def profile_config_map(deployment: DynamoDeployment) -> dict[str, Any] | None:
    """The ConfigMap with the profile; None without a profile."""
    if deployment.profile is None:
        return None
    grid = deployment.profile.mocker_grid
    binary = {MOCKER_GRID_FILE: base64.b64encode(grid).decode()} if grid is not None else {}
    return config_map(deployment.profile_config_map_name, deployment.profile.files(), binary)


def config_map(name: str, data: Mapping[str, str], binary: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A ConfigMap of texts and of base64-encoded files; ConfigError if it is larger than Kubernetes takes."""
    size = sum(len(text.encode()) for text in (*data.values(), *(binary or {}).values()))
    if size > MAX_CONFIG_MAP_BYTES:
        raise ConfigError(
            f"The ConfigMap {name} has {size:,} bytes.",
            why=f"Kubernetes takes at most {MAX_CONFIG_MAP_BYTES:,}.",
            remedy="Measure fewer points.",
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": dict(data),
        **({"binaryData": dict(binary)} if binary else {}),
    }


def output_config_map(request_name: str, files: Mapping[str, str]) -> dict[str, Any]:
    """The ConfigMap in which Dynamo's operator looks for the result of a request."""
    return config_map(f"dgdr-output-{request_name}", files)


def deployment_files(deployment: DynamoDeployment) -> dict[str, str]:
    """The text of each file by its name: the deployment, its mocker twin, and planner and profile by themselves."""
    files = {
        DEPLOYMENT_FILE: to_yaml(deployment_documents(deployment)),
        MOCKER_FILE: to_yaml(mocker_documents(deployment)),
    }
    if deployment.planner is not None:
        files[CONFIG_FILE] = json.dumps(deployment.planner, indent=2) + "\n"
    profile = profile_config_map(deployment)
    if profile is not None:
        files[PROFILE_FILE] = to_yaml([profile])
    return files


def _config_maps(deployment: DynamoDeployment) -> list[dict[str, Any]]:
    profile = profile_config_map(deployment)
    maps = [profile] if profile is not None else []
    if not deployment.has_planner_file:
        return maps
    text = json.dumps(deployment.planner, separators=(",", ":"))
    return [config_map(deployment.planner_config_map_name, {CONFIG_FILE: text}), *maps]
