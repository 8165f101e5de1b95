"""A strict check of manifests: against Kubernetes' own models, and against what OME's definitions have."""

from __future__ import annotations

import re
import types
import typing
from functools import cache
from typing import Any, NamedTuple

import msgspec
import yaml
from lightkube.models import apps_v1, core_v1, meta_v1, rbac_v1

QUANTITY = re.compile(r"\d+(\.\d+)?(m|[KMGT]i?)?")

LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


class ResourceName(msgspec.Struct):
    name: str
    kind: str | None = None


class OmeEngine(msgspec.Struct):
    """The fields of OME's EngineSpec that are used here; it has those of a pod's specification beside its own."""

    minReplicas: int  # noqa: N815
    maxReplicas: int  # noqa: N815
    deploymentStrategy: apps_v1.DeploymentStrategy  # noqa: N815
    runner: core_v1.Container
    labels: dict[str, str] | None = None
    affinity: core_v1.Affinity | None = None
    automountServiceAccountToken: bool | None = None  # noqa: N815
    serviceAccountName: str | None = None  # noqa: N815
    imagePullSecrets: list[core_v1.LocalObjectReference] | None = None  # noqa: N815
    nodeSelector: dict[str, str] | None = None  # noqa: N815
    tolerations: list[core_v1.Toleration] | None = None
    hostNetwork: bool | None = None  # noqa: N815
    dnsPolicy: str | None = None  # noqa: N815
    volumes: list[core_v1.Volume] | None = None


class InferenceServiceSpec(msgspec.Struct):
    model: ResourceName
    runtime: ResourceName
    engine: OmeEngine


class InferenceService(msgspec.Struct):
    apiVersion: str  # noqa: N815
    kind: str
    metadata: meta_v1.ObjectMeta
    spec: InferenceServiceSpec


class ModelFormat(msgspec.Struct):
    modelFramework: ResourceName  # noqa: N815
    modelFormat: ResourceName  # noqa: N815
    autoSelect: bool  # noqa: N815
    modelArchitecture: str | None = None  # noqa: N815


class RuntimeEngine(msgspec.Struct):
    volumes: list[core_v1.Volume]
    runner: core_v1.Container


class ServingRuntimeSpec(msgspec.Struct):
    disabled: bool
    supportedModelFormats: list[ModelFormat]  # noqa: N815
    protocolVersions: list[str]  # noqa: N815
    engineConfig: RuntimeEngine  # noqa: N815


class ServingRuntime(msgspec.Struct):
    apiVersion: str  # noqa: N815
    kind: str
    metadata: meta_v1.ObjectMeta
    spec: ServingRuntimeSpec


class Kind(NamedTuple):
    version: str
    model: Any


KINDS = {
    "Deployment": Kind("apps/v1", apps_v1.Deployment),
    "Service": Kind("v1", core_v1.Service),
    "ServiceAccount": Kind("v1", core_v1.ServiceAccount),
    "Role": Kind("rbac.authorization.k8s.io/v1", rbac_v1.Role),
    "RoleBinding": Kind("rbac.authorization.k8s.io/v1", rbac_v1.RoleBinding),
    "InferenceService": Kind("ome.io/v1beta1", InferenceService),
    "ServingRuntime": Kind("ome.io/v1beta1", ServingRuntime),
}


def read_documents(text: str) -> list[dict[str, Any]]:
    """The documents of a YAML file, read by libyaml where PyYAML has it: ten times as fast."""
    return list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def problems(document: dict[str, Any]) -> list[str]:
    """What is wrong with a manifest: unknown fields, missing fields, wrong types, and no quantities."""
    version, model = KINDS[document["kind"]]
    wrong = [] if document["apiVersion"] == version else [f"apiVersion is not {version}"]
    return [*wrong, *_problems(document, model, document["kind"])]


def _problems(value: Any, kind: Any, path: str) -> list[str]:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        choices = [choice for choice in typing.get_args(kind) if choice is not types.NoneType]
        return min((_problems(value, choice, path) for choice in choices), key=len)
    if origin is list:
        (item,) = typing.get_args(kind)
        if not isinstance(value, list):
            return [f"{path} is no list"]
        return [text for index, part in enumerate(value) for text in _problems(part, item, f"{path}[{index}]")]
    if origin is dict or kind is dict:
        return _mapping_problems(value, path)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct_problems(value, kind, path)
    return [] if type(value) is kind or kind is typing.Any else [f"{path} is {value!r}, no {kind}"]


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _struct_problems(value: Any, kind: type[msgspec.Struct], path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path} is no mapping"]
    fields = _fields(kind)
    wrong = [f"{path}.{name} does not exist" for name in value if name not in fields]
    wrong += [f"{path}.{name} is missing" for name, field in fields.items() if field.required and name not in value]
    for name, part in value.items():
        if name in fields:
            wrong += _problems(part, fields[name].type, f"{path}.{name}")
    return wrong


def _mapping_problems(value: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path} is no mapping"]
    wrong = [f"{path}.{key} is no text" for key, part in value.items() if not isinstance(part, str)]
    if path.endswith((".labels", ".matchLabels", ".nodeSelector", ".selector")):
        wrong += [f"{path}.{key} is no label" for key, part in value.items() if not LABEL.fullmatch(str(part))]
    if path.endswith((".limits", ".requests")):
        wrong += [f"{path}.{key} is no quantity" for key, part in value.items() if not QUANTITY.fullmatch(str(part))]
    return wrong
