"""What a Dynamo deployment is made from: workers, images, model cache, planner and measured profile."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from autotuner.deploy.dynamo.planner import check_planner_settings, check_release
from autotuner.errors import ConfigError, unknown_name_message

Backend = Literal["vllm", "sglang", "trtllm"]
ApiVersion = Literal["v1alpha1", "v1beta1"]
GROUP = "nvidia.com"

REGISTRY = "nvcr.io/nvidia/ai-dynamo"
WORKER_IMAGES: Mapping[str, str] = {
    "vllm": "vllm-runtime",
    "sglang": "sglang-runtime",
    "trtllm": "tensorrtllm-runtime",
}

MAX_NAME_LENGTH = 45
"""Longest name of a deployment together with that of a component, which name its pods."""

PREFILL_KEYS = ("prefill_isl", "prefill_ttft", "prefill_thpt_per_gpu")
DECODE_KEYS = ("x_kv_usage", "y_context_length", "z_itl", "z_thpt_per_gpu")
MIN_PREFILL_POINTS, MIN_DECODE_POINTS = 4, 4
"""The planner interpolates cubically over prompt length and fails with fewer points."""


@dataclass(frozen=True)
class Workers:
    """The workers of one role: `gpus` and engine `arguments` of each, and their number.

    A worker on several `nodes` has its GPUs spread evenly over them.
    """

    arguments: tuple[str, ...] = ()
    gpus: int = 1
    replicas: int = 1
    nodes: int = 1

    def __post_init__(self) -> None:
        if self.gpus < 1 or self.nodes < 1 or self.gpus % self.nodes or self.replicas < 0:
            raise ConfigError(
                f"{self.replicas} workers of {self.gpus} GPUs on {self.nodes} nodes cannot be deployed.",
                remedy="Give at least one GPU for each worker, the same number on every node.",
            )


@dataclass(frozen=True)
class Images:
    """Container images of a deployment; the mocker's image runs the frontend of its twin too."""

    frontend: str
    worker: str
    planner: str
    mocker: str

    @classmethod
    def of_release(cls, backend: Backend, release: str, registry: str = REGISTRY) -> Images:
        """The images that Dynamo publishes; before 1.1 the worker's image has the planner and the mocker too."""
        check_release(release)
        worker = f"{registry}/{WORKER_IMAGES[backend]}:{release}"
        has_planner_image = tuple(map(int, release.split("."))) >= (1, 1)
        planner = f"{registry}/dynamo-planner:{release}" if has_planner_image else worker
        return cls(frontend=worker, worker=worker, planner=planner, mocker=planner)

    @classmethod
    def of_worker_image(cls, worker: str, release: str) -> Images:
        """The images beside a worker's image, of the same registry and tag."""
        check_release(release)
        folder, _, name = worker.rpartition("/")
        _, colon, tag = name.partition(":")
        has_planner_image = tuple(map(int, release.split("."))) >= (1, 1)
        planner = f"{folder}/dynamo-planner{colon}{tag}".lstrip("/") if has_planner_image else worker
        return cls(frontend=worker, worker=worker, planner=planner, mocker=planner)


@dataclass(frozen=True)
class ModelCache:
    """A persistent volume claim with the model's weights, which workers mount instead of downloading them."""

    pvc: str
    path_in_pvc: str = ""
    mount_path: str = "/opt/model-cache"

    @property
    def model_path(self) -> str:
        """The model's folder in a container."""
        return "/".join(filter(None, (self.mount_path.rstrip("/"), self.path_in_pvc.strip("/"))))


@dataclass(frozen=True)
class ProfileData:
    """A measured profile in the planner's own form; times in milliseconds, see PREFILL_KEYS and DECODE_KEYS.

    `decode` has `max_kv_tokens` too, a plain number. `mocker_grid` is the content of the mocker's own npz
    file, from which it takes step times as they are; without it newer mockers fit straight lines.
    """

    prefill: Mapping[str, Sequence[float]]
    decode: Mapping[str, Any]
    mocker_grid: bytes | None = None

    def __post_init__(self) -> None:
        self._check("prefill", self.prefill, PREFILL_KEYS, MIN_PREFILL_POINTS)
        self._check("decode", self.decode, DECODE_KEYS, MIN_DECODE_POINTS)
        if not self.decode.get("max_kv_tokens", 0) > 0:
            raise ConfigError(
                "The decode profile has no max_kv_tokens.", remedy="Give the engine's KV cache in tokens."
            )

    def _check(self, phase: str, points: Mapping[str, Any], keys: Sequence[str], least: int) -> None:
        lengths = {key: len(points.get(key, ())) for key in keys}
        if len(set(lengths.values())) > 1 or min(lengths.values()) < least:
            counts = ", ".join(f"{key} has {count}" for key, count in lengths.items())
            raise ConfigError(
                f"The {phase} profile cannot be read by the planner.",
                why=f"It needs at least {least} points, each complete: {counts}.",
                remedy="Measure more points.",
            )

    def files(self) -> dict[str, str]:
        """The two files of the ConfigMap, as JSON."""
        prefill = {key: list(self.prefill[key]) for key in PREFILL_KEYS}
        decode = {key: list(self.decode[key]) for key in DECODE_KEYS}
        decode["max_kv_tokens"] = self.decode["max_kv_tokens"]
        return {"prefill_raw_data.json": json.dumps(prefill), "decode_raw_data.json": json.dumps(decode)}


@dataclass(frozen=True)
class DynamoDeployment:
    """Prefill and decode workers behind Dynamo's frontend, with its planner; aggregated where `prefill` is None.

    `planner` are its complete settings, of `planner_settings`. ConfigMaps that have no name get one with a
    hash of their content, except in releases that read a fixed name. `override` is merged into the
    DynamoGraphDeployment last.
    """

    name: str
    backend: Backend
    model: str
    decode: Workers
    images: Images
    prefill: Workers | None = None
    planner: Mapping[str, Any] | None = None
    profile: ProfileData | None = None
    api_version: ApiVersion = "v1beta1"
    release: str = "1.6.1"
    model_cache: ModelCache | None = None
    secret: str | None = "hf-token-secret"
    planner_config_map: str | None = None
    profile_config_map: str | None = None
    mocker_name: str | None = None
    mocker_arguments: tuple[str, ...] = ()
    override: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_release(self.release)
        if self.backend not in WORKER_IMAGES:
            raise ConfigError(unknown_name_message("backend of Dynamo", self.backend, WORKER_IMAGES))
        if self.api_version == "v1beta1" and self.release != "1.6.1":
            raise ConfigError(
                f"Dynamo {self.release} has no DynamoGraphDeployment of v1beta1.", remedy="Take v1alpha1 for it."
            )
        for name in (self.name, self.mocker_deployment_name):
            check_name(name, [self.component_name("prefill"), self.component_name("decode")])
        if self.planner is not None:
            check_planner_settings(self.planner, self.release)
            if self.profile is None and self.planner.get("pre_deployment_sweeping_mode", "thorough") == "thorough":
                raise ConfigError(
                    "A planner that scales by measured throughput needs a profile.",
                    remedy="Give one, or set pre_deployment_sweeping_mode: none.",
                )

    @property
    def mocker_deployment_name(self) -> str:
        return self.mocker_name or f"{self.name}-mocker"

    @property
    def profile_config_map_name(self) -> str:
        if self.profile_config_map is not None:
            return self.profile_config_map
        content = json.dumps(self.profile.files() if self.profile else {})
        return _map_name("planner-profile-data", content, self.release)

    @property
    def planner_config_map_name(self) -> str:
        if self.planner_config_map is not None:
            return self.planner_config_map
        return _map_name("planner-config", json.dumps(self.planner, sort_keys=True), self.release)

    @property
    def has_planner_file(self) -> bool:
        """Whether the planner reads its settings from a file; before 1.0 they are arguments."""
        return self.planner is not None and self.release != "0.9.1"

    def component_name(self, role: Literal["prefill", "decode"], *, mocker: bool = False) -> str:
        """The name by which the planner of the release finds the workers of a role."""
        if self.api_version == "v1beta1" or mocker or self.backend == "sglang":
            return role
        return f"{'Vllm' if self.backend == 'vllm' else 'TRTLLM'}{role.capitalize()}Worker"


def check_name(name: str, components: Sequence[str] = ()) -> None:
    """ConfigError for a name that Kubernetes refuses, or that is too long together with that of a component."""
    longest = max((len(component) for component in components), default=0)
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
        raise ConfigError(
            f"A deployment cannot be called {name!r}.",
            why="Kubernetes takes small letters, digits and dashes, which begin and end with a letter or digit.",
            remedy="Choose another name.",
        )
    if len(name) + longest > MAX_NAME_LENGTH:
        raise ConfigError(
            f"The name {name} is too long.",
            why=f"Pods are named after the deployment and its component, at most {MAX_NAME_LENGTH} characters together"
            + (f", and the longest component has {longest}." if longest else "."),
            remedy=f"Choose a name of at most {MAX_NAME_LENGTH - longest} characters.",
        )


def _map_name(prefix: str, content: str, release: str) -> str:
    if release == "0.9.1":
        return prefix
    return f"{prefix}-{hashlib.sha256(content.encode()).hexdigest()[:4]}"
