"""The commands of Dynamo's workers: the engine under Dynamo, in a role, or the mocker in its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from autotuner.deploy.dynamo.deployment import DynamoDeployment, Workers
from autotuner.deploy.dynamo.planner import PROFILE_FOLDER
from autotuner.errors import ConfigError

Role = Literal["prefill", "decode"]

MODULES: Mapping[str, str] = {"vllm": "dynamo.vllm", "sglang": "dynamo.sglang", "trtllm": "dynamo.trtllm"}
WORKING_FOLDERS: Mapping[str, str] = {
    "vllm": "/workspace/examples/backends/vllm",
    "sglang": "/workspace/examples/backends/sglang",
    "trtllm": "/workspace",
}
BOOTSTRAP_PORT = "12345"
MOCKER_GRID_FILE = "perf_data.npz"
OVERRIDE_FLAG = "--override-engine-args"
_CACHE_TRANSCEIVER = {"cache_transceiver_config": {"backend": "DEFAULT"}}


def worker_command(deployment: DynamoDeployment) -> list[str]:
    """The command of a worker, without arguments."""
    return ["python3", "-m", MODULES[deployment.backend]]


def worker_arguments(deployment: DynamoDeployment, workers: Workers, role: Role) -> list[str]:
    """The arguments of a worker: model, role, and those of its engine."""
    split = deployment.prefill is not None
    path = deployment.model_cache.model_path if deployment.model_cache else deployment.model
    arguments = list(workers.arguments)
    if deployment.backend == "vllm":
        served = ["--served-model-name", deployment.model] if path != deployment.model else []
        return ["--model", path, *served, *(_vllm_role(deployment, role) if split else []), *arguments]
    model = ["--model-path", path, "--served-model-name", deployment.model]
    if deployment.backend == "sglang":
        return [*model, *(_sglang_role(role) if split else []), *arguments]
    if not split:
        return [*model, *arguments]
    options = {**_CACHE_TRANSCEIVER, **({"disable_overlap_scheduler": True} if role == "prefill" else {})}
    return [*model, "--disaggregation-mode", role, *_with_trtllm_options(arguments, options)]


def mocker_command() -> list[str]:
    return ["python3", "-m", "dynamo.mocker"]


def mocker_arguments(deployment: DynamoDeployment, role: Role) -> list[str]:
    """The arguments of a mocker that answers as fast as the profile says."""
    arguments = ["--model-path", deployment.model, "--model-name", deployment.model, "--speedup-ratio", "1.0"]
    if deployment.prefill is not None:
        arguments += _old_role(role) if deployment.release == "0.9.1" else ["--disaggregation-mode", role]
    if deployment.profile is not None:
        grid = f"/{MOCKER_GRID_FILE}" if deployment.profile.mocker_grid is not None else ""
        arguments += ["--planner-profile-data", f"{PROFILE_FOLDER}{grid}"]
    return [*arguments, *deployment.mocker_arguments]


def _old_role(role: Role) -> list[str]:
    return [f"--is-{role}-worker"]


def _vllm_role(deployment: DynamoDeployment, role: Role) -> list[str]:
    if deployment.release == "0.9.1":
        return _old_role(role)
    connector = json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both"}, separators=(",", ":"))
    return ["--disaggregation-mode", role, "--kv-transfer-config", connector]


def _sglang_role(role: Role) -> list[str]:
    transfer = ["--disaggregation-transfer-backend", "nixl", "--disaggregation-bootstrap-port", BOOTSTRAP_PORT]
    return ["--disaggregation-mode", role, *transfer, "--host", "0.0.0.0"]


def _with_trtllm_options(arguments: list[str], options: Mapping[str, Any]) -> list[str]:
    """The arguments with these options in the JSON of OVERRIDE_FLAG, where they do not have them."""
    if OVERRIDE_FLAG not in arguments:
        return [*arguments, OVERRIDE_FLAG, json.dumps(options)]
    position = arguments.index(OVERRIDE_FLAG) + 1
    try:
        present = json.loads(arguments[position])
    except (IndexError, ValueError) as error:
        raise ConfigError(f"{OVERRIDE_FLAG} is no JSON object.", why=str(error), remedy="Correct it.") from error
    return [*arguments[:position], json.dumps({**options, **present}), *arguments[position + 1 :]]
