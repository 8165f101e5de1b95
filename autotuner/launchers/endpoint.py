"""A server that is already running: the model it serves, the API route to use, whether it is simulated."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from autotuner.errors import EndpointError, UsageError
from autotuner.experiment import Model
from autotuner.launchers import ready
from autotuner.launchers.ready import Endpoint, NotReadyError, ServerIdentity
from autotuner.model_files import model_dimensions
from autotuner.workload.prompts import Prompts

PROBE_TIMEOUT_SECONDS = 10.0
"""Seconds to wait for one token of a route; after that the route is used without a check."""

UNAUTHORIZED_STATUSES = (401, 403)
UNSUPPORTED_ROUTE_STATUSES = (400, 404, 405, 415, 422, 501)
"""What servers answer that lack the route, or do not offer it for this model or for token ids as the prompt."""

_FALLBACK_VOCAB_SIZE = 200
"""Token ids that any model has, for models of unknown vocabulary size."""

_PROBE_PROMPT_TOKENS = 16


@dataclass(frozen=True)
class ServedModel:
    """The model as the server names it, and the API route that load is sent to."""

    model: str
    endpoint: Endpoint
    is_simulated: bool


def find_served_model(
    url: str, headers: Mapping[str, str], *, model: str | None = None, endpoint: Endpoint | None = None
) -> ServedModel:
    """Ask a server which model it serves, and choose the API route unless `endpoint` is given.

    With `model` given, no error is raised for a server that does not answer: the load test reports it.
    UsageError when no model is given and the server lists several or none; EndpointError when it
    does not answer, refuses, or serves other models.
    """
    try:
        identity = ready.identify(url, headers)
    except NotReadyError as error:
        if model is None:
            raise _unlisted_error(url, error) from error
        if endpoint is None:
            endpoint = "completions" if error.status is None else _choose_endpoint(url, headers, model)
        return ServedModel(model, endpoint, is_simulated=False)
    served_model = _choose_model(identity, url, model)
    return ServedModel(served_model, endpoint or _choose_endpoint(url, headers, served_model), identity.is_simulated)


def gives_token(url: str, headers: Mapping[str, str], model: str, endpoint: Endpoint, timeout: float) -> bool:
    """Whether a request like those of the load is answered with a token within `timeout` seconds."""
    try:
        return _has_token(_request_token(url, headers, model, endpoint, timeout))
    except NotReadyError:
        return False


def _choose_model(identity: ServerIdentity, url: str, model: str | None) -> str:
    """`model` if the server lists it, without `model` the only one it lists; else an error."""
    if model is None:
        if len(identity.models) == 1:
            return identity.models[0]
        what = f"{url} serves {len(identity.models)} models." if identity.models else f"{url} lists no model."
        raise UsageError(what, why=_model_list(identity), remedy="Choose one with --model.")
    if model not in identity.models:
        raise EndpointError(
            f"{url} does not serve '{model}'.",
            why=f"It serves: {', '.join(identity.models) or 'nothing'}.",
            remedy="Give the name that the server has with --model, or start the server with that model.",
        )
    return model


def _model_list(identity: ServerIdentity) -> str:
    return f"They are: {', '.join(identity.models)}" if identity.models else ""


def _unlisted_error(url: str, error: NotReadyError) -> UsageError | EndpointError:
    """The error for a server that does not list its models."""
    if error.status in UNAUTHORIZED_STATUSES:
        return EndpointError(
            f"{url} refuses to list its models.",
            why=str(error),
            remedy="Give its API key with --api-key-env NAME, or the header it requires.",
        )
    if error.status is None or error.status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return EndpointError(
            f"Nothing that serves a model answers at {url}.", why=str(error), remedy="Start it, or correct the URL."
        )
    return UsageError(f"{url} does not list its models.", why=str(error), remedy="Name the model with --model.")


def _choose_endpoint(url: str, headers: Mapping[str, str], model: str) -> Endpoint:
    """Completions, whose prompts have an exact length; chat only where completions is unsupported and chat works."""
    try:
        response = _request_token(url, headers, model, "completions", PROBE_TIMEOUT_SECONDS)
        is_unsupported = response.status_code in UNSUPPORTED_ROUTE_STATUSES
        if is_unsupported and gives_token(url, headers, model, "chat", PROBE_TIMEOUT_SECONDS):
            return "chat"
    except NotReadyError:
        pass
    return "completions"


def _has_token(response: httpx.Response) -> bool:
    """Whether the event stream is all JSON and has an event with choices."""
    lines = [line.removeprefix("data:").strip() for line in response.text.splitlines() if line.startswith("data:")]
    try:
        events = [json.loads(line) for line in lines if line != "[DONE]"]
    except ValueError:
        return False
    return response.status_code == httpx.codes.OK and any(isinstance(e, dict) and e.get("choices") for e in events)


def _request_token(
    url: str, headers: Mapping[str, str], model: str, endpoint: Endpoint, timeout: float
) -> httpx.Response:
    """Request one token exactly as the load does: a server may refuse token ids or an unknown field."""
    vocab_size = model_dimensions(Model(id_or_path=model)).vocab_size or _FALLBACK_VOCAB_SIZE
    prompts = Prompts(kind=endpoint, model=model, vocab_size=vocab_size, salt=secrets.token_hex(8), phase="probe")
    path = "/v1/chat/completions" if endpoint == "chat" else "/v1/completions"
    with ready.http_client(url, headers) as http:
        return ready.send_request(
            http,
            "POST",
            path,
            content=prompts.body(0, _PROBE_PROMPT_TOKENS, 1),
            headers={"Content-Type": "application/json"},
            timeout=timeout,
        )
