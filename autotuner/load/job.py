"""The job of a worker process: the endpoint, the load point, and the files it writes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from autotuner.core import LoadPoint, RequestForm, Workload
from autotuner.endpoints.address import API_PATHS, Endpoint
from autotuner.endpoints.chat_token_fit import ChatTokenFit
from autotuner.endpoints.headers import check_headers
from autotuner.endpoints.tls import TlsTrust
from autotuner.workload.prompts import EndpointKind


@dataclass(frozen=True)
class Job:
    """The share of one load point that worker `worker_index` of `worker_count` drives, and its `folder` for files.

    `workload` holds that load point alone. `token_fit` is what chat prompts cost on this server.
    """

    endpoint: Endpoint
    workload: Workload
    salt: str
    folder: str
    worker_index: int = 0
    worker_count: int = 1
    token_fit: ChatTokenFit = field(default_factory=ChatTokenFit)

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
        form = workload.pop("request_form")
        form = RequestForm(**form | {"omit": tuple(form["omit"])})
        endpoint = data.pop("endpoint")
        endpoint = Endpoint(**endpoint | {"tls": TlsTrust(**endpoint["tls"])})
        fit = data.pop("token_fit")
        fit = ChatTokenFit(**fit | {"words": tuple(fit["words"])})
        return cls(endpoint, Workload(load_points=points, request_form=form, **workload), token_fit=fit, **data)


def request_head(endpoint: Endpoint, kind: EndpointKind) -> bytes:
    """The HTTP/1.1 request up to the value of Content-Length."""
    address = endpoint.address
    check_headers(endpoint.headers)
    fields = {
        "Host": address.authority,
        "User-Agent": "autotune",
        "Accept": "text/event-stream, application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        **endpoint.headers,
    }
    start = f"POST {address.api_target(API_PATHS[kind])} HTTP/1.1"
    lines = [start, *(f"{name}: {value}" for name, value in fields.items()), "Content-Length: "]
    return "\r\n".join(lines).encode("latin-1", "replace")
