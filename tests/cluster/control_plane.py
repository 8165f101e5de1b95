"""A real Kubernetes control plane on loopback: etcd, API server, scheduler and controllers; its nodes are made up."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

NAMESPACE = "bench"
ADMIN, BENCHER, STRANGER = "admin-token", "bencher-token", "stranger-token"
"""Tokens: of the administrator, of a user who gets the Role of the documentation, and of one without any."""
GPUS_PER_NODE = 4
NODES = {"gpu-a": "NVIDIA-H100-80GB-HBM3", "gpu-b": "NVIDIA-L40S"}
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
START_SECONDS = 120
STOP_SECONDS = 20
LOG_LINES = 30
CONTROLLERS = "job,garbagecollector,resourcequota,namespace,deployment,replicaset"
"""Not the one that watches nodes: nobody sends their heartbeats."""


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass
class ControlPlane:
    """A running control plane: its API server's address and its folder."""

    url: str
    folder: Path

    def client(self, token: str = ADMIN) -> httpx.Client:
        """An HTTP client of the API server, which signed its certificate itself."""
        return httpx.Client(base_url=self.url, verify=False, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def kubeconfig(self, token: str, namespace: str = NAMESPACE) -> Path:
        """A kubeconfig with one context for the user of `token`."""
        path = self.folder / f"kubeconfig-{len(list(self.folder.glob('kubeconfig-*')))}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "tester", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "tester", "namespace": namespace}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def create(self, path: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object as the administrator."""
        with self.client() as client:
            answer = client.post(path, json=dict(manifest))
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    def items(self, path: str) -> list[dict[str, Any]]:
        """The objects of a list, such as /api/v1/namespaces/bench/pods."""
        with self.client() as client:
            answer = client.get(path)
        assert answer.status_code == 200, answer.text
        listed: list[dict[str, Any]] = answer.json()["items"]
        return listed

    def add_nodes(self, kubelet_port: int) -> None:
        """Two nodes with four GPUs each, which the scheduler takes for real ones; their kubelet is at this port."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for name, product in NODES.items():
            labels = {"kubernetes.io/hostname": name, "nvidia.com/gpu.product": product}
            metadata = {"name": name, "labels": labels}
            self.create(
                "/api/v1/nodes",
                {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": [GPU_TAINT]}},
            )
            room = {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": str(GPUS_PER_NODE)}
            ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
            status = {
                "capacity": room,
                "allocatable": room,
                "conditions": [{**ready, "lastHeartbeatTime": now, "lastTransitionTime": now}],
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
            }
            merge = {"Content-Type": "application/merge-patch+json"}
            with self.client() as client:
                client.patch(f"/api/v1/nodes/{name}/status", json={"status": status}, headers=merge).raise_for_status()
                # without the taint that admission gives to a node that has told nothing yet
                spec = {"spec": {"taints": [GPU_TAINT]}}
                client.patch(f"/api/v1/nodes/{name}", json=spec, headers=merge).raise_for_status()

    def server_context(self) -> ssl.SSLContext:
        """TLS for the kubelet, with the API server's own certificate, which is not verified."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificates = self.folder / "certificates"
        context.load_cert_chain(certificates / "apiserver.crt", certificates / "apiserver.key")
        return context


@contextmanager
def control_plane(home: Path, folder: Path) -> Iterator[ControlPlane]:
    """Start a control plane with the programs of `home`, with all its files in `folder`; its namespace is made."""
    (folder / "certificates").mkdir(parents=True)
    etcd_port, peer_port, port = free_port(), free_port(), free_port()
    plane = ControlPlane(f"https://127.0.0.1:{port}", folder)
    _write_keys(folder)
    tokens = [(ADMIN, "admin", "system:masters"), (BENCHER, "bencher", ""), (STRANGER, "stranger", "")]
    lines = [",".join((token, user, user, group)).rstrip(",") for token, user, group in tokens]
    (folder / "tokens.csv").write_text("".join(f"{line}\n" for line in lines))
    with ExitStack() as cleanup:
        etcd, peer = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
        programs = [
            _start(
                cleanup,
                folder,
                home / "bin" / "etcd",
                f"--data-dir={folder / 'etcd'}",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                # the data is thrown away, and a busy disk would make it lose its leader
                "--heartbeat-interval=1000",
                "--election-timeout=10000",
            ),
            _start(
                cleanup,
                folder,
                home / "bin" / "kube-apiserver",
                f"--etcd-servers={etcd}",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                f"--secure-port={port}",
                f"--cert-dir={folder / 'certificates'}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={folder / 'service-account.pub'}",
                f"--service-account-signing-key-file={folder / 'service-account.key'}",
                f"--token-auth-file={folder / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--allow-privileged",
                "--disable-admission-plugins=ServiceAccount",
            ),
        ]
        _wait_until_ready(plane, programs)
        admin = plane.kubeconfig(ADMIN)
        for name, options in (
            ("kube-scheduler", ()),
            ("kube-controller-manager", (f"--controllers={CONTROLLERS}",)),
        ):
            _start(
                cleanup,
                folder,
                home / "bin" / name,
                f"--kubeconfig={admin}",
                "--leader-elect=false",
                "--port=0",
                f"--secure-port={free_port()}",
                "--bind-address=127.0.0.1",
                f"--cert-dir={folder / name}",
                *options,
            )
        plane.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        yield plane


def _write_keys(folder: Path) -> None:
    """The pair of keys for tokens of service accounts, without which this API server does not start."""
    key = folder / "service-account.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    public = folder / "service-account.pub"
    subprocess.run(["openssl", "rsa", "-in", key, "-pubout", "-out", public], check=True, capture_output=True)


def _start(cleanup: ExitStack, folder: Path, program: Path, *options: str) -> tuple[str, subprocess.Popen[bytes]]:
    with (folder / f"{program.name}.log").open("ab") as log:
        process = subprocess.Popen(
            [str(program), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, "HOME": str(folder)},
            start_new_session=True,
        )
    cleanup.callback(_stop, process)
    return program.name, process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_ready(plane: ControlPlane, programs: list[tuple[str, subprocess.Popen[bytes]]]) -> None:
    """Wait until the API server says that it is ready; RuntimeError with a program's last words otherwise."""
    deadline = time.monotonic() + START_SECONDS
    with plane.client() as client:
        while True:
            ended = [name for name, process in programs if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                name = ended[0] if ended else programs[-1][0]
                tail = (plane.folder / f"{name}.log").read_text(errors="replace").splitlines()[-LOG_LINES:]
                raise RuntimeError("\n".join([*tail, f"{name} {'ended' if ended else 'is not ready in time'}"]))
            try:
                if client.get("/readyz").status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)


def objects_of_runs(plane: ControlPlane) -> list[str]:
    """The names of the Jobs, pods and ConfigMaps of runs that are in the namespace."""
    namespaced = (
        f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs",
        *(f"/api/v1/namespaces/{NAMESPACE}/{kind}" for kind in ("pods", "configmaps")),
    )
    names = [item["metadata"]["name"] for path in namespaced for item in plane.items(path)]
    return [name for name in names if name.startswith(("at-", "autotune-"))]
