"""A stand-in for the kubelets of a real API server's nodes: pods are processes of this machine.

What an image's name begins with can make it do otherwise, see `SCRIPTED`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.cluster.control_plane import ControlPlane
from tests.kubelets import ContainerLog, PodProcess, ended_status, waiting_status

MERGE = {"Content-Type": "application/merge-patch+json"}
Pod = dict[str, Any]


def _cannot_pull(container: dict[str, Any]) -> dict[str, Any]:
    return waiting_status(container, "ImagePullBackOff", f'Back-off pulling image "{container["image"]}"')


def _out_of_memory(container: dict[str, Any]) -> dict[str, Any]:
    return ended_status(container, 137, "OOMKilled")


def _evicted(container: dict[str, Any]) -> dict[str, Any]:
    return {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory. "}


SCRIPTED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "missing/": _cannot_pull,
    "out-of-memory/": _out_of_memory,
    "evicted/": _evicted,
}
"""What an image's name begins with -> the status that its pod gets in place of a process."""


class Kubelet:
    """Runs the pods that the scheduler has bound, reports their status, and ends those that are deleted."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.logs: dict[str, ContainerLog] = {}
        self._processes: dict[str, PodProcess] = {}
        self._seen: set[str] = set()
        self._deleted: set[str] = set()
        self._is_over = threading.Event()
        self._changing = threading.Lock()

    def watch(self) -> None:
        """Act on every change of a pod until `stop`; a watch that the API server ends is begun again."""
        with self.plane.client() as client:
            while not self._is_over.is_set():
                with (
                    suppress(httpx.HTTPError),
                    client.stream("GET", "/api/v1/pods", params={"watch": "true", "timeoutSeconds": "5"}) as changes,
                ):
                    for line in changes.iter_lines():
                        change = json.loads(line)
                        if change["type"] != "ERROR":
                            self._act(change["type"], change["object"])

    def _act(self, kind: str, pod: Pod) -> None:
        metadata, uid = pod["metadata"], pod["metadata"]["uid"]
        if kind == "DELETED" or metadata.get("deletionTimestamp"):
            threading.Thread(target=self._end, args=(pod, kind == "DELETED"), daemon=True).start()
        elif pod["spec"].get("nodeName") and uid not in self._seen and not self._is_over.is_set():
            self._seen.add(uid)
            threading.Thread(target=self._run, args=(pod,), daemon=True).start()

    def _run(self, pod: Pod) -> None:
        container, name = pod["spec"]["containers"][0], pod["metadata"]["name"]
        for beginning, status in SCRIPTED.items():
            if container["image"].startswith(beginning):
                log = self.logs[name] = ContainerLog()
                log.end()
                self._report(pod, status(container))
                return
        try:
            process = PodProcess(pod, lambda status: self._report(pod, status))
        except OSError as error:
            self._report(pod, waiting_status(container, "RunContainerError", str(error)))
            return
        with self._changing:
            self.logs[name] = process.log
            is_wanted = pod["metadata"]["uid"] not in self._deleted and not self._is_over.is_set()
            if is_wanted:
                self._processes[pod["metadata"]["uid"]] = process
        if not is_wanted:
            process.stop()

    def _end(self, pod: Pod, is_gone: bool) -> None:
        with self._changing:
            self._deleted.add(pod["metadata"]["uid"])
            process = self._processes.pop(pod["metadata"]["uid"], None)
        if process is not None:
            process.stop()
        if not is_gone:
            now = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
            with suppress(httpx.HTTPError), self.plane.client() as client:
                client.request("DELETE", self._path(pod), json=now)

    def _report(self, pod: Pod, status: dict[str, Any]) -> None:
        with suppress(httpx.HTTPError), self.plane.client() as client:
            client.patch(f"{self._path(pod)}/status", json={"status": status}, headers=MERGE)

    @staticmethod
    def _path(pod: Pod) -> str:
        return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"

    def stop(self) -> None:
        """End all pods' processes."""
        self._is_over.set()
        with self._changing:
            processes = list(self._processes.values())
            self._processes.clear()
        for process in processes:
            process.stop()


class LogHandler(BaseHTTPRequestHandler):
    """GET /containerLogs/NAMESPACE/POD/CONTAINER, which the API server asks a kubelet for."""

    kubelet: Kubelet
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests print no access log."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        words, query = address.path.split("/"), parse_qs(address.query)
        log = self.kubelet.logs.get(words[3]) if words[1] == "containerLogs" else None
        if log is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        is_set = {key for key, values in query.items() if values == ["true"]}
        since = int(query["sinceSeconds"][0]) if "sinceSeconds" in query else None
        with suppress(ConnectionError):
            lines = log.read(follow="follow" in is_set, timestamps="timestamps" in is_set, since_seconds=since)
            for line in lines:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.write(b"0\r\n\r\n")


@contextmanager
def kubelet(plane: ControlPlane) -> Iterator[Kubelet]:
    """Give the control plane its nodes and run their pods until the block ends."""
    running = Kubelet(plane)
    handler = type("Handler", (LogHandler,), {"kubelet": running})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.socket = plane.server_context().wrap_socket(server.socket, server_side=True)
    threads = [
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True),
        threading.Thread(target=running.watch, daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        plane.add_nodes(server.server_address[1])
        yield running
    finally:
        running.stop()
        server.shutdown()
        server.server_close()
        threads[1].join(15)
