"""A server that runs already: the model it serves, the route that gives tokens, whether it is simulated."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from autotuner.engines.model import geometry
from autotuner.errors import EndpointError, UsageError
from autotuner.experiment import Model
from autotuner.launchers import ready
from autotuner.launchers.ready import Endpoint, Identity, NotReadyError
from autotuner.workload.prompts import Prompts

PATIENCE = 10.0
"""Seconds a route gets for one token before it is taken as it is."""

UNAUTHORISED = (401, 403)
OTHER_ROUTE = (400, 404, 405, 415, 422, 501)
"""What a server answers that does not have a route, or not for this model or for token ids."""

_VOCABULARY = 200
"""Token ids that any model has whose vocabulary is not known."""

_PROMPT = 16


@dataclass(frozen=True)
class Found:
    """What load is sent to: `model` as the server names it, at the route `endpoint`."""

    model: str
    endpoint: Endpoint
    simulated: bool


def find(url: str, headers: Mapping[str, str], *, model: str | None = None, endpoint: Endpoint | None = None) -> Found:
    """Ask a server what it serves, and where it gives tokens unless `endpoint` says.

    With `model` a server that does not answer is left to the load to find out about. UsageError:
    several models and none named, or none listed; EndpointError: it does not answer, refuses, or
    serves others.
    """
    try:
        identity = ready.identify(url, headers)
    except NotReadyError as error:
        if model is None:
            raise _silent(url, error) from error
        silent = error.status is None
        return Found(model, endpoint or ("completions" if silent else _route(url, headers, model)), simulated=False)
    served = _served(identity, url, model)
    return Found(served, endpoint or _route(url, headers, served), identity.simulated)


def gives_token(url: str, headers: Mapping[str, str], model: str, endpoint: Endpoint, timeout: float) -> bool:
    """Whether a short request, of the form that load has, is answered with a token within `timeout` seconds."""
    try:
        return _token(_ask(url, headers, model, endpoint, timeout))
    except NotReadyError:
        return False


def _served(identity: Identity, url: str, model: str | None) -> str:
    """The model to ask for."""
    if model is None:
        if len(identity.models) == 1:
            return identity.models[0]
        what = f"{url} serves {len(identity.models)} models." if identity.models else f"{url} lists no model."
        raise UsageError(what, why=_listed(identity), remedy="Choose one with --model.")
    if model not in identity.models:
        raise EndpointError(
            f"{url} does not serve '{model}'.",
            why=f"It serves: {', '.join(identity.models) or 'nothing'}.",
            remedy="Give the name that the server has with --model, or start the server with that model.",
        )
    return model


def _listed(identity: Identity) -> str:
    return f"They are: {', '.join(identity.models)}" if identity.models else ""


def _silent(url: str, error: NotReadyError) -> UsageError | EndpointError:
    """Why the model cannot be told."""
    if error.status in UNAUTHORISED:
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


def _route(url: str, headers: Mapping[str, str], model: str) -> Endpoint:
    """Completions, whose prompts have an exact length; chat where only that gives a token."""
    try:
        answer = _ask(url, headers, model, "completions", PATIENCE)
        if answer.status_code in OTHER_ROUTE and _token(_ask(url, headers, model, "chat", PATIENCE)):
            return "chat"
    except NotReadyError:
        pass
    return "completions"


def _token(answer: httpx.Response) -> bool:
    """Whether the stream has an event with choices and none that is not JSON."""
    lines = [line.removeprefix("data:").strip() for line in answer.text.splitlines() if line.startswith("data:")]
    try:
        events = [json.loads(line) for line in lines if line != "[DONE]"]
    except ValueError:
        return False
    return answer.status_code == httpx.codes.OK and any(isinstance(e, dict) and e.get("choices") for e in events)


def _ask(url: str, headers: Mapping[str, str], model: str, endpoint: Endpoint, timeout: float) -> httpx.Response:
    """Ask for one token exactly as load does: a server may refuse token ids or a field it does not know."""
    vocabulary = geometry(Model(id_or_path=model)).vocabulary or _VOCABULARY
    prompts = Prompts(kind=endpoint, model=model, vocabulary=vocabulary, salt=secrets.token_hex(8), phase="probe")
    path = "/v1/chat/completions" if endpoint == "chat" else "/v1/completions"
    with ready.client(url, headers) as http:
        return ready.send(
            http,
            "POST",
            path,
            content=prompts.body(0, _PROMPT, 1),
            headers={"Content-Type": "application/json"},
            timeout=timeout,
        )
