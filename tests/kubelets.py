"""A stand-in for the kubelet: a pod's container as a process of this machine, with its log and its status."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

IMAGE_DIGEST = "registry.example/engine@sha256:" + "5" * 64


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def running_status(container: dict[str, Any], *, ready: bool = True) -> dict[str, Any]:
    """The status of a pod whose container runs, as a kubelet writes it; ready once its probe succeeds."""
    now, readiness = timestamp(), str(ready)
    return {
        "phase": "Running",
        "podIP": "127.0.0.1",
        "hostIP": "127.0.0.1",
        "startTime": now,
        "conditions": [
            {"type": kind, "status": status, "lastTransitionTime": now}
            for kind, status in (
                ("Initialized", "True"),
                ("Ready", readiness),
                ("ContainersReady", readiness),
                ("PodScheduled", "True"),
            )
        ],
        "containerStatuses": [_container_status(container, {"running": {"startedAt": now}}, ready=ready)],
    }


def ended_status(container: dict[str, Any], exit_code: int, reason: str | None = None) -> dict[str, Any]:
    """The status of a pod whose container has ended."""
    now, succeeded = timestamp(), exit_code == 0
    terminated = {
        "exitCode": exit_code,
        "reason": reason or ("Completed" if succeeded else "Error"),
        "startedAt": now,
        "finishedAt": now,
    }
    return {
        "phase": "Succeeded" if succeeded else "Failed",
        "conditions": [{"type": "Ready", "status": "False", "reason": "PodFailed", "lastTransitionTime": now}],
        "containerStatuses": [_container_status(container, {"terminated": terminated})],
    }


def waiting_status(container: dict[str, Any], reason: str, message: str) -> dict[str, Any]:
    """The status of a pod whose container cannot be started."""
    waiting = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [_container_status(container, waiting)]}


def _container_status(container: dict[str, Any], state: dict[str, Any], *, ready: bool = False) -> dict[str, Any]:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "" if "waiting" in state else f"docker-pullable://{IMAGE_DIGEST}",
        "ready": ready,
        "restartCount": 0,
        "state": state,
    }


class ContainerLog:
    """The lines that a container has written, each with its time, read while they come."""

    def __init__(self) -> None:
        self._lines: list[tuple[datetime, bytes]] = []
        self._ended = False
        self._changed = threading.Condition()

    def append(self, line: bytes) -> None:
        with self._changed:
            self._lines.append((datetime.now(UTC), line))
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def read(self, *, follow: bool, timestamps: bool, since_seconds: int | None = None) -> Iterator[bytes]:
        """The lines, as GET .../log gives them; with `follow` until the container has ended."""
        position = 0
        oldest = datetime.now(UTC).timestamp() - since_seconds if since_seconds else 0.0
        while True:
            with self._changed:
                while follow and not self._ended and position == len(self._lines):
                    self._changed.wait(1)
                new, position = self._lines[position:], len(self._lines)
                is_over = not follow or self._ended
            for moment, line in new:
                if moment.timestamp() >= oldest:
                    yield (moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ ").encode() if timestamps else b"") + line
            if is_over:
                return


class PodProcess:
    """A pod's container as a process; `report` is called with each new status of the pod."""

    def __init__(self, pod: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
        self.log = ContainerLog()
        self._reporting = threading.Lock()
        self._container = pod["spec"]["containers"][0]
        self._report = report
        variables = {
            entry["name"]: _plain(entry["value"]) for entry in self._container.get("env") or () if "value" in entry
        }
        words = [*(self._container.get("command") or ()), *(self._container.get("args") or ())]
        self._process = subprocess.Popen(
            [_plain(word, variables) for word in words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **variables},
            start_new_session=True,
        )
        report(running_status(self._container, ready=False))
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        threading.Thread(target=self._probe, daemon=True).start()

    def _probe(self) -> None:
        """Report that the container is ready when its port takes connections."""
        port = self._container["ports"][0]["containerPort"]
        while self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.1)
            else:
                with self._reporting:
                    if self._process.poll() is None:
                        self._report(running_status(self._container))
                return

    def _watch(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.log.append(line)
        status = self._process.wait()
        self._process.stdout.close()
        self.log.end()
        reason = "OOMKilled" if status == -9 else None
        with self._reporting:
            self._report(ended_status(self._container, status if status >= 0 else 128 - status, reason))

    def stop(self, grace: float = 10.0) -> None:
        """End the process, and wait until its log is whole."""
        self._process.terminate()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._watcher.join()


def _plain(word: str, variables: Mapping[str, str] = MappingProxyType({})) -> str:
    """A word as the kubelet passes it on: $(NAME) stands for a variable that is set, $$ for a dollar."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return re.sub(r"\$\$|\$\((\w+)\)", value, word)
