"""Reads a DynamoGraphDeploymentRequest of v1alpha1 or v1beta1: every key is understood, or named in an error."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from autotuner.deploy.dynamo.deployment import GROUP, ModelCache, check_name
from autotuner.deploy.dynamo.planner import check_planner_settings, snake_case
from autotuner.errors import ConfigError, unknown_name_message

KIND = "DynamoGraphDeploymentRequest"
BACKENDS = ("auto", "vllm", "sglang", "trtllm")
ONLY_FOR_THE_JOB = "it places the operator's profiling Job, and this profile is measured without one"


@dataclass(frozen=True)
class DynamoRequest:
    """What a request asks for, and None where it does not say; times in milliseconds.

    `planner` are settings as written, keys in snake_case, and None where no planner is asked for.
    `base_deployment` names a ConfigMap and the key in it that has the deployment to start from.
    `not_used` are keys that are understood and change nothing here, each with the reason.
    """

    model: str
    api_version: str = "v1beta1"
    name: str | None = None
    namespace: str | None = None
    backend: str = "auto"
    profiler_image: str | None = None
    worker_image: str | None = None
    release: str | None = None
    isl: int | None = None
    osl: int | None = None
    ttft_ms: float | None = None
    itl_ms: float | None = None
    e2e_latency_ms: float | None = None
    optimization_type: str | None = None
    concurrency: float | None = None
    request_rate: float | None = None
    gpu: str | None = None
    vram_mib: float | None = None
    total_gpus: int | None = None
    gpus_per_node: int | None = None
    interconnect: str | None = None
    rdma: bool | None = None
    min_gpus_per_engine: int | None = None
    max_gpus_per_engine: int | None = None
    gpu_discovery: bool | None = None
    max_context_length: int | None = None
    is_moe: bool | None = None
    prefill_points: int | None = None
    decode_points: int | None = None
    use_ai_configurator: bool | None = None
    aic_system: str | None = None
    aic_hf_id: str | None = None
    aic_backend: str | None = None
    aic_backend_version: str | None = None
    dry_run: bool | None = None
    pick_with_webui: bool | None = None
    webui_port: int | None = None
    output_folder: str | None = None
    deployment_file: str | None = None
    search_strategy: str | None = None
    planner: Mapping[str, Any] | None = None
    mocker: bool = False
    model_cache: ModelCache | None = None
    auto_apply: bool = False
    deployment_name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    base_deployment: tuple[str, str] | None = None
    override: Mapping[str, Any] = field(default_factory=dict)
    not_used: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.request_rate is not None:
            raise ConfigError(
                "The request gives both concurrency and requestRate.", remedy="Keep one of them below `workload`."
            )


_Read = Callable[[Any], Any]
"""Reads a value; ValueError says what it must be."""


@dataclass(frozen=True)
class _Unused:
    """A key that is understood and changes nothing here."""

    reason: str = ONLY_FOR_THE_JOB


def _one_of(*choices: str) -> _Read:
    def read(value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return value

    return read


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError("a number above 0")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a whole number above 0")
    return value


def _count_or_zero(value: Any) -> int | None:
    """A count of which 0 means that nothing is given, as in the first profiler."""
    return None if value == 0 and not isinstance(value, bool) else _count(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("a section of keys")
    return value


def _text_map(value: Any) -> Mapping[str, str]:
    if not all(isinstance(key, str) and isinstance(text, str) for key, text in _mapping(value).items()):
        raise ValueError("a section of texts")
    return dict(value)


_Tree = Mapping[str, Any]
"""Keys, each with a section of its own, a pair of field and reader, or `_Unused`."""

_V1BETA1: _Tree = {
    "model": ("model", _text),
    "backend": ("backend", _one_of(*BACKENDS)),
    "image": ("profiler_image", _text),
    "runtimeVersionOverride": ("release", _text),
    "hardware": {
        "gpuSku": ("gpu", _text),
        "vramMb": ("vram_mib", _number),
        "totalGpus": ("total_gpus", _count),
        "numGpusPerNode": ("gpus_per_node", _count),
        "interconnect": ("interconnect", _text),
        "rdma": ("rdma", _flag),
    },
    "workload": {
        "isl": ("isl", _count),
        "osl": ("osl", _count),
        "concurrency": ("concurrency", _number),
        "requestRate": ("request_rate", _number),
    },
    "sla": {
        "ttft": ("ttft_ms", _number),
        "itl": ("itl_ms", _number),
        "e2eLatency": ("e2e_latency_ms", _number),
        "optimizationType": ("optimization_type", _one_of("latency", "throughput")),
    },
    "modelCache": {
        "pvcName": ("pvc_name", _text),
        "pvcModelPath": ("pvc_path", _text),
        "pvcMountPath": ("pvc_mount_path", _text),
    },
    "features": {"planner": ("planner", _mapping), "mocker": {"enabled": ("mocker", _flag)}},
    "overrides": {"dgd": ("override", _mapping), "profilingJob": _Unused()},
    "searchStrategy": ("search_strategy", _one_of("rapid", "thorough")),
    "autoApply": ("auto_apply", _flag),
}

_DISCOVERY = ("gpu_discovery", _flag)

_PROFILER: _Tree = {
    "output_dir": ("output_folder", _text),
    "deployment_ready_timeout_s": _Unused("the time limit of a start is autotune's own"),
    "deployment": {
        "namespace": ("namespace", _text),
        "service_name": _Unused("engines are asked at their own address"),
        "model": ("model", _text),
        "dgd_image": ("worker_image", _text),
        "deployment_timeout": _Unused("the time limit of a start is autotune's own"),
        "model_cache": {
            "pvc_name": ("pvc_name", _text),
            "pvc_path": ("pvc_path", _text),
            "mount_path": ("pvc_mount_path", _text),
        },
    },
    "engine": {
        "backend": ("backend", _one_of(*BACKENDS)),
        "config": ("deployment_file", _text),
        "max_context_length": ("max_context_length", _count_or_zero),
        "is_moe_model": ("is_moe", _flag),
    },
    "hardware": {
        "min_num_gpus_per_engine": ("min_gpus_per_engine", _count_or_zero),
        "max_num_gpus_per_engine": ("max_gpus_per_engine", _count_or_zero),
        "num_gpus_per_node": ("gpus_per_node", _count_or_zero),
        "gpu_model": ("gpu", _text),
        "gpu_vram_mib": ("vram_mib", _number),
        "enable_gpu_discovery": _DISCOVERY,
    },
    "sweep": {
        "prefill_interpolation_granularity": ("prefill_points", _count),
        "decode_interpolation_granularity": ("decode_points", _count),
        "use_ai_configurator": ("use_ai_configurator", _flag),
        "aic_system": ("aic_system", _text),
        "aic_hf_id": ("aic_hf_id", _text),
        "aic_backend": ("aic_backend", _text),
        "aic_backend_version": ("aic_backend_version", _text),
        "dry_run": ("dry_run", _flag),
        "pick_with_webui": ("pick_with_webui", _flag),
        "webui_port": ("webui_port", _count),
    },
    "sla": {
        "isl": ("isl", _count),
        "osl": ("osl", _count),
        "ttft": ("ttft_ms", _number),
        "itl": ("itl_ms", _number),
    },
    "planner": ("planner", _mapping),
}
"""The free-form `profilingConfig.config` of v1alpha1, in snake_case; it is written in camelCase too."""

_V1ALPHA1: _Tree = {
    "model": ("model", _text),
    "backend": ("backend", _one_of(*BACKENDS)),
    "profilingConfig": {
        "profilerImage": ("profiler_image", _text),
        "config": _PROFILER,
        "configMapRef": {"name": ("base_map", _text), "key": ("base_key", _text)},
        "outputPVC": _Unused(),
        "resources": _Unused(),
        "tolerations": _Unused(),
        "nodeSelector": _Unused(),
    },
    "deploymentOverrides": {
        "name": ("deployment_name", _text),
        "namespace": ("namespace", _text),
        "labels": ("labels", _text_map),
        "annotations": ("annotations", _text_map),
        "workersImage": ("worker_image", _text),
    },
    "runtimeVersionOverride": ("release", _text),
    "enableGpuDiscovery": _DISCOVERY,
    "autoApply": ("auto_apply", _flag),
    "useMocker": ("mocker", _flag),
}

_TREES: Mapping[str, _Tree] = {"v1alpha1": _V1ALPHA1, "v1beta1": _V1BETA1}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "v1alpha1": {"isl": 3000, "osl": 500, "auto_apply": False},
    "v1beta1": {"isl": 4000, "osl": 1000, "auto_apply": True, "search_strategy": "rapid"},
}
"""What the versions themselves say of values that are left out."""


def read_request(text: str) -> DynamoRequest:
    """The request of a YAML document; also of the bare `spec` of a v1beta1 request.

    ConfigError, with the path and the nearest name, for a key that no version has, for a value of another
    type, and for what contradicts itself. Keys without a value are left out, as Kubernetes does.
    """
    document = _document(text)
    if "spec" in document or "kind" in document:
        version, name, namespace = _head(document)
        spec = _mapping_at("spec", document.get("spec"))
    else:
        version, name, namespace, spec = "v1beta1", None, None, document
    values: dict[str, Any] = {}
    not_used: dict[str, str] = {}
    _read_section(spec, _TREES[version], "spec", values, not_used)
    return _request(version, name, namespace, values, not_used)


def _document(text: str) -> Mapping[str, Any]:
    import yaml

    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError(
            f"The request is not valid YAML{place}: {problem}.", remedy="Correct the text at that place."
        ) from error
    requests = [item for item in documents if isinstance(item, Mapping) and item.get("kind", KIND) == KIND]
    if len(requests) != 1:
        kinds = ", ".join(
            str(item.get("kind", "no kind")) if isinstance(item, Mapping) else "no object" for item in documents
        )
        raise ConfigError(
            f"There are {len(requests)} documents of kind {KIND}.",
            why=f"The file has: {kinds or 'nothing'}.",
            remedy=f"Give a file with one {KIND}.",
        )
    return requests[0]


def _head(document: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """Version, name and namespace of a Kubernetes object."""
    _check_keys(
        {key: str(key) for key in document}, ("apiVersion", "kind", "metadata", "spec", "status"), "the request"
    )
    group, _, version = str(document.get("apiVersion", "")).partition("/")
    if group != GROUP or version not in _TREES:
        raise ConfigError(
            f"The request has apiVersion {document.get('apiVersion')!r}.",
            why=f"Known are {', '.join(f'{GROUP}/{known}' for known in _TREES)}.",
            remedy="Correct it.",
        )
    metadata = _mapping_at("metadata", document.get("metadata") or {})
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if name is not None:
        check_name(str(name))
    return version, name, namespace


def _read_section(
    section: Mapping[str, Any], tree: _Tree, path: str, values: dict[str, Any], not_used: dict[str, str]
) -> None:
    """Read the values of a section into `values` by field; keys of the profiler's own section in either spelling."""
    is_profiler = path.startswith("spec.profilingConfig.config")
    keys = {snake_case(str(key)) if is_profiler else str(key): str(key) for key in section}
    _check_keys(keys, tree, path)
    for key, spelling in keys.items():
        value, target, place = section[spelling], tree[key], f"{path}.{spelling}"
        if value is None:
            continue
        if isinstance(target, _Unused):
            not_used[place] = target.reason
        elif isinstance(target, Mapping):
            _read_section(_mapping_at(place, value), target, place, values, not_used)
        else:
            name, read = target
            try:
                read_value = read(value)
            except ValueError as error:
                raise ConfigError(f"{place} is {value!r}.", why=f"It must be {error}.", remedy="Correct it.") from error
            if values.setdefault(name, read_value) != read_value:
                raise ConfigError(
                    f"{place} is {value!r}, and another key says {values[name]!r}.", remedy="Keep one of them."
                )


def _request(
    version: str, name: str | None, namespace: str | None, values: dict[str, Any], not_used: dict[str, str]
) -> DynamoRequest:
    if "model" not in values:
        raise ConfigError("The request names no model.", remedy="Give spec.model.")
    cache = {key: values.pop(key, None) for key in ("pvc_name", "pvc_path", "pvc_mount_path")}
    if cache["pvc_name"] is not None:
        mount_path = cache["pvc_mount_path"] or ModelCache.mount_path
        values["model_cache"] = ModelCache(cache["pvc_name"], cache["pvc_path"] or "", mount_path)
    elif cache["pvc_path"] is not None:
        raise ConfigError("The model cache has a path and no claim.", remedy="Give its pvcName.")
    base_map, base_key = values.pop("base_map", None), values.pop("base_key", "disagg.yaml")
    if base_map is not None:
        values["base_deployment"] = (base_map, base_key)
    if "planner" in values:
        values["planner"] = _planner(values["planner"])
    if "e2e_latency_ms" in values and ("ttft_ms" in values or "itl_ms" in values):
        for key in ("ttft_ms", "itl_ms"):
            if values.pop(key, None) is not None:
                not_used[f"spec.sla.{key.removesuffix('_ms')}"] = "e2eLatency takes its place"
    values.setdefault("namespace", namespace)
    known = {item.name for item in fields(DynamoRequest)}
    assert set(values) <= known, set(values) - known
    return DynamoRequest(**{**_DEFAULTS[version], **values}, api_version=version, name=name, not_used=not_used)


def _planner(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The planner's settings in snake_case; ConfigError if no release of the planner has them all.

    The first profiler read keys that begin with `planner_` too.
    """
    plain = {snake_case(str(key)).removeprefix("planner_"): value for key, value in settings.items()}
    problems = []
    for release in ("1.6.1", "1.0.2", "0.9.1"):
        try:
            return check_planner_settings(plain, release)
        except ConfigError as error:
            problems.append(error)
    raise problems[0]


def _mapping_at(path: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path} is {value!r}.", why="It must be a section of keys.", remedy="Correct it.")
    return value


def _check_keys(spellings: Mapping[Any, str], known: Collection[str], path: str) -> None:
    """ConfigError, in the spelling of the user, for a key that is not known."""
    for key, spelling in spellings.items():
        if key not in known:
            raise ConfigError(
                unknown_name_message(f"key in {path}", spelling, known), remedy="Correct it, or leave it out."
            )
