"""Phases 6 and 7 on Dynamo: the deployment of the chosen workers with its planner, and its mocker twin."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from autotuner.deploy.dynamo import (
    DynamoDeployment,
    DynamoRequest,
    Images,
    ProfileData,
    Workers,
    deployment_files,
    output_config_map,
    planner_settings,
    to_yaml,
)
from autotuner.engines.dynamo import BACKENDS, dynamo_arguments
from autotuner.errors import ConfigError, MachineError, RunStoreError
from autotuner.profiling.artefacts import MOCKER_FILE
from autotuner.profiling.mappings import ParallelMapping
from autotuner.profiling.outcome import ProfileOutcome
from autotuner.profiling.request import SlaRequest
from autotuner.profiling.workers import WorkerSetup
from autotuner.redaction import write_redacted

DEPLOYMENT_FILE = "config_with_planner.yaml"
RELEASES = ("1.6.1", "1.0.2", "0.9.1")
MAX_GPUS_WITHOUT_BUDGET = 8
"""The planner's own default budget."""
KUBECTL_SECONDS = 120.0
MODEL_LETTERS = 12
"""Of the model in a default name: with engine, -mocker and the longest component a pod has at most 45."""


def runs_on_dynamo(request: SlaRequest) -> bool:
    """Whether the profiled workers are ones that Dynamo can launch: an engine of its own, and not an endpoint."""
    return request.url is None and request.runtime in BACKENDS


def dynamo_deployment(
    outcome: ProfileOutcome,
    setup: WorkerSetup,
    *,
    name: str | None = None,
    api_version: Literal["v1beta1", "v1alpha1"] = "v1beta1",
    release: str = "1.6.1",
    planner: Mapping[str, Any] | None = None,
    image: str | None = None,
) -> DynamoDeployment:
    """The deployment of the chosen workers, as many as the plan says, with a planner that has their profile.

    `planner` are settings of the user that win, `image` is that of the workers. ConfigError where the profile is not
    complete or Dynamo does not run its workers.
    """
    request, selection, profile = outcome.record.request, outcome.selection, outcome.profile
    prefill, decode = selection.prefill_pick, selection.decode_pick
    if not outcome.is_complete or prefill is None or decode is None or profile is None:
        raise ConfigError(
            "There is no deployment of an incomplete profile.",
            why=f"{'; '.join(outcome.profile_problems)}.",
            remedy="Repeat `autotune sla run`, with --accept-nearest if a target was missed.",
        )
    if not runs_on_dynamo(request):
        raise ConfigError(
            f"Dynamo does not launch the profiled {'endpoint' if request.url else request.runtime}.",
            remedy=f"Profile one of {', '.join(BACKENDS)} for manifests; the planner's files are in the folder.",
        )
    plan = outcome.plan
    counts = (plan.prefill_workers, plan.decode_workers) if plan else (1, 1)
    return dynamo_workers_deployment(
        outcome,
        setup,
        (prefill.mapping, decode.mapping),
        counts,
        name=name,
        api_version=api_version,
        release=release,
        planner=planner,
        image=image,
    )


def dynamo_workers_deployment(
    outcome: ProfileOutcome,
    setup: WorkerSetup,
    mappings: tuple[ParallelMapping, ParallelMapping],
    replicas: tuple[int, int],
    *,
    with_planner: bool = True,
    name: str | None = None,
    api_version: Literal["v1beta1", "v1alpha1"] = "v1beta1",
    release: str = "1.6.1",
    planner: Mapping[str, Any] | None = None,
    image: str | None = None,
) -> DynamoDeployment:
    """The deployment of `replicas` prefill and decode workers of two mappings, on an engine that Dynamo runs.

    A planner and its profile are part of it with `with_planner`, and only where the profile has the curves that it
    reads: those are of the workers that the profile chose.
    """
    request, profile, runtime = outcome.record.request, outcome.profile, setup.experiment.runtime
    prefill, decode = (
        Workers(dynamo_arguments(setup.candidate(mapping), runtime), mapping.gpus, count)
        for mapping, count in zip(mappings, replicas, strict=True)
    )
    backend: Any = request.runtime
    settings = data = None
    if with_planner and profile is not None and outcome.is_complete:
        gpus = sum(worker.gpus * worker.replicas for worker in (prefill, decode))
        settings = planner_settings(
            release,
            backend=request.runtime,
            model=request.model,
            ttft_ms=1000 * request.ttft,
            itl_ms=1000 * request.itl,
            prefill_gpus=prefill.gpus,
            decode_gpus=decode.gpus,
            max_gpu_budget=request.total_gpus or max(gpus, MAX_GPUS_WITHOUT_BUDGET),
            given=planner or {},
        )
        data = ProfileData(profile.prefill_json(), profile.decode_json(), _mocker_grid(outcome.record.path))
    return DynamoDeployment(
        name=name or default_name(request),
        backend=backend,
        model=request.model,
        decode=decode,
        prefill=prefill,
        images=Images.of_worker_image(image, release) if image else Images.of_release(backend, release),
        planner=settings,
        profile=data,
        api_version=api_version,
        release=release,
    )


def _mocker_grid(folder: Path) -> bytes | None:
    """The mocker's own grid, from which newer mockers interpolate; they fit straight lines to the planner's files."""
    path = folder / MOCKER_FILE
    return path.read_bytes() if path.exists() else None


def default_name(request: SlaRequest) -> str:
    """A short name that Kubernetes takes, of the model and the engine."""
    words = re.sub(r"[^a-z0-9]+", "-", request.model.rsplit("/", 1)[-1].lower()).strip("-")
    return f"{words[:MODEL_LETTERS].strip('-') or 'model'}-{request.runtime}"


def write_manifests(folder: Path, deployment: DynamoDeployment) -> list[Path]:
    """Write the deployment, its mocker twin, the planner's configuration and the ConfigMaps; RunStoreError if not."""
    files = dict(deployment_files(deployment))
    files["dgdr-output.configmap.yaml"] = to_yaml([output_config_map(deployment.name, dict(files))])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_redacted(folder / name, text)
    except OSError as error:
        raise RunStoreError(f"The manifests cannot be written to '{folder}'.", why=f"{error.strerror}.") from error
    return [folder / name for name in files]


UNREACHABLE_CLUSTER = re.compile(r"connection refused|unable to connect|no such host|i/o timeout", re.IGNORECASE)


def apply_deployment(path: Path, *, namespace: str | None, dry_run: bool) -> str:
    """Apply a manifest with kubectl, or only let the cluster check it; what kubectl printed.

    MachineError if there is no kubectl or the cluster refuses.
    """
    command = ["kubectl", "apply", "-f", str(path)]
    command += ["--namespace", namespace] if namespace else []
    command += ["--dry-run=server"] if dry_run else []
    if shutil.which("kubectl") is None:
        raise MachineError("There is no kubectl.", remedy=f"Install it, or apply {path} from a machine that has it.")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=KUBECTL_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise MachineError("kubectl does not answer.", why=f"It took more than {KUBECTL_SECONDS:g} s.") from error
    if done.returncode and UNREACHABLE_CLUSTER.search(done.stderr):
        raise MachineError(
            "kubectl reaches no cluster.",
            why=done.stderr.strip().splitlines()[-1],
            remedy="Choose one with `kubectl config use-context`, or set KUBECONFIG. Nothing was applied.",
        )
    if done.returncode:
        raise MachineError(
            "The cluster refuses the deployment.", why=" ".join(done.stderr.split()), remedy="Nothing else was applied."
        )
    return done.stdout


def request_values(dynamo: DynamoRequest) -> tuple[dict[str, Any], list[str]]:
    """The fields of an SlaRequest that a DynamoGraphDeploymentRequest sets, and a sentence for each key not used here.

    ConfigError for an end-to-end target, which no point is judged by.
    """
    if dynamo.e2e_latency_ms is not None:
        raise ConfigError(
            "The request sets sla.e2eLatency.",
            why="Prefill and decode are chosen by one target each.",
            remedy="Split it: sla.ttft for the first token, sla.itl for every further one.",
        )
    rapid = dynamo.use_ai_configurator or (dynamo.use_ai_configurator is None and dynamo.search_strategy == "rapid")
    values: dict[str, Any] = {
        "model": dynamo.model,
        "runtime": "vllm" if dynamo.backend == "auto" else dynamo.backend,
        "isl": dynamo.isl,
        "osl": dynamo.osl,
        "ttft": dynamo.ttft_ms / 1000 if dynamo.ttft_ms else None,
        "itl": dynamo.itl_ms / 1000 if dynamo.itl_ms else None,
        "rate": dynamo.request_rate,
        "concurrency": None if dynamo.concurrency is None else max(1, round(dynamo.concurrency)),
        "gpu": dynamo.gpu or dynamo.aic_system,
        "total_gpus": dynamo.total_gpus,
        "prefill_points": dynamo.prefill_points,
        "decode_points": dynamo.decode_points,
        "max_context_length": dynamo.max_context_length,
        "evaluator": "predicted" if rapid else None,
    }
    remarks = [f"{key}: {reason}" for key, reason in dynamo.not_used.items()]
    remarks += _unused_fields(dynamo)
    if dynamo.backend == "auto":
        remarks.append("backend: auto is vllm here; name another one to profile it")
    return {name: value for name, value in values.items() if value is not None}, remarks


def _unused_fields(dynamo: DynamoRequest) -> list[str]:
    """A sentence for each field that was set and changes nothing in a profile."""
    reasons = {
        "vram_mib": "the GPU's memory is that of its type",
        "gpus_per_node": "workers of several nodes are not profiled",
        "interconnect": "it is that of the GPU type",
        "rdma": "the KV transfer is not measured",
        "optimization_type": "throughput per GPU is maximised within the targets",
        "base_deployment": "workers are launched by autotune; give their flags with --set",
        "deployment_file": "workers are launched by autotune; give their flags with --set",
        "pick_with_webui": "open the page of the profile with `autotune ui FOLDER`",
        "aic_backend_version": "predictions are not of one version",
    }
    fields: Sequence[tuple[str, Any]] = [(name, getattr(dynamo, name)) for name in reasons]
    return [f"{name}: not used, {reasons[name]}" for name, value in fields if value not in (None, False)]
