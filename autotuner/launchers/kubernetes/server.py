"""A server in the pod of a Job: what the pod does, judged at each of its changes, and where its API is."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from lightkube import Client
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Event, Node, Pod

from autotuner.core import Failure, FailureKind
from autotuner.deploy.kubernetes.pod import CONTAINER
from autotuner.errors import EngineError, MachineError
from autotuner.launchers.kubernetes import connection, pod_state
from autotuner.launchers.kubernetes.log_follower import LogFollower
from autotuner.launchers.kubernetes.objects import JOB_LABEL
from autotuner.launchers.kubernetes.pod_state import PodState
from autotuner.redaction import write_redacted

POLL_SECONDS = 0.25
OUTAGE_SECONDS = 60.0
"""How long the API server may fail to answer, as while it is updated, before the run ends."""

UNREACHABLE_SECONDS = 10.0
"""How long the port of a pod that is ready for its own node may be out of reach from here."""

LOG_SECONDS = 10.0
"""How long the log of an ended pod may take to arrive."""

GPU_LABELS = ("nvidia.com/gpu.product", "amd.com/gpu.product-name", "node.kubernetes.io/instance-type")
"""Labels of a node that name its GPUs, or the kind of machine."""

NO_ADDRESS = "pod-without-address.invalid"
"""Host of a pod that ended before it had an address; the name never has one (RFC 6761)."""

TERMINATED_STATUS = 128 + 15
"""Exit status of a container whose pod was deleted before its own was seen."""


class KubernetesServer:
    """The server of a Job. `url` is known once its container runs.

    `pod_label` is the label by which its pods are found, with the name of the Job; `container` is the server's.
    """

    pod_label = JOB_LABEL
    container = CONTAINER

    def __init__(self, client: Client, owner_name: str, port: int, output: FileIO, folder: Path) -> None:
        self.url = ""
        self._client = client
        self._owner_name = owner_name
        self._port = port
        self._output = output
        self._folder = folder
        self._pod: dict[str, Any] | None = None
        self._exit_status: int | None = None
        self._follower: LogFollower | None = None
        self._last_note = ""
        self._next_poll = 0.0
        self._last_answer = time.monotonic()
        self._state = PodState("waiting", is_scheduled=False)
        self._ready_since: float | None = None
        self._is_reachable = False

    def exit_status(self) -> int | None:
        """Exit status, above 128 for a signal; None while it runs.

        EngineError for what the cluster did to the pod; MachineError if the API server, or the pod's address,
        cannot be reached from here.
        """
        if self._exit_status is None:
            self._poll()
        if self._exit_status is None and self._state.is_ready:
            self._check_reachable()
        return self._exit_status

    def wait_until_running(self, queue_timeout: float) -> None:
        """Wait until the container runs, or has ended; EngineError if the cluster does not start it.

        The pod may wait `queue_timeout` seconds for a node, and as long again for its volumes and its image.
        """
        deadline, was_scheduled = time.monotonic() + queue_timeout, False
        while self._exit_status is None and self._state.stage == "waiting":
            self._poll()
            if self._state.is_scheduled and not was_scheduled:
                deadline, was_scheduled = time.monotonic() + queue_timeout, True
            if time.monotonic() > deadline and self._state.stage == "waiting":
                raise EngineError(self._queue_failure(queue_timeout))
            time.sleep(POLL_SECONDS)

    def stop_following(self) -> None:
        """Keep the pod's last output; its exit status is that of its end if that was seen."""
        if self._follower is not None:
            self._follower.finish(LOG_SECONDS)
        if self._exit_status is None:
            self._exit_status = TERMINATED_STATUS

    def write_line(self, line: str) -> None:
        """Write a line to the log on behalf of autotune."""
        with contextlib.suppress(OSError):
            self._output.write(f"autotune: {line}\n".encode("utf-8", "replace"))

    def _queue_failure(self, queue_timeout: float) -> Failure:
        waited = f"It waited {queue_timeout:.0f} s."
        if self._state.failure is not None:
            return replace(self._state.failure, message=f"{waited} {self._state.failure.message}")
        remedy = "Raise --queue-timeout, or look at the pod's events with `kubectl describe pod`."
        kind = FailureKind.START_TIMED_OUT if self._state.is_scheduled else FailureKind.UNSCHEDULABLE
        return Failure(kind, f"{waited} {self._state.note or 'The Job has no pod.'}", remedy)

    def _poll(self) -> None:
        """Ask for the pod's state, unless that was just done, and act on what has changed."""
        if time.monotonic() < self._next_poll:
            return
        try:
            self._state = self._query_state()
        except connection.CONNECTION_ERRORS as error:
            self._tolerate(error)
            return
        finally:
            self._next_poll = time.monotonic() + POLL_SECONDS
        self._last_answer = time.monotonic()
        self._act()

    def _tolerate(self, error: Exception) -> None:
        """MachineError for an API server that refuses, or that has not answered for too long."""
        refusals = (connection.UNAUTHORIZED, connection.FORBIDDEN)
        if connection.status_code(error) in refusals or time.monotonic() - self._last_answer > OUTAGE_SECONDS:
            failure = connection.machine_error(self._client, "watch the pod of a trial", error)
            remedy = f"{failure.remedy} Then continue with --resume.".strip()
            raise MachineError(failure.what, why=failure.why, remedy=remedy) from error

    def _query_state(self) -> PodState:
        pods = sorted(
            (pod.to_dict() for pod in self._client.list(Pod, labels={self.pod_label: self._owner_name})),
            key=lambda pod: pod["metadata"]["creationTimestamp"],
        )
        if self._pod is not None:
            same = [pod for pod in pods if pod["metadata"]["uid"] == self._pod["metadata"]["uid"]]
            if not same:
                return self._state_without_pod(self._pod["metadata"]["name"])
            self._pod = same[0]
        elif pods:
            self._pod = pods[0]
        else:
            return self._state_before_pod()
        state = self._judge_pod(self._pod)
        if self._pod["metadata"].get("deletionTimestamp") and state.failure is not None:
            return self._deadline_state() or state
        if state.stage == "waiting":
            return self._judge_pod(self._pod, self._events("Pod", self._pod["metadata"]["name"]))
        return state

    def _judge_pod(self, pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]] = ()) -> PodState:
        """The state of the server's pod."""
        return pod_state.judge_pod(pod, events)

    def _state_before_pod(self) -> PodState:
        """The state while there is no pod yet."""
        job = self._client.get(Job, self._owner_name).to_dict()
        return pod_state.judge_job(job, self._events("Job", self._owner_name))

    def _state_without_pod(self, pod_name: str) -> PodState:
        """The state after the pod has gone: the Job tells whether its deadline was the reason."""
        return self._deadline_state() or PodState("ended", pod_state.lost_pod_failure(pod_name))

    def _deadline_state(self) -> PodState | None:
        """The end of a Job that is at its deadline, whether or not it says so yet; None for another."""
        job = self._client.get(Job, self._owner_name).to_dict()
        state = pod_state.judge_job(job, ())
        if state.failure is not None and state.failure.kind is FailureKind.TRIAL_TIMED_OUT:
            return state
        if pod_state.is_at_deadline(job, datetime.now(UTC)):
            return PodState("ended", pod_state.deadline_failure("Its pod was deleted."))
        return None

    def _events(self, kind: str, name: str | None = None) -> Sequence[Mapping[str, Any]]:
        """The events about an object, or all of a kind, oldest first; none where this user may not read them."""
        fields: dict[str, Any] = {"involvedObject.kind": kind, **({"involvedObject.name": name} if name else {})}
        try:
            events = [event.to_dict() for event in self._client.list(Event, fields=fields)]
        except connection.CONNECTION_ERRORS as error:
            if connection.status_code(error) == connection.FORBIDDEN:
                return ()
            raise
        return sorted(events, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")

    def _act(self) -> None:
        state = self._state
        if state.failure is not None:
            note = f"kubernetes: {state.failure.kind.value}: {state.failure.message}"
        else:
            note = f"kubernetes: {state.note}" if state.note and state.stage == "waiting" else ""
        if note and note != self._last_note:
            self.write_line(note)
        self._last_note = note or self._last_note
        if state.stage != "waiting" and self._pod is not None and self._follower is None:
            self._begin(self._pod)
        if state.failure is not None and state.is_final:
            raise EngineError(state.failure)
        if state.stage == "ended":
            if self._follower is not None:
                self._follower.finish(LOG_SECONDS)
            if state.note:
                self.write_line(state.note)
            self._exit_status = state.exit_status

    def _begin(self, pod: dict[str, Any]) -> None:
        """Take down where the pod runs and what, and follow its log."""
        address = pod["status"].get("podIP") or NO_ADDRESS
        self.url = f"http://{f'[{address}]' if ':' in address else address}:{self._port}"
        record = pod_record(pod, self._gpu_product(pod["spec"].get("nodeName")), self.container)
        self.write_line(f"image {record['image']} is {record['image_digest']}")
        with_product = f" with {record['gpu_product']}" if record["gpu_product"] else ""
        self.write_line(f"pod {record['pod']} runs on node {record['node']}{with_product}")
        write_redacted(self._folder / "pod.json", json.dumps(record, indent=1) + "\n")
        self._follower = LogFollower(self._client, pod["metadata"]["name"], self._output, self.container)
        self._follower.start()

    def _gpu_product(self, node: str | None) -> str | None:
        """What a node's labels call its GPUs; None where nodes may not be read."""
        if node is None:
            return None
        try:
            labels = connection.as_json(self._client.get(Node, node))["metadata"].get("labels") or {}
        except connection.CONNECTION_ERRORS:
            return None
        return next((labels[name] for name in GPU_LABELS if name in labels), None)

    def _check_reachable(self) -> None:
        """MachineError if the pod is ready for its node, and its port cannot be reached from here."""
        if self._is_reachable or not self.url:
            return
        address = re.sub(r"[\[\]]", "", self.url.removeprefix("http://").rpartition(":")[0])
        error = connection_error(address, self._port)
        if isinstance(error, ConnectionRefusedError):
            return  # its network is reached; it stopped listening after its node had asked
        if error is not None:
            self._ready_since = self._ready_since or time.monotonic()
            if time.monotonic() - self._ready_since < UNREACHABLE_SECONDS:
                return
            raise MachineError(
                f"The pod is ready, and its address {address}:{self._port} cannot be reached from here.",
                why=f"{error.strerror or error}: pods have addresses of the cluster's own network.",
                remedy="Run autotune where that network is reached: in a pod of the cluster, or on one of its nodes.",
            ) from error
        self._is_reachable = True


def connection_error(address: str, port: int) -> OSError | None:
    """Why no connection to an address can be made; None where one can."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError as error:
        return error
    return None


def pod_record(pod: Mapping[str, Any], gpu_product: str | None, name: str = CONTAINER) -> dict[str, Any]:
    """What a launch ran on, as JSON: pod, node, GPUs, image and its digest, command and arguments, restarts.

    `name` is the server's container; without one of that name the first counts.
    """
    containers, all_statuses = pod["spec"]["containers"], pod["status"].get("containerStatuses") or [{}]
    container = pod_state.of_name(containers, name)
    status = pod_state.of_name(all_statuses, name)
    image_id = status.get("imageID") or ""
    return {
        "pod": pod["metadata"]["name"],
        "uid": pod["metadata"]["uid"],
        "namespace": pod["metadata"].get("namespace"),
        "node": pod["spec"].get("nodeName"),
        "gpu_product": gpu_product,
        "image": container.get("image"),
        "image_digest": image_id.partition("://")[2] or image_id or "unknown",
        "command": container.get("command") or [],
        "args": container.get("args") or [],
        "restarts": status.get("restartCount", 0),
    }
