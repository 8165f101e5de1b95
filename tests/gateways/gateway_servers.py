"""Real servers and the gateways in front of them, started on loopback and ended with their block.

They have ports of their own, because everything runs where there is no network but loopback: `loopback_only.py`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 900.0
STOP_SECONDS = 30.0
NO_SERVER = "http://127.0.0.1:9"
"""Where nothing listens."""
MODEL = "tiny"
IN_PROCESS_EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""A worker in the engine's own process: two of them spin while they wait for each other."""
KEY_VARIABLE = "LITELLM_MASTER_KEY"
KEY = "sk-0f8d2f6c5b9e4a17a3c4d1e2b6f79835"
"""Made up; LiteLLM does not start without one."""


def is_loopback_only() -> bool:
    """Whether this process has no network but loopback."""
    return [name for _, name in socket.if_nameindex()] == ["lo"]


@contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    url: str,
    logs: Path,
    *,
    ready_path: str = "/v1/models",
    ready_text: str = "",
    env: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run a server in a process group of its own; yields its URL once a page of it answers with 200 and a text.

    AssertionError with the end of its log if that takes longer than START_SECONDS, or it ends.
    """
    log = logs / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=output,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})},
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(f"{url}{ready_path}", ready_text, headers or {}):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(
                    f"{name} is not ready; the end of its log:\n{log.read_text('utf-8', 'replace')[-3000:]}"
                )
            time.sleep(0.2)
        yield url
    finally:
        _stop(process)


def _answers(url: str, text: str, headers: Mapping[str, str]) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=5) as response:
            return text.encode() in response.read()
    except OSError:  # urllib's errors are
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server, then kill what is left of its process group."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True)
class GatewayServers:
    """Starts the servers that `setup_vllm.py` and `setup_gateways.py` set up; their logs go to `logs`."""

    home: Path
    vllm_environment: Path
    vllm_model: Path
    logs: Path

    @contextmanager
    def vllm(self, port: int = 8010) -> Iterator[str]:
        """The real vLLM for CPU with its tiny model."""
        command: list[str | Path] = [
            self.vllm_environment / "bin" / "vllm",
            "serve",
            self.vllm_model,
            "--served-model-name",
            MODEL,
        ]
        command += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--max-model-len", "2048"]
        command += ["--distributed-executor-backend", IN_PROCESS_EXECUTOR]
        env = {
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_HOST_IP": "127.0.0.1",
            "GLOO_SOCKET_IFNAME": "lo",
            "VLLM_NO_USAGE_STATS": "1",
        }
        with running("vllm", command, f"http://127.0.0.1:{port}", self.logs, ready_text=MODEL, env=env) as url:
            yield url

    @contextmanager
    def dynamo(self, port: int = 8020) -> Iterator[str]:
        """Dynamo's frontend in front of its mocker, an engine that only takes its time."""
        store = self.logs / "dynamo-store"
        loopback = {
            f"DYN_{name}_HOST": "127.0.0.1" for name in ("TCP_RPC", "TCP_RESPONSE_STREAM", "EVENT_PLANE", "SYSTEM")
        }
        env = {**loopback, "DYN_FILE_KV": str(store), "DYN_LOG": "warn", "TRANSFORMERS_OFFLINE": "1"}
        plane = ["--discovery-backend", "file", "--request-plane", "tcp"]
        python, url = self.home / "dynamo" / "bin" / "python", f"http://127.0.0.1:{port}"
        frontend: list[str | Path] = [python, "-m", "dynamo.frontend", *plane]
        frontend += ["--http-host", "127.0.0.1", "--http-port", str(port)]
        mocker: list[str | Path] = [python, "-m", "dynamo.mocker", *plane, "--model-name", MODEL]
        mocker += ["--model-path", self.home / "word-model"]
        mocker += ["--planner-profile-data", self.home / "profile.npz", "--block-size", "64"]
        mocker += ["--num-gpu-blocks-override", "14766", "--max-num-batched-tokens", "32768"]
        with running("dynamo-frontend", frontend, url, self.logs, env=env):
            with running("dynamo-mocker", mocker, url, self.logs, ready_text=MODEL, env=env):
                yield url

    @contextmanager
    def litellm(self, upstream: str, port: int = 8030) -> Iterator[str]:
        """A LiteLLM proxy with a master key in front of vLLM."""
        config = self.logs / "litellm.yaml"
        config.write_text(
            f"model_list: [{{model_name: {MODEL}, litellm_params: {{model: hosted_vllm/{MODEL}, "
            f"api_base: '{upstream}/v1', api_key: none}}}}]\n"
        )
        command: list[str | Path] = [self.home / "litellm" / "bin" / "litellm", "--config", config]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        env = {KEY_VARIABLE: KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
        headers = {"Authorization": f"Bearer {KEY}"}
        url = f"http://127.0.0.1:{port}"
        with running("litellm", command, url, self.logs, ready_text=MODEL, env=env, headers=headers):
            yield url

    @contextmanager
    def sglang_router(self, upstream: str, port: int = 8040) -> Iterator[str]:
        """SGLang's router in front of one server, which it need not reach."""
        command: list[str | Path] = [
            self.home / "sglang-router" / "bin" / "python",
            "-m",
            "sglang_router.launch_router",
        ]
        command += ["--host", "127.0.0.1", "--port", str(port), "--worker-urls", upstream]
        command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(port + 1)]
        # it takes no request before it knows its server
        page = ("/liveness", "") if upstream == NO_SERVER else ("/v1/models", "data")
        name, url = f"sglang-router-{port}", f"http://127.0.0.1:{port}"
        with running(name, command, url, self.logs, ready_path=page[0], ready_text=page[1]):
            yield url

    @contextmanager
    def nginx(self, upstream: str, *directives: str, port: int = 8050) -> Iterator[str]:
        """Debian's nginx as a reverse proxy with these directives in its location."""
        folder = self.logs / f"nginx-{port}"
        folder.mkdir(exist_ok=True)
        stores = " ".join(
            f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        location = " ".join(f"{directive};" for directive in (f"proxy_pass {upstream}", *directives))
        config = folder / "nginx.conf"
        config.write_text(
            f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
            f"http {{ access_log off; {stores}\n"
            f"server {{ listen 127.0.0.1:{port}; location = /ready {{ return 200; }}\n"
            f"location / {{ {location} }} }} }}\n"
        )
        command: list[str | Path] = [self.home / "nginx" / "usr" / "sbin" / "nginx", "-p", folder, "-c", config]
        with running(f"nginx-{port}", command, f"http://127.0.0.1:{port}", self.logs, ready_path="/ready") as url:
            yield url
