"""What the status of a Job's pod means: it waits, runs, or has ended, and which failure it shows.

Reasons are those of the API (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/) and of the kubelet's
and scheduler's events; messages differ between versions and are only quoted, but where no reason tells two apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from autotuner.core import Failure, FailureKind

Json = Mapping[str, Any]

IMAGE_REASONS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)
"""Reasons for which a container waits that no waiting mends."""

NODE_REASONS = (
    "Evicted",
    "Preempting",
    "Preempted",
    "NodeLost",
    "NodeShutdown",
    "NodeAffinity",
    "Shutdown",
    "Terminated",
    "UnexpectedAdmissionError",
)
"""Reasons of a pod that its node, and not its program, has ended; kubelets write OutOfcpu, OutOfmemory and such too."""

CANNOT_START_REASONS = ("StartError", "ContainerCannotRun", "RunContainerError", "CreateContainerError")
CANNOT_START, CANNOT_INVOKE, COMMAND_NOT_FOUND = 125, 126, 127
"""Exit statuses of `docker run` for a container that could not be started, and for its command."""

VOLUME_EVENTS = ("FailedMount", "FailedAttachVolume", "ProvisioningFailed")
OUT_OF_MEMORY_MESSAGE = "Out of memory: the kernel killed the container at its memory limit (OOMKilled)"

IMAGE_REMEDY = "Correct runtime.image; for a private registry give the Secret of its password as --image-pull-secret."
NODE_REMEDY = "The trial is repeated; if it recurs, ask the cluster's administrator why pods are ended."
VOLUME_REMEDY = "Look at the claim with `kubectl get pvc`, and correct --model-volume."
QUOTA_REMEDY = "Ask for a larger quota in this namespace, choose another --namespace, or allow fewer GPUs with --gpus."
REJECTED_REMEDY = "Change what the message names, or ask the cluster's administrator for an exception."
UNSCHEDULABLE_REMEDY = (
    "Wait longer with --queue-timeout, or correct --node-selector and --toleration; `kubectl describe nodes` shows "
    "GPUs, labels and taints."
)
SECRET_REMEDY = "Make the Secret that the message names, or name another one as deployment.secret_name."


@dataclass(frozen=True)
class PodState:
    """A pod as far as a launch needs it.

    `stage` is that of its container. `failure` is what the cluster did to it, which its log cannot show;
    `is_final` is False for a failure that may pass by waiting. `exit_status` is that of an ended container, `note`
    what else is to be told in the log.
    """

    stage: Literal["waiting", "running", "ended"]
    failure: Failure | None = None
    is_final: bool = True
    exit_status: int | None = None
    note: str = ""
    is_ready: bool = False
    is_scheduled: bool = True


def judge_pod(pod: Json, events: Sequence[Json] = ()) -> PodState:
    """The state of a pod, with the events about it."""
    status: Json = pod.get("status") or {}
    failure = _node_failure(pod)
    if failure is not None:
        return PodState("ended", failure)
    container = _first(status.get("containerStatuses"))
    state: Json = container.get("state") or {}
    terminated = state.get("terminated")
    if terminated is not None:
        return _ended(terminated)
    waiting: Json = state.get("waiting") or {}
    if waiting.get("reason") in IMAGE_REASONS:
        return PodState("waiting", _image_failure(waiting, container, events))
    if waiting.get("reason") == "CreateContainerConfigError":
        message = waiting.get("message", "the container's settings cannot be used")
        return PodState("waiting", Failure(FailureKind.REJECTED, message, SECRET_REMEDY))
    if state.get("running") is not None:
        return PodState("running", is_ready=_condition(status, "Ready").get("status") == "True")
    if status.get("phase") in ("Failed", "Succeeded"):
        return PodState("ended", exit_status=0 if status["phase"] == "Succeeded" else 1, note=status.get("message", ""))
    return _not_started(status, waiting, events)


def _node_failure(pod: Json) -> Failure | None:
    """The failure of a pod that was ended by its node or by the cluster, or that was deleted by someone else."""
    status: Json = pod.get("status") or {}
    reason, message = status.get("reason") or "", status.get("message") or ""
    disruption = _condition(status, "DisruptionTarget")
    if disruption.get("status") == "True":
        reason, message = disruption.get("reason") or "DisruptionTarget", disruption.get("message") or message
    elif reason == "DeadlineExceeded":
        return deadline_failure(message)
    elif reason in NODE_REASONS or reason.startswith("OutOf"):
        pass
    elif (pod.get("metadata") or {}).get("deletionTimestamp"):
        reason, message = "Deleted", "The pod was deleted while it ran."
    else:
        return None
    return Failure(FailureKind.EVICTED, f"{reason}: {message}".rstrip(": "), NODE_REMEDY)


def lost_pod_failure(name: str) -> Failure:
    """The failure of a pod that is no longer there though nothing here has deleted it."""
    return Failure(FailureKind.EVICTED, f"The pod {name} is gone, and was not deleted by this run.", NODE_REMEDY)


def is_at_deadline(job: Json, now: datetime) -> bool:
    """Whether a Job has run as long as it may; its controller deletes the pod first, and says so afterwards."""
    started, limit = (job.get("status") or {}).get("startTime"), (job.get("spec") or {}).get("activeDeadlineSeconds")
    if started is None or limit is None:
        return False
    begin = started if isinstance(started, datetime) else datetime.fromisoformat(str(started).replace("Z", "+00:00"))
    return now - begin >= timedelta(seconds=limit)


def deadline_failure(message: str) -> Failure:
    """The failure of a Job or pod that was ended at its deadline."""
    return Failure(
        FailureKind.TRIAL_TIMED_OUT,
        f"The cluster ended it at its deadline. {message}".strip(),
        "Raise optimization.timeout_per_iteration or --queue-timeout, or measure fewer or shorter load points.",
    )


def _ended(terminated: Json) -> PodState:
    """The state of an ended container; one that never ran gets the exit status of `docker run`."""
    reason, message = terminated.get("reason", ""), (terminated.get("message") or "").strip()
    exit_status = int(terminated.get("exitCode", 1))
    if reason in CANNOT_START_REASONS:
        return PodState("ended", exit_status=_start_error_status(message), note=message)
    return PodState("ended", exit_status=exit_status, note=OUT_OF_MEMORY_MESSAGE if reason == "OOMKilled" else "")


def _start_error_status(message: str) -> int:
    if "executable file not found" in message or "no such file or directory" in message:
        return COMMAND_NOT_FOUND
    return CANNOT_INVOKE if "permission denied" in message else CANNOT_START


def _image_failure(waiting: Json, container: Json, events: Sequence[Json]) -> Failure:
    """The failure of an image; the event of the pull says why, the status often only that it is tried again."""
    details = [event["message"] for event in events if event.get("reason") == "Failed" and "pull" in event["message"]]
    why = details[-1] if details else waiting.get("message") or f"image {container.get('image')}"
    return Failure(FailureKind.IMAGE_MISSING, f"{waiting['reason']}: {why}", IMAGE_REMEDY)


def _not_started(status: Json, waiting: Json, events: Sequence[Json]) -> PodState:
    """The state of a pod that waits for a node, or for its volumes and image."""
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        message = scheduled.get("message") or "no node takes the pod"
        if re.search(r"persistentvolumeclaims?\b", message, re.IGNORECASE):
            is_final = "not found" in message
            failure = Failure(FailureKind.VOLUME, message, VOLUME_REMEDY)
            return PodState("waiting", failure, is_final=is_final, is_scheduled=False)
        failure = Failure(FailureKind.UNSCHEDULABLE, message, UNSCHEDULABLE_REMEDY)
        return PodState("waiting", failure, is_final=False, is_scheduled=False)
    volume_events = [event for event in events if event.get("reason") in VOLUME_EVENTS]
    if volume_events:
        failure = Failure(FailureKind.VOLUME, volume_events[-1].get("message", ""), VOLUME_REMEDY)
        return PodState("waiting", failure, is_final=False)
    warnings = [event for event in events if event.get("type") == "Warning"]
    if warnings:
        failure = Failure(FailureKind.START_TIMED_OUT, warnings[-1].get("message", ""), REJECTED_REMEDY)
        return PodState("waiting", failure, is_final=False)
    note = waiting.get("reason", "")
    return PodState("waiting", note=note, is_scheduled=scheduled.get("status") == "True")


def judge_job(job: Json, events: Sequence[Json]) -> PodState:
    """The state of a Job that has no pod, with the events about it."""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Failed" and condition.get("status") == "True":
            if condition.get("reason") == "DeadlineExceeded":
                return PodState("ended", deadline_failure(condition.get("message", "")))
            return PodState("ended", lost_pod_failure("of the Job"))
    refusals = [event.get("message", "") for event in events if event.get("reason") == "FailedCreate"]
    if not refusals:
        return PodState("waiting", is_scheduled=False)
    failure = refusal_failure(refusals[-1])
    return PodState("waiting", failure, is_final=not may_fit_later(refusals[-1]), is_scheduled=False)


def refusal_failure(message: str) -> Failure:
    """The failure of an object that the API server does not take, by its message."""
    text = re.sub(r"^Error creating: ", "", message)
    if "exceeded quota" in text or "must specify" in text:
        return Failure(FailureKind.QUOTA, text, QUOTA_REMEDY)
    return Failure(FailureKind.REJECTED, text, REJECTED_REMEDY)


def may_fit_later(message: str) -> bool:
    """Whether a quota refused a pod only because others use it: whether none of its requests is above the limit."""
    quota = re.search(r"exceeded quota: [^,]*, requested: (.*?), used: (.*?), limited: (.*)$", message)
    if quota is None:
        return False
    requested, limited = _amounts(quota[1]), _amounts(quota[3])
    return all(amount <= limited.get(name, amount) for name, amount in requested.items())


_SUFFIXES = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12} | {
    f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTP", start=1)
}


def quantity_value(text: str) -> float:
    """A Kubernetes quantity, such as 4, 500m or 16Gi, as a number; infinity for one that is not understood."""
    match = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", text)
    if match is None or match[2] not in _SUFFIXES:
        return float("inf")
    return float(match[1]) * _SUFFIXES[match[2]]


def _amounts(text: str) -> dict[str, float]:
    """Amounts by resource, of text such as requests.nvidia.com/gpu=4,pods=1."""
    pairs = (pair.split("=", 1) for pair in text.split(",") if "=" in pair)
    return {name.strip(): quantity_value(value.strip()) for name, value in pairs}


def of_name(items: Sequence[Json], name: str) -> Json:
    """The container, or status of one, that has this name; else the first."""
    return next((item for item in items if item.get("name") == name), items[0])


def _condition(status: Json, kind: str) -> Json:
    return next((condition for condition in status.get("conditions") or () if condition.get("type") == kind), {})


def _first(statuses: Sequence[Json] | None) -> Json:
    return statuses[0] if statuses else {}
