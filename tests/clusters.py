"""A small API server of Kubernetes in this process, with a Job controller and a scripted kubelet.

It holds the kinds that a launcher uses, checks token and access, and answers errors with the bodies of a real
kube-apiserver. It does not schedule, validate or watch: tests/cluster runs the same contract on a real control plane.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.kubelets import ContainerLog, PodProcess, timestamp

TOKEN, NAMESPACE = "a-token", "bench"
PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?"
)
POD_LABELS = {"jobs": "job-name", "inferenceservices": "ome.io/inferenceservice"}
"""Labels by which pods belong to objects."""

Kubelet = Callable[["FakeCluster", dict[str, Any]], None]
"""What becomes of a new pod: called with the cluster and the pod, in a thread of its own."""


def status_body(code: int, reason: str, message: str) -> dict[str, Any]:
    """An error as kube-apiserver answers it."""
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**head, "message": message, "reason": reason, "code": code}


class ApiRefusalError(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.body = status_body(code, reason, message)


@dataclass
class FakeCluster:
    """Objects by plural and name. `forbidden` holds pairs of verb and plural, such as ("create", "jobs").

    `pod_refusal` is the event of a Job whose pod is not admitted; `job_refusal` is the answer to a Job.
    `controllers` are called with each new object of a plural besides jobs; `missing` plurals are not known here.
    """

    kubelet: Kubelet
    url: str = ""
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    controllers: dict[str, Callable[[FakeCluster, dict[str, Any]], None]] = field(default_factory=dict)
    pod_refusal: str | None = None
    job_refusal: ApiRefusalError | None = None
    objects: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    logs: dict[str, ContainerLog] = field(default_factory=dict)
    processes: dict[str, PodProcess] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def all(self, plural: str) -> list[dict[str, Any]]:
        with self.lock:
            return list(self.objects.get(plural, {}).values())

    def add(self, plural: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Store a new object with what the API server adds to it; 409 where its name is taken."""
        name = manifest["metadata"]["name"]
        with self.lock:
            stored = self.objects.setdefault(plural, {})
            if name in stored:
                raise ApiRefusalError(409, "AlreadyExists", f'{plural} "{name}" already exists')
            metadata = {
                "uid": str(uuid.uuid4()),
                "creationTimestamp": timestamp(),
                "resourceVersion": str(len(self.requests) + 1),
                "namespace": NAMESPACE,
                **manifest["metadata"],
            }
            stored[name] = {"status": {}, **manifest, "metadata": metadata}
            return stored[name]

    def set_pod_status(self, pod: dict[str, Any], status: dict[str, Any]) -> None:
        with self.lock:
            pod["status"] = {**pod["status"], **status}

    def add_event(self, kind: str, name: str, reason: str, message: str) -> None:
        self.add(
            "events",
            {
                "metadata": {"name": f"{name}.{uuid.uuid4().hex[:8]}"},
                "involvedObject": {"kind": kind, "name": name, "namespace": NAMESPACE},
                "reason": reason,
                "message": message,
                "type": "Warning",
                "lastTimestamp": timestamp(),
            },
        )

    def create(self, plural: str, manifest: dict[str, Any]) -> dict[str, Any]:
        if plural == "selfsubjectaccessreviews":
            wanted = manifest["spec"]["resourceAttributes"]
            plural = "/".join(filter(None, (wanted["resource"], wanted.get("subresource"))))
            return {**manifest, "status": {"allowed": (wanted["verb"], plural) not in self.forbidden}}
        if plural == "jobs" and self.job_refusal is not None:
            raise self.job_refusal
        created = self.add(plural, manifest)
        if plural == "jobs":
            self._start_job(created)
        elif plural in self.controllers:
            self.controllers[plural](self, created)
        return created

    def _start_job(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        if self.pod_refusal is not None:
            self.add_event("Job", name, "FailedCreate", f"Error creating: {self.pod_refusal}")
            return
        template = job["spec"]["template"]
        labels = {**template["metadata"]["labels"], "job-name": name}
        self.start_pod(name, labels, template["spec"])

    def start_pod(self, name: str, labels: dict[str, str], spec: dict[str, Any]) -> None:
        """Add a pod of an object, and give it to the kubelet."""
        manifest = {
            "metadata": {"name": f"{name}-{uuid.uuid4().hex[:5]}", "labels": labels},
            "spec": {**spec, "nodeName": "gpu-a"},
        }
        pod = self.add("pods", manifest)
        self.set_pod_status(pod, {"phase": "Pending"})
        threading.Thread(target=self.kubelet, args=(self, pod), daemon=True).start()

    def delete(self, plural: str, name: str) -> None:
        """Delete an object and, like the garbage collector, what it owns."""
        with self.lock:
            removed = self.objects.get(plural, {}).pop(name, None)
        if removed is None:
            raise ApiRefusalError(404, "NotFound", f'{plural} "{name}" not found')
        if plural == "configmaps":
            for kind in ("jobs", *self.controllers):
                for owned in self.all(kind):
                    references = owned["metadata"].get("ownerReferences", ())
                    if any(reference["uid"] == removed["metadata"]["uid"] for reference in references):
                        self.delete(kind, owned["metadata"]["name"])
        if plural in POD_LABELS:
            for pod in self.all("pods"):
                if pod["metadata"]["labels"].get(POD_LABELS[plural]) == name:
                    self._end_pod(pod)

    def lose_pods(self) -> None:
        """Let every pod vanish, as when its node is lost."""
        for pod in self.all("pods"):
            self._end_pod(pod)

    def _end_pod(self, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        if name in self.processes:
            self.processes.pop(name).stop()
        if name in self.logs:
            self.logs[name].end()
        with self.lock:
            self.objects["pods"].pop(name, None)


def run_process(cluster: FakeCluster, pod: dict[str, Any]) -> None:
    """A kubelet that runs the container as a process of this machine."""
    process = PodProcess(pod, lambda status: cluster.set_pod_status(pod, status))
    cluster.processes[pod["metadata"]["name"]] = process
    cluster.logs[pod["metadata"]["name"]] = process.log


class ApiHandler(BaseHTTPRequestHandler):
    """Requests of the API, answered from a FakeCluster."""

    cluster: FakeCluster
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests print no access log."""

    def do_GET(self) -> None:
        self._answer({"": "get", "list": "list"})

    def do_POST(self) -> None:
        self._answer({"": "create"})

    def do_DELETE(self) -> None:
        self._answer({"": "delete"})

    def _answer(self, verbs: dict[str, str]) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        address = urlsplit(self.path)
        match, query = PATH.fullmatch(address.path), parse_qs(address.query)
        assert match is not None, self.path
        plural, name, sub = match["plural"], match["name"], match["sub"]
        verb = verbs[""] if name or "list" not in verbs else "list"
        self.cluster.requests.append(f"{verb} {plural}{f'/{sub}' if sub else ''}")
        if plural in self.cluster.missing:
            self._send_page_not_found()
            return
        try:
            self._check_access(verb, plural, sub)
            if sub == "log":
                self._send_log(name, query)
            elif verb == "create":
                self._send(201, self.cluster.create(plural, body))
            elif verb == "delete":
                self.cluster.delete(plural, name)
                self._send(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})
            elif verb == "list":
                items = [item for item in self.cluster.all(plural) if _is_selected(item, query)]
                self._send(
                    200, {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}
                )
            else:
                stored = self.cluster.objects.get(plural, {}).get(name)
                if stored is None:
                    raise ApiRefusalError(404, "NotFound", f'{plural} "{name}" not found')
                self._send(200, stored)
        except ApiRefusalError as refusal:
            self._send(refusal.code, refusal.body)

    def _check_access(self, verb: str, plural: str, sub: str | None) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise ApiRefusalError(401, "Unauthorized", "Unauthorized")
        resource = f"{plural}/{sub}" if sub else plural
        if (verb, resource) in self.cluster.forbidden:
            group = "batch" if plural == "jobs" else ""
            message = (
                f'{plural}{f".{group}" if group else ""} is forbidden: User "bencher" cannot {verb} resource '
                f'"{resource}" in API group "{group}" in the namespace "{NAMESPACE}"'
            )
            raise ApiRefusalError(403, "Forbidden", message)

    def _send_log(self, name: str, query: dict[str, list[str]]) -> None:
        if name not in self.cluster.objects.get("pods", {}):
            raise ApiRefusalError(404, "NotFound", f'pods "{name}" not found')
        if name not in self.cluster.logs:
            message = f'container "server" in pod "{name}" is waiting to start: ContainerCreating'
            raise ApiRefusalError(400, "BadRequest", message)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        is_set = {key for key, values in query.items() if values == ["true"]}
        for line in self.cluster.logs[name].read(follow="follow" in is_set, timestamps="timestamps" in is_set):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")

    def _send_page_not_found(self) -> None:
        """What a real server says of a group that it does not know."""
        text = b"404 page not found\n"
        self.send_response(404)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _send(self, code: int, body: dict[str, Any]) -> None:
        with self.cluster.lock:
            data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _is_selected(item: dict[str, Any], query: dict[str, list[str]]) -> bool:
    labels = item["metadata"].get("labels") or {}
    for pair in query.get("labelSelector", [""])[0].split(","):
        key, _, value = pair.partition("=")
        if pair and labels.get(key) != value:
            return False
    for pair in query.get("fieldSelector", [""])[0].split(","):
        key, _, value = pair.partition("=")
        part: Any = item
        for step in key.split(".") if pair else ():
            part = part.get(step) or {}
        if pair and part != value:
            return False
    return True


@contextmanager
def fake_cluster(kubelet: Kubelet = run_process) -> Iterator[FakeCluster]:
    """Serve a cluster with one namespace on loopback until the block ends, and end what its pods started."""
    cluster = FakeCluster(kubelet)
    cluster.add("namespaces", {"metadata": {"name": NAMESPACE}})
    handler = type("Handler", (ApiHandler,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    cluster.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield cluster
    finally:
        for process in list(cluster.processes.values()):
            process.stop()
        for log in list(cluster.logs.values()):
            log.end()
        server.shutdown()
        thread.join()
        server.server_close()


def write_kubeconfig(path: Path, url: str, token: str = TOKEN, **cluster: Any) -> Path:
    """A kubeconfig with one context for the API server at `url`."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url, "insecure-skip-tls-verify": True, **cluster}}],
        "users": [{"name": "tester", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "tester", "namespace": NAMESPACE}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path
