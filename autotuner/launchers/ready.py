"""Readiness of a server: it is healthy, serves the model, and has generated one token."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from autotuner.core import Failure, FailureKind, RequestForm
from autotuner.endpoints.client import Client, NoAnswerError
from autotuner.endpoints.models import ModelList, list_models
from autotuner.endpoints.tls import TlsTrust
from autotuner.endpoints.token import has_token, request_token
from autotuner.errors import EngineError
from autotuner.launchers.protocol import Server, ServerExitedError
from autotuner.workload.prompts import EndpointKind

Result = TypeVar("Result")

TRANSIENT_STATUSES = (408, 425, 429)
"""Client errors that are worth a retry: request timeout, too early, too many requests."""

LOADING_STATUSES = (503,)
"""What engines answer while they load the model, however long that takes."""

REFUSAL_TIMEOUT_SECONDS = 10.0
"""Seconds a healthy server may refuse completions before it counts as unhealthy."""

MIN_POLL_SECONDS, MAX_POLL_SECONDS = 0.02, 0.25
"""Seconds between two polls: the first pause, and the longest."""


def require_model(models: ModelList, model: str) -> None:
    """Raise EngineError of kind wrong-model when `model` is not served."""
    if not models.includes(model):
        raise EngineError(
            Failure(
                FailureKind.WRONG_MODEL,
                f"The server serves {models}, not {model}.",
                "Give the served name as model.served_name, or start the server with that model.",
            )
        )


def wait_until_ready(
    server: Server,
    *,
    ready_path: str | None,
    model: str,
    timeout: float,
    endpoint: EndpointKind = "completions",
    headers: Mapping[str, str] | None = None,
    form: RequestForm | None = None,
    tls: TlsTrust | None = None,
) -> ModelList:
    """Wait until the server is healthy, lists the model and has generated one token.

    `ready_path` is None for a server that runs already, which may list the model or not as long as it generates.
    ServerExitedError if the server ends meanwhile, TimeoutError with its last response after
    `timeout` seconds, EngineError when it serves another model or refuses a request.
    """
    deadline = time.monotonic() + timeout
    with Client(server.url, headers, tls) as client:
        models = None
        if ready_path is not None:
            _poll_until(server, deadline, lambda: client.ask_root(ready_path).require_ok())
            models = _poll_until(server, deadline, lambda: _list_some(client))
            require_model(models, model)
        timer = RefusalTimer()
        try:
            _poll_until(
                server,
                deadline,
                lambda: _require_token(client, model, endpoint, deadline - time.monotonic(), timer, form),
            )
        except EngineError:
            if models is None and (listed := _list_if_any(client)).names:
                require_model(listed, model)
            raise
        return models or _list_if_any(client)


def _list_some(client: Client) -> ModelList:
    """The listed models; NoAnswerError while there are none, as a frontend answers before its workers are there."""
    models = list_models(client)
    if not models.names:
        raise NoAnswerError("the server lists no model yet")
    return models


def _list_if_any(client: Client) -> ModelList:
    try:
        return list_models(client)
    except NoAnswerError:
        return ModelList(())


def _poll_until(server: Server, deadline: float, probe: Callable[[], Result]) -> Result:
    pause = MIN_POLL_SECONDS
    while True:
        try:
            return probe()
        except NoAnswerError as error:
            status = server.exit_status()
            if status is not None:
                raise ServerExitedError(status) from error
            if time.monotonic() + pause > deadline:
                raise TimeoutError(str(error)) from error
        time.sleep(pause)
        pause = min(MAX_POLL_SECONDS, pause * 1.5)


class RefusalTimer:
    """Decides when a healthy server that refuses completions is to be given up."""

    def __init__(self) -> None:
        self._first_refusal: float | None = None

    def is_exceeded(self, status: int) -> bool:
        """Whether a refusal with this HTTP status is final: a permanent client error, or the timeout has passed."""
        if status in LOADING_STATUSES:
            return False
        if 400 <= status < 500 and status not in TRANSIENT_STATUSES:
            return True
        self._first_refusal = self._first_refusal or time.monotonic()
        return time.monotonic() - self._first_refusal > REFUSAL_TIMEOUT_SECONDS


def _require_token(
    client: Client,
    model: str,
    endpoint: EndpointKind,
    timeout: float,
    refusal_timer: RefusalTimer,
    form: RequestForm | None,
) -> None:
    answer = request_token(client, model, endpoint, timeout, form)
    if has_token(answer):
        return
    if refusal_timer.is_exceeded(answer.status):
        remedy = "The server runs but refuses a request like those of the load; look at its log."
        raise EngineError(Failure(FailureKind.UNHEALTHY, answer.summary, remedy))
    raise NoAnswerError(answer.summary, answer.status)
