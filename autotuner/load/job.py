"""The job of a worker process: the endpoint, the load point, and the files it writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from autotuner.core import LoadPoint, Workload
from autotuner.errors import ConfigError


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server; `url` may end in `/v1`.

    `vocab_size` is the model's number of token ids; the default suits nearly every model with more.
    `headers` are sent with every request and never written anywhere. `tokenizer_path` is the model's
    tokenizer.json, for chat prompts of exact length.
    """

    url: str
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)
    vocab_size: int = 32_000
    tokenizer_path: str | None = None

    @cached_property
    def address(self) -> Address:
        """Where to connect; ConfigError when `url` is not a server address."""
        return Address.from_url(self.url)


@dataclass(frozen=True)
class Address:
    """Host and port of a server, and the path before `/v1`."""

    host: str
    port: int
    tls: bool
    path: str

    @classmethod
    def from_url(cls, url: str) -> Address:
        """Parse `http://host:port/path/v1`; ConfigError when it is not such an address."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ConfigError(
                f"'{url}' is not the address of a server.", remedy="Give one such as http://127.0.0.1:8000."
            )
        tls = parts.scheme == "https"
        path = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.hostname, port or (443 if tls else 80), tls, path)

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The URL that `/v1/...` and `/metrics` are appended to."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.path}"


@dataclass(frozen=True)
class Job:
    """The share of one load point that worker `worker_index` of `worker_count` drives, and its `folder` for files.

    `workload` holds that load point alone.
    """

    endpoint: Endpoint
    workload: Workload
    salt: str
    folder: str
    worker_index: int = 0
    worker_count: int = 1

    @property
    def spool_path(self) -> Path:
        return Path(self.folder, "exchanges.spool")

    @property
    def records_path(self) -> Path:
        return Path(self.folder, "records.bin")

    @property
    def stderr_path(self) -> Path:
        return Path(self.folder, "stderr.txt")

    @property
    def closed_loop_users(self) -> range:
        """This worker's users of a closed loop, each with one request in flight; empty in an open loop."""
        return range(self.worker_index, self.load_point.concurrency or 0, self.worker_count)

    @property
    def max_requests(self) -> int | None:
        """This worker's share of the window's request limit; None for no limit."""
        return self._share(self.workload.max_requests)

    @property
    def max_in_flight(self) -> int | None:
        """This worker's share of an open loop's limit on requests in flight; None for no limit."""
        return self._share(self.workload.max_in_flight)

    def _share(self, total: int | None) -> int | None:
        return None if total is None else len(range(self.worker_index, total, self.worker_count))

    @property
    def load_point(self) -> LoadPoint:
        return self.workload.load_points[0]

    def to_json(self) -> str:
        """The job as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Job:
        data = json.loads(text)
        workload = data.pop("workload")
        points = tuple(LoadPoint(**point) for point in workload.pop("load_points"))
        endpoint = Endpoint(**data.pop("endpoint"))
        return cls(endpoint=endpoint, workload=Workload(load_points=points, **workload), **data)


_ROUTES = {"completions": "/v1/completions", "chat": "/v1/chat/completions", "tokenize": "/tokenize"}


def request_head(endpoint: Endpoint, kind: str) -> bytes:
    """The HTTP/1.1 request up to the value of Content-Length; `kind` is "completions", "chat" or "tokenize"."""
    address = endpoint.address
    route = _ROUTES[kind]
    fields = {
        "Host": address.authority,
        "User-Agent": "autotune",
        "Accept": "text/event-stream, application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        **endpoint.headers,
    }
    for name, value in fields.items():
        if any(character in name + value for character in "\r\n\0"):
            raise ConfigError(f"The header {name!r} contains a line break.")
    lines = [f"POST {address.path}{route} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join((*lines, "Content-Length: ")).encode("latin-1", "replace")
