"""A server that runs already: the model it serves, the route that gives tokens, whether it is simulated."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from autotuner.engines.model import model_dimensions
from autotuner.errors import EndpointError, UsageError
from autotuner.experiment import Model
from autotuner.launchers import ready
from autotuner.launchers.ready import Endpoint, NotReadyError, ServerIdentity
from autotuner.workload.prompts import Prompts

PROBE_TIMEOUT_SECONDS = 10.0
"""Seconds a route gets for one token before it is taken as it is."""

UNAUTHORIZED_STATUSES = (401, 403)
UNSUPPORTED_ROUTE_STATUSES = (400, 404, 405, 415, 422, 501)
"""What a server answers that does not have a route, or not for this model or for token ids."""

_FALLBACK_VOCABULARY_SIZE = 200
"""Token ids that any model has whose vocabulary is not known."""

_PROBE_PROMPT_TOKENS = 16


@dataclass(frozen=True)
class ServedModel:
    """What load is sent to: `model` as the server names it, at the route `endpoint`."""

    model: str
    endpoint: Endpoint
    is_simulated: bool


def find_served_model(
    url: str, headers: Mapping[str, str], *, model: str | None = None, endpoint: Endpoint | None = None
) -> ServedModel:
    """Ask a server what it serves, and where it gives tokens unless `endpoint` says.

    With `model` a server that does not answer is left to the load to find out about. UsageError:
    several models and none named, or none listed; EndpointError: it does not answer, refuses, or
    serves others.
    """
    try:
        identity = ready.identify(url, headers)
    except NotReadyError as error:
        if model is None:
            raise _unlisted_error(url, error) from error
        silent = error.status is None
        return ServedModel(
            model, endpoint or ("completions" if silent else _choose_endpoint(url, headers, model)), is_simulated=False
        )
    served = _choose_model(identity, url, model)
    return ServedModel(served, endpoint or _choose_endpoint(url, headers, served), identity.is_simulated)


def gives_token(url: str, headers: Mapping[str, str], model: str, endpoint: Endpoint, timeout: float) -> bool:
    """Whether a short request, of the form that load has, is answered with a token within `timeout` seconds."""
    try:
        return _has_token(_request_token(url, headers, model, endpoint, timeout))
    except NotReadyError:
        return False


def _choose_model(identity: ServerIdentity, url: str, model: str | None) -> str:
    """The model to ask for."""
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
    """Why the model cannot be told."""
    if error.status in UNAUTHORIZED_STATUSES:
        return EndpointError(
            f"{url} refuses to say what it serves.",
            why=str(error),
            remedy="Give its key with --api-key-env NAME, or the header it wants.",
        )
    if error.status is None or error.status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return EndpointError(
            f"Nothing that serves a model answers at {url}.", why=str(error), remedy="Start it, or correct the URL."
        )
    return UsageError(f"{url} does not list its models.", why=str(error), remedy="Name the model with --model.")


def _choose_endpoint(url: str, headers: Mapping[str, str], model: str) -> Endpoint:
    """Completions, whose prompts have an exact length; chat where only that gives a token."""
    try:
        answer = _request_token(url, headers, model, "completions", PROBE_TIMEOUT_SECONDS)
        if answer.status_code in UNSUPPORTED_ROUTE_STATUSES and _has_token(
            _request_token(url, headers, model, "chat", PROBE_TIMEOUT_SECONDS)
        ):
            return "chat"
    except NotReadyError:
        pass
    return "completions"


def _has_token(answer: httpx.Response) -> bool:
    """Whether the stream has an event with choices and none that is not JSON."""
    lines = [line.removeprefix("data:").strip() for line in answer.text.splitlines() if line.startswith("data:")]
    try:
        events = [json.loads(line) for line in lines if line != "[DONE]"]
    except ValueError:
        return False
    return answer.status_code == httpx.codes.OK and any(isinstance(e, dict) and e.get("choices") for e in events)


def _request_token(
    url: str, headers: Mapping[str, str], model: str, endpoint: Endpoint, timeout: float
) -> httpx.Response:
    """Ask for one token exactly as load does: a server may refuse token ids or a field it does not know."""
    vocabulary = model_dimensions(Model(id_or_path=model)).vocabulary_size or _FALLBACK_VOCABULARY_SIZE
    prompts = Prompts(kind=endpoint, model=model, vocab_size=vocabulary, salt=secrets.token_hex(8), phase="probe")
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
