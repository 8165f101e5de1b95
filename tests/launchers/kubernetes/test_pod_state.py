"""The failure map: what statuses and events of pods and Jobs mean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from autotuner.launchers.kubernetes.pod_state import is_at_deadline, judge_job, judge_pod, may_fit_later, quantity_value
from tests.kubelets import ended_status, running_status, waiting_status

CONTAINER = {"name": "server", "image": "an/image:1"}


def pod(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"metadata": metadata, "spec": {}, "status": status}


def event(reason: str, message: str, kind: str = "Warning") -> dict[str, str]:
    return {"reason": reason, "message": message, "type": kind}


def test_a_running_pod_is_ready_when_its_node_says_so():
    status = running_status(CONTAINER)
    assert (judge_pod(pod(status)).stage, judge_pod(pod(status)).is_ready) == ("running", True)
    status["conditions"] = []
    assert not judge_pod(pod(status)).is_ready


@pytest.mark.parametrize("code", [0, 1, 137])
def test_an_ended_container_has_its_own_exit_status(code):
    state = judge_pod(pod(ended_status(CONTAINER, code)))
    assert (state.stage, state.exit_status, state.failure) == ("ended", code, None)


@pytest.mark.parametrize(
    ("status", "metadata", "words"),
    [
        ({"phase": "Failed", "reason": "Evicted", "message": "low on resource: memory"}, {}, "Evicted: low on"),
        ({"phase": "Failed", "reason": "NodeLost"}, {}, "NodeLost"),
        ({"phase": "Failed", "reason": "OutOfnvidia.com/gpu", "message": "did not fit"}, {}, "OutOfnvidia"),
        ({"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no device"}, {}, "no device"),
        ({"phase": "Running"}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "was deleted"),
        (
            {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
            {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "PreemptionByScheduler",
        ),
    ],
)
def test_what_node_or_scheduler_ends_is_evicted(status, metadata, words):
    failure = judge_pod(pod(status, **metadata)).failure
    assert failure.kind.value == "evicted"
    assert words in failure.message


def test_a_container_that_the_kernel_ended_within_an_evicted_pod_is_evicted_and_not_out_of_memory():
    status = ended_status(CONTAINER, 137, "OOMKilled") | {"reason": "Evicted", "message": "low on memory"}
    assert judge_pod(pod(status)).failure.kind.value == "evicted"


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_final_and_its_event_says_why(reason):
    events = [event("Failed", 'Failed to pull image "an/image:1": not found'), event("Failed", "Error: ErrImagePull")]
    state = judge_pod(pod(waiting_status(CONTAINER, reason, "Back-off")), events)
    assert state.is_final
    assert state.failure.kind.value == "image-missing"
    assert "not found" in state.failure.message


def test_a_pod_that_creates_its_container_waits():
    status = waiting_status(CONTAINER, "ContainerCreating", "")
    status["conditions"] = [{"type": "PodScheduled", "status": "True"}]
    state = judge_pod(pod(status))
    assert (state.stage, state.failure, state.is_scheduled) == ("waiting", None, True)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("FailedMount", "volume"), ("FailedAttachVolume", "volume"), ("FailedCreatePodSandBox", "start-timed-out")],
)
def test_a_warning_about_a_pod_that_waits_is_its_failure_if_it_lasts(reason, kind):
    state = judge_pod(pod(waiting_status(CONTAINER, "ContainerCreating", "")), [event(reason, "the words")])
    assert (state.failure.kind.value, state.failure.message, state.is_final) == (kind, "the words", False)


@pytest.mark.parametrize(
    ("reason", "kind"), [("DeadlineExceeded", "trial-timed-out"), ("BackoffLimitExceeded", "evicted")]
)
def test_a_failed_job_without_a_pod_tells_why(reason, kind):
    job = {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": reason}]}}
    assert judge_job(job, ()).failure.kind.value == kind


def test_a_job_that_has_no_pod_yet_waits():
    assert judge_job({"status": {}}, ()).stage == "waiting"


@pytest.mark.parametrize(
    ("requested", "limited", "fits"),
    [
        ("requests.nvidia.com/gpu=4", "requests.nvidia.com/gpu=4", True),
        ("requests.nvidia.com/gpu=8", "requests.nvidia.com/gpu=4", False),
        ("limits.memory=16Gi,pods=1", "limits.memory=8Gi,pods=10", False),
    ],
)
def test_a_request_above_the_limit_of_a_quota_never_fits(requested, limited, fits):
    message = f"exceeded quota: q, requested: {requested}, used: pods=3, limited: {limited}"
    assert may_fit_later(message) is fits


@pytest.mark.parametrize(
    ("text", "value"), [("4", 4), ("500m", 0.5), ("16Gi", 16 * 2**30), ("2k", 2000), ("what", float("inf"))]
)
def test_quantities_are_numbers(text, value):
    assert quantity_value(text) == value


def test_a_job_is_at_its_deadline_once_it_has_run_as_long_as_it_may():
    job = {"spec": {"activeDeadlineSeconds": 60}, "status": {"startTime": "2026-11-30T10:00:00Z"}}
    at = datetime(2026, 11, 30, 10, 1, tzinfo=UTC)
    assert is_at_deadline(job, at)
    assert not is_at_deadline(job, at - timedelta(seconds=1))
    assert is_at_deadline({**job, "status": {"startTime": at - timedelta(minutes=5)}}, at)
    assert not is_at_deadline({**job, "status": {}}, at)
