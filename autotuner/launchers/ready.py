"""Readiness of a server: it is healthy, serves the model, and has generated one token."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import httpx

from autotuner.core import Failure, FailureKind
from autotuner.errors import EngineError, MachineError
from autotuner.experiment import Deployment
from autotuner.launchers.protocol import Server, ServerExitedError

Result = TypeVar("Result")
Endpoint = Literal["completions", "chat"]

TRANSIENT_STATUSES = (408, 425, 429)
"""Client errors that are worth a retry: request timeout, too early, too many requests."""

LOADING_STATUSES = (503,)
"""What engines answer while they load the model, however long that takes."""

REFUSAL_TIMEOUT_SECONDS = 10.0
"""Seconds a healthy server may refuse completions before it counts as unhealthy."""

REQUEST_TIMEOUT_SECONDS = 5.0
"""Seconds one request may take that generates no token."""

MIN_POLL_SECONDS, MAX_POLL_SECONDS = 0.02, 0.25
"""Seconds between two polls: the first pause, and the longest."""

SIMULATOR_OWNER = "autotune-sim"
"""The `owned_by` of models that the simulated engine lists in /v1/models."""


class NotReadyError(Exception):
    """A server gave no usable response; `status` is its HTTP status, None without a response."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class ServerIdentity:
    """The models a server lists, and whether it is the simulated engine."""

    models: tuple[str, ...]
    is_simulated: bool = False

    def require_model(self, model: str) -> None:
        """Raise EngineError of kind wrong-model when `model` is not served."""
        if model not in self.models:
            served = ", ".join(self.models) or "nothing"
            raise EngineError(
                Failure(
                    FailureKind.WRONG_MODEL,
                    f"The server serves {served}, not {model}.",
                    "Give the served name as model.served_name, or start the server with that model.",
                )
            )


def base_url(url: str) -> str:
    """The URL without a trailing /v1."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def request_headers(deployment: Deployment) -> dict[str, str]:
    """HTTP headers of every request: those of the deployment, and its API key from the environment."""
    headers = dict(deployment.headers)
    if deployment.api_key_env is not None:
        key = os.environ.get(deployment.api_key_env)
        if not key:
            raise MachineError(
                f"The environment variable {deployment.api_key_env} is not set.",
                why="The deployment reads the server's API key from it.",
                remedy=f"Export {deployment.api_key_env}.",
            )
        headers["Authorization"] = f"Bearer {key}"
    return headers


def http_client(url: str, headers: Mapping[str, str] | None = None) -> httpx.Client:
    """An HTTP client that uses no proxy and the system's CA certificates, as the load generator does."""
    verify = ssl.create_default_context() if url.startswith("https:") else True
    return httpx.Client(
        base_url=base_url(url),
        headers=dict(headers or {}),
        trust_env=False,
        timeout=REQUEST_TIMEOUT_SECONDS,
        verify=verify,
    )


def identify(url: str, headers: Mapping[str, str] | None = None) -> ServerIdentity:
    """Ask the server at a URL which models it serves; NotReadyError when it does not answer."""
    with http_client(url, headers) as http:
        return _fetch_identity(http)


def wait_until_ready(
    server: Server,
    *,
    ready_path: str,
    model: str,
    timeout: float,
    endpoint: Endpoint = "completions",
    headers: Mapping[str, str] | None = None,
) -> ServerIdentity:
    """Wait until the server is healthy, lists the model and has generated one token.

    ServerExitedError when the server ends meanwhile, TimeoutError with its last response after
    `timeout` seconds, EngineError when it serves another model or refuses a request.
    """
    deadline = time.monotonic() + timeout
    with http_client(server.url, headers) as http:
        _poll_until(server, deadline, lambda: _check_health(http, ready_path))
        identity = _poll_until(server, deadline, lambda: _fetch_identity(http))
        identity.require_model(model)
        refusal_timer = RefusalTimer()
        _poll_until(
            server, deadline, lambda: _require_token(http, model, endpoint, deadline - time.monotonic(), refusal_timer)
        )
    return identity


def probe_server(
    url: str,
    model: str,
    endpoint: Endpoint,
    timeout: float,
    headers: Mapping[str, str] | None = None,
) -> Literal["answer", "fault", "silence"]:
    """Request one token of a server that was ready: a response, a 5xx fault, or nothing within `timeout` seconds."""
    with http_client(url, headers) as http:
        try:
            response = _request_token(http, model, endpoint, timeout)
        except NotReadyError:
            return "silence"
    return "fault" if response.is_server_error else "answer"


def _poll_until(server: Server, deadline: float, probe: Callable[[], Result]) -> Result:
    pause = MIN_POLL_SECONDS
    while True:
        try:
            return probe()
        except NotReadyError as error:
            status = server.exit_status()
            if status is not None:
                raise ServerExitedError(status) from error
            if time.monotonic() + pause > deadline:
                raise TimeoutError(str(error)) from error
        time.sleep(pause)
        pause = min(MAX_POLL_SECONDS, pause * 1.5)


def _check_health(http: httpx.Client, path: str) -> None:
    response = send_request(http, "GET", path)
    if response.status_code != httpx.codes.OK:
        raise NotReadyError(f"{path} answered {response.status_code}.")


def _fetch_identity(http: httpx.Client) -> ServerIdentity:
    response = send_request(http, "GET", "/v1/models")
    if response.status_code != httpx.codes.OK:
        raise NotReadyError(f"/v1/models answered {response.status_code}.", response.status_code)
    try:
        cards = list(response.json()["data"])
        names = tuple(str(card["id"]) for card in cards)
    except (ValueError, KeyError, TypeError) as error:
        raise NotReadyError("/v1/models did not answer with a list of models.", response.status_code) from error
    return ServerIdentity(names, any(card.get("owned_by") == SIMULATOR_OWNER for card in cards))


class RefusalTimer:
    """Decides when a healthy server that refuses completions is to be given up."""

    def __init__(self) -> None:
        self._first_refusal: float | None = None

    def is_exceeded(self, status: int) -> bool:
        """Whether a refusal with this HTTP status is final: a permanent client error, or the timeout has passed."""
        if status in LOADING_STATUSES:
            return False
        if httpx.codes.is_client_error(status) and status not in TRANSIENT_STATUSES:
            return True
        self._first_refusal = self._first_refusal or time.monotonic()
        return time.monotonic() - self._first_refusal > REFUSAL_TIMEOUT_SECONDS


def _require_token(
    http: httpx.Client, model: str, endpoint: Endpoint, timeout: float, refusal_timer: RefusalTimer
) -> None:
    response = _request_token(http, model, endpoint, timeout)
    if _has_token(response):
        return
    message = f"{response.request.url.path} answered {response.status_code}: {response.text[:300].strip()}"
    if refusal_timer.is_exceeded(response.status_code):
        raise EngineError(
            Failure(FailureKind.UNHEALTHY, message, "The server runs but refuses a plain request; look at its log.")
        )
    raise NotReadyError(message)


def _request_token(http: httpx.Client, model: str, endpoint: Endpoint, timeout: float) -> httpx.Response:
    body: dict[str, Any] = {"model": model, "max_tokens": 1, "temperature": 0}
    if endpoint == "chat":
        path, body["messages"] = "/v1/chat/completions", [{"role": "user", "content": "Hello"}]
    else:
        path, body["prompt"] = "/v1/completions", "Hello"
    return send_request(http, "POST", path, json=body, timeout=max(timeout, 1.0))


def _has_token(response: httpx.Response) -> bool:
    return response.status_code == httpx.codes.OK and "choices" in response.text


def send_request(http: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    """Send one request; NotReadyError when no response comes."""
    try:
        return http.request(method, path, **options)
    except httpx.HTTPError as error:
        raise NotReadyError(f"{path} gave no answer: {str(error) or type(error).__name__}.") from error
