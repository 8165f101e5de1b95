"""The PyTorch profiler of a running server, switched on and off by its control routes.

vLLM and SGLang have the routes beside their API, workers of Dynamo on the port of DYN_SYSTEM_PORT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autotuner.endpoints.client import Answer, Client, NoAnswerError
from autotuner.endpoints.headers import key_remedy
from autotuner.endpoints.tls import TlsTrust
from autotuner.errors import EndpointError

ROUTES = {
    "/start_profile": "/stop_profile",
    "/engine/control/start_profile": "/engine/control/stop_profile",
    "/engine/start_profile": "/engine/stop_profile",
}
"""Where profiling is started and where it is stopped: of vLLM and SGLang, of Dynamo, of Dynamo before 1.5."""
NO_ROUTE_STATUSES = (404, 405)
UNAUTHORIZED_STATUSES = (401, 403)
START_TIMEOUT_SECONDS = 60.0
NOT_STARTED_REMEDY = (
    'Start vLLM with --profiler-config \'{"profiler": "torch", "torch_profiler_dir": "/absolute/folder"}\', before '
    "0.13 with VLLM_TORCH_PROFILER_DIR set. SGLang needs no option. Of a worker of Dynamo, give the address of its "
    "DYN_SYSTEM_PORT with --worker; behind a router, give that of each worker."
)


@dataclass(frozen=True)
class ServerProfiler:
    """The profiler of the server at `url`; headers and certificates are those of its API."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: TlsTrust | None = None

    def start(self, trace_folder: str | None = None) -> str:
        """Start profiling; the path that stops it.

        SGLang writes to `trace_folder` of its own machine, others to the folder they were started with. EndpointError
        where the server does not answer, refuses, or was not started for it.
        """
        body = {} if trace_folder is None else {"output_dir": trace_folder}
        for start_path, stop_path in ROUTES.items():
            answer = self._ask(start_path, body, START_TIMEOUT_SECONDS)
            if answer.status not in NO_ROUTE_STATUSES and not _is_page(answer):
                self._check(answer)
                return stop_path
        raise EndpointError(
            f"The server at {self.url} cannot be profiled: it was not started for it.",
            why=f"It has none of the routes {', '.join(ROUTES)}.",
            remedy=NOT_STARTED_REMEDY,
        )

    def stop(self, stop_path: str, timeout: float) -> None:
        """Stop profiling, and wait `timeout` seconds at most while the server writes its trace; EndpointError then."""
        self._check(self._ask(stop_path, {}, timeout))

    def _ask(self, path: str, body: Mapping[str, Any], timeout: float) -> Answer:
        try:
            with Client(self.url, self.headers, self.tls) as client:
                return client.ask_root(path, body, timeout)
        except NoAnswerError as error:
            remedy = f"Start it, or correct the address {self.url}."
            if error.is_silent:
                remedy = "Writing a trace takes minutes after many requests: give a longer --timeout, or send fewer."
            raise EndpointError(f"The profiler of {self.url} did not answer.", why=str(error), remedy=remedy) from error

    def _check(self, answer: Answer) -> None:
        """EndpointError unless the server did what it was asked; workers of Dynamo answer 200 to failures too."""
        if answer.status in UNAUTHORIZED_STATUSES:
            raise EndpointError(f"{self.url} refuses to profile.", why=answer.summary, remedy=key_remedy(self.headers))
        if answer.status != 200 or _failure(answer) is not None:
            raise EndpointError(
                f"The profiler of {self.url} failed.",
                why=_failure(answer) or answer.summary,
                remedy="Look at that server's log. If it profiles already, stop that first: POST to "
                f"{' or '.join(ROUTES.values())}.",
            )


def _failure(answer: Answer) -> str | None:
    """The message of an answer that is a failure by its own words; None of any other."""
    try:
        data = answer.json()
    except ValueError:
        return None
    if not isinstance(data, dict) or data.get("status") not in ("error", "failed"):
        return None
    return f"{data.get('message') or answer.summary}"


def _is_page(answer: Answer) -> bool:
    """Whether an answer is an HTML page, which some servers have at any path."""
    return answer.text.lstrip()[:1] == "<"
